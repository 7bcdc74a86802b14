"""`xvlm2vec cache`: what is listed, what is removed, and what stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from xvlm2vec.cli import main
from xvlm2vec.common.store import EmbeddingStore, row_key

DAY = 86_400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stores of teachers, one of them last used 40 days ago, and the vectors of a demo."""
    monkeypatch.delenv("XVLM2VEC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "xvlm2vec"
    for number, name in enumerate(("old", "new")):
        store = EmbeddingStore(folder / "teacher", name, model=f"org/{name}")
        store.add([row_key(str(row)) for row in range(3 + number)], np.ones((3 + number, 8)))
        if name == "old":
            make_older(store.folder, 40 * DAY)
    (tmp_path / "xvlm2vec-demo").mkdir()
    (tmp_path / "xvlm2vec-demo" / "vectors.npy").write_bytes(b"x" * 2000)
    return folder


def make_older(folder: Path, seconds: float) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def store_of(cache: Path, name: str) -> Path:
    return EmbeddingStore(cache / "teacher", name).folder


def test_entries_are_listed_with_model_size_and_age(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "ls"]) == 0
    head, *lines, total = capsys.readouterr().out.splitlines()
    assert head.split() == ["KEY", "MODEL", "ROWS", "SIZE", "LAST", "USED"]
    by_model = {line.split()[1]: line for line in lines}
    assert by_model["org/old"].startswith("teacher/")
    assert by_model["org/old"].endswith("40 days ago")
    assert by_model["org/new"].split()[2] == "4"
    assert by_model["-"].startswith("xvlm2vec-demo ")
    assert "2.0 kB" in by_model["-"]
    assert total.startswith("3 entries of ")
    assert total.endswith(f" in {cache}")


def test_what_was_not_used_for_long_is_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["cache", "rm", "--older-than", "30d"]
    assert main([*command, "--dry-run"]) == 0
    assert "1 entry of" in capsys.readouterr().out
    assert main([*command, "--yes"]) == 0
    assert [path.name for path in (cache / "teacher").iterdir()] == [store_of(cache, "new").name]
    assert main([*command, "--yes"]) == 0
    assert "There is nothing to remove." in capsys.readouterr().out


def test_a_store_that_is_opened_is_in_use(cache: Path) -> None:
    store_of(cache, "old")
    assert main(["cache", "rm", "--older-than", "30d", "--yes"]) == 0
    assert len(list((cache / "teacher").iterdir())) == 2


def test_entries_are_removed_by_key_and_by_the_folder_above(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "rm", f"teacher/{store_of(cache, 'old').name}", "-y"]) == 0
    assert [path.name for path in (cache / "teacher").iterdir()] == [store_of(cache, "new").name]
    assert main(["cache", "rm", "teacher", "xvlm2vec-demo", "-y"]) == 0
    assert main(["cache", "ls"]) == 0
    assert "0 entries of 0 bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rm"], "say what to remove"),
        (["rm", "teach"], "there is no entry 'teach'"),
        (["rm", "teacher"], "pass --yes to remove without a question"),
    ],
)
def test_nothing_is_removed_by_mistake(
    cache: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull, encoding="utf-8"))  # noqa: SIM115
    assert main(["cache", *arguments]) == 1
    assert told in capsys.readouterr().err
    assert len(list((cache / "teacher").iterdir())) == 2


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 2), ("", 2)])
def test_a_person_is_asked(cache: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert main(["cache", "rm", "teacher"]) == (0 if left == 0 else 1)
    assert sum(path.is_dir() for path in (cache / "teacher").glob("*")) == left


def test_an_age_that_is_none_is_wrong_usage(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["cache", "rm", "--older-than", "long"])
    assert raised.value.code == 2
    assert "such as 30d, not 'long'" in capsys.readouterr().err


def test_leftovers_of_killed_processes_are_pruned(cache: Path) -> None:
    new, old = store_of(cache, "new"), store_of(cache, "old")
    draft, young = new / "5-00000000-0000000000000000.npy.7.tmp", new / "meta.json.8.tmp"
    draft.write_bytes(b"x")
    make_older(new, 2 * 3600)
    young.write_bytes(b"x")
    for path in old.glob("*.npy"):
        path.unlink()
    assert main(["cache", "prune", "--yes"]) == 0
    assert not old.exists()
    assert not draft.exists()
    assert young.exists()
    assert len(EmbeddingStore(cache / "teacher", "new")) == 4
    assert (cache.parent / "xvlm2vec-demo" / "vectors.npy").exists()


def test_another_folder_of_stores_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EmbeddingStore(tmp_path / "vectors", "one").add([row_key("a")], np.ones((1, 8)))
    assert main(["cache", "ls", "--folder", str(tmp_path / "vectors")]) == 0
    assert "1 entry of" in capsys.readouterr().out
