"""Lines per language become one row for an English text and its image; faults are named with their lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xvlm2vec.corpus.readers.records import LineFields


@pytest.fixture
def images(tmp_path: Path, encoded: Callable[..., bytes]) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(40 * number, 0, 0))
    return folder


def line(english: str, text: str, lang: str, image: str | None = None) -> dict[str, str | None]:
    return {"text_en": english, "text": text, "lang": lang, "image": image}


def write(path: Path, *lines: dict | str | bytes) -> Path:
    coded = [json.dumps(item) if isinstance(item, dict) else item for item in lines]
    path.write_bytes(b"\n".join(item.encode() if isinstance(item, str) else item for item in coded) + b"\n")
    return path


def test_lines_of_one_text_and_image_become_one_row(tmp_path: Path, images: Path, read: Callable[..., Any]) -> None:
    italian = write(
        tmp_path / "it.jsonl",
        line("<image>\na cat", "<image>\nun gatto", "it", "0.png") | {"alignment": None},
        line("a cat", "gatto", "it") | {"alignment": "0-0 1-0"},
    )
    german = write(
        tmp_path / "de.jsonl",
        line("a cat", "eine Katze", "de", "0.png"),
        line("a cat", "noch eine Katze", "de", "1.png"),
        line("a cat", "eine Katze", "de", "0.png"),  # once more the same
        "",
        line("a dog", "NaN", "pt_br"),
    )

    found = read("jsonl", italian, german, images=images)

    assert found.result.kept == 6
    assert [found.texts(name) for name in found.rows] == [
        {"en": "a cat", "it": "un gatto", "de": "eine Katze"}, {"en": "a cat", "it": "gatto"},
        {"en": "a cat", "de": "noch eine Katze"}, {"en": "a dog", "pt-BR": "NaN"},
    ]  # fmt: skip
    assert [found.color(name) for name in found.rows] == [(0, 0, 0), None, (40, 0, 0), None]
    assert [row["source"] for row in found.rows.values()] == ["it", "it", "de", "de"]
    assert found.rows["row-000001"]["translations"] == [{"lang": "it", "text": "gatto", "alignment": "0-0 1-0"}]
    assert found.rows["row-000002"]["translations"][0]["alignment"] is None
    assert [(row["file"], row["line"], row["kind"]) for row in found.report["doubtful"]] == [
        (str(german), 5, "null word")
    ]


def test_other_names_of_fields(tmp_path: Path, read: Callable[..., Any]) -> None:
    path = write(tmp_path / "a.jsonl", {"caption": "a cat", "translated": "un gatto", "language": "it"})
    found = read("jsonl", path, fields=LineFields("caption", "translated", "language", "img_path"))
    assert found.texts("row-000000") == {"en": "a cat", "it": "un gatto"}


BAD: list[tuple[dict | str | bytes, str]] = [
    ("{", "no JSON"),
    ("[" * 100_000, "no JSON"),
    ('["a cat", "un gatto"]', "no JSON"),
    (b'{"text_en": "\xff"}', "not UTF-8"),
    (r'{"text_en": "\ud83d", "text": "x", "lang": "it"}', "not UTF-8"),
    ({"text_en": "a dog", "lang": "it"}, "missing field"),
    ({"text_en": "a dog", "text": 3, "lang": "it"}, "no text"),
    (line(" ", "un cane", "it"), "empty English text"),
    (line("a dog", "", "it"), "empty translation"),
    (line("a dog", "un cane", "Italian"), "no other language"),
    (line("a dog", "a dog", "en"), "no other language"),
    (line("a dog", "un cane", "it", "none.png"), "missing image"),
    (line("a dog", "un cane", "it", "x\0.png"), "missing image"),
    (line("a dog", "un cane", "it", "x" * 300), "missing image"),
    (line("a dog", "un cane", "it", "broken.png"), "unreadable image"),
    (line("a dog", "un cane", "it", "../secret.png"), "image outside the folder"),
    (line("a dog", "un cane", "it", "/etc/passwd"), "image outside the folder"),
    (line("a dog", "un cane", "it", "link.png"), "image outside the folder"),
    (line("a cat", "una gatta", "it"), "another translation"),
    (line("a dog", "<image> un cane", "it"), "marks of images"),
    (line("<image><image> a dog", "un cane", "it", "0.png"), "marks of images"),
    (line("a dog", "<image>", "it", "0.png"), "marks of images"),
    ({**line("[IMG] a", "[IMG] un", "it", "0.png"), "alignment": "0-0 1-1"}, "marks of images"),
]


def test_bad_lines_are_listed_with_their_numbers(tmp_path: Path, images: Path, read: Callable[..., Any]) -> None:
    (tmp_path / "secret.png").write_bytes((images / "0.png").read_bytes())
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    (images / "broken.png").write_bytes((images / "0.png").read_bytes()[:40])
    good = line("a cat", "un gatto", "it")
    path = write(tmp_path / "a.jsonl", good, "", *(bad for bad, _ in BAD), line("a cat", "un chat", "fr"))

    found = read("jsonl", path, images=images)

    assert [found.texts(name) for name in found.rows] == [{"en": "a cat", "it": "un gatto", "fr": "un chat"}]
    listed = [(row["line"], row["kind"]) for row in found.report["bad_rows"]]
    assert listed == [(number, kind) for number, (_, kind) in enumerate(BAD, 3)]
    assert found.report["kept"] == 2


def test_images_need_their_folder_and_null_words_can_be_dropped(tmp_path: Path, read: Callable[..., Any]) -> None:
    path = write(tmp_path / "a.jsonl", line("a cat", "un gatto", "it", "0.png"), line("a dog", "nan", "it"))

    found = read("jsonl", path)
    assert "--images" in found.report["bad_rows"][0]["problem"]
    with pytest.raises(ValueError, match=r"none of 2 records can be used: .*, line 1: .*; .*, line 2: 'nan' looks"):
        read("jsonl", path, drop_null_words=True)
    with pytest.raises(FileNotFoundError, match=r"b\.jsonl"):
        read("jsonl", path, tmp_path / "b.jsonl")
    with pytest.raises(FileNotFoundError, match="folder of images"):
        read("jsonl", path, images=tmp_path / "none")
