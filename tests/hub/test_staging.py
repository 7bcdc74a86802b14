from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from xvlm2vec import __version__
from xvlm2vec.hub.staging import MANIFEST, ExportError, move_into_place, staged_folder


def export(folder: Path, kind: str = "model", **files: str) -> None:
    with staged_folder(folder, kind) as staging:
        for name, text in files.items():
            (staging / name).write_text(text)


def test_a_folder_appears_with_its_manifest(tmp_path: Path) -> None:
    export(tmp_path / "new" / "model", a="1", b="2")
    content = json.loads((tmp_path / "new" / "model" / MANIFEST).read_text())
    assert content == {"made_by": "xvlm2vec", "version": __version__, "kind": "model", "files": ["a", "b"]}


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail_halfway() -> None:
        with staged_folder(tmp_path / "model", "model") as staging:
            (staging / "a").write_text("1")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_taken_and_an_earlier_export_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    export(tmp_path / "model", a="1")
    export(tmp_path / "model", b="2")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["b", MANIFEST]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_not_an_untouched_export_of_the_kind_is_refused(tmp_path: Path) -> None:
    export(tmp_path / "model", a="1")
    with pytest.raises(ExportError, match="no earlier adapter export"):
        export(tmp_path / "model", kind="adapter")
    (tmp_path / "model" / ".git").mkdir()
    (tmp_path / "model" / ".git" / "HEAD").write_text("ref")
    with pytest.raises(ExportError, match=r"\.git/HEAD"):
        export(tmp_path / "model")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="is a file"):
        export(tmp_path / "file")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / MANIFEST).write_text("{")
    with pytest.raises(ExportError, match="is not JSON"):
        export(tmp_path / "odd")
    (tmp_path / "odd" / MANIFEST).write_text('["a"]')
    with pytest.raises(ExportError, match="not empty"):
        export(tmp_path / "odd")


def test_several_folders_take_their_places_or_none(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder, text in ((source, "new"), (target, "old")):
        export(folder / "model", text=text)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match="gone"):
        move_into_place([(source / name, target / name) for name in ("model", "gone")])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    move_into_place([(source / "model", target / "model")])
    assert [path.name for path in target.iterdir()] == ["model"]
    assert not (source / "model").exists()


def test_when_the_last_rename_fails_the_earlier_folder_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    rename = os.replace

    def full_disk(source: Path, target: Path) -> None:
        if Path(source).name == "source":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        move_into_place([(tmp_path / "source", tmp_path / "target")])
    assert (tmp_path / "target" / "file").read_text() == "target"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
