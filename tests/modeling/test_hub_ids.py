from __future__ import annotations

from pathlib import Path

import pytest

from xvlm2vec.modeling.hub_ids import is_hub_id, is_path


@pytest.mark.parametrize("name", ["gpt2", "org/name", "Org-1/na.me_2"])
def test_hub_ids(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(name)
    assert not is_path(name)
    Path(name).mkdir(parents=True)
    assert is_path(name), "a folder that is there is meant"


@pytest.mark.parametrize("name", ["./x", "../x", "/x/y", "~/x", "a/b/c", "org/na me", "runs/", ".", "-x/y", "a--b"])
def test_paths(name: str) -> None:
    assert not is_hub_id(name)
    assert is_path(name)
