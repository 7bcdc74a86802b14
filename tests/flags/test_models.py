"""The model below an adapter is found by one rule, whichever command asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xvlm2vec.flags.models import adapter_base
from xvlm2vec.hub.verify import _base_of
from xvlm2vec.modeling import adapters


def make_adapter(folder: Path, base: str, revision: str | None = None) -> str:
    folder.mkdir(parents=True)
    content = {"base_model_name_or_path": base, "revision": revision}
    (folder / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("named", ["../base", "./../base", "base"])
def test_a_relative_base_counts_from_the_adapter_first(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(tmp_path / "run" / "adapter", named, "v1")
    base = tmp_path / "run" / ("base" if named != "base" else "adapter/base")
    base.mkdir()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "base").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert adapter_base(adapter) == adapters.adapter_base(adapter) == (str(base), None), "a folder has no revision"
    assert _base_of(Path(adapter), None) == str(base)


def test_a_relative_base_counts_from_the_working_directory_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(tmp_path / "adapter", "runs/base")
    (tmp_path / "work" / "runs" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert adapter_base(adapter).source == _base_of(Path(adapter), None) == str(tmp_path / "work" / "runs" / "base")


def test_a_base_on_the_hub_has_its_revision(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", "org/base", "v1")
    assert adapter_base(adapter) == ("org/base", "v1")


@pytest.mark.parametrize("named", ["../gone", "a/b/c"])
def test_a_base_that_is_gone_or_not_named(named: str, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", named)
    for find in (adapter_base, lambda source: _base_of(Path(source), None)):
        with pytest.raises(FileNotFoundError, match=f"belongs on '{named}', which cannot be loaded"):
            find(adapter)
    nameless = make_adapter(tmp_path / "nameless", "")
    with pytest.raises(ValueError, match="names no base model"):
        adapter_base(nameless)
