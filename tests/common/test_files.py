from __future__ import annotations

import json
from pathlib import Path

import pytest

from xvlm2vec.common.files import files_below, is_leftover, readable_size, replaced_file, write_json, write_text


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": [1, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [1, None]}
    assert "é" in path.read_text(encoding="utf-8")
    write_text(path, "one\r\ntwo\n")
    assert path.read_bytes() == b"one\r\ntwo\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def write_half(path: Path) -> None:
    with replaced_file(path) as draft:
        draft.write_text("half")
        (path.parent / "missing").read_text()


def test_an_error_leaves_the_earlier_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with pytest.raises(FileNotFoundError):
        write_half(path)
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, float("nan"))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_sizes_for_people():
    assert [readable_size(count) for count in (7, 1_500, 2_340_000, 5 * 10**9)] == [
        "7 bytes",
        "1.5 kB",
        "2.3 MB",
        "5.0 GB",
    ]


def test_leftovers_are_no_files(tmp_path: Path) -> None:
    wanted = ("a.parquet", "b/c.parquet")
    for name in (*wanted, "._a.parquet", ".ipynb_checkpoints/a-checkpoint.parquet", "__MACOSX/d.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert files_below(tmp_path, "**/*.parquet") == [tmp_path / "a.parquet", tmp_path / "b" / "c.parquet"]
    assert all(map(is_leftover, (".DS_Store", "Thumbs.db", "desktop.ini", "._photo.jpg", "__MACOSX")))
    assert not any(map(is_leftover, ("n01440764", ".hidden", "photo.jpg")))
