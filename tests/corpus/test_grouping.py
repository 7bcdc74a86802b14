"""Rows of the same text and image are brought together, in memory and in a stored corpus."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from datasets import Dataset
from PIL import Image

from xvlm2vec.corpus.grouping import group_parallel
from xvlm2vec.corpus.schema import parallel_features, validate_parallel_rows
from xvlm2vec.corpus.stored import load_parallel


def test_rows_of_any_kind_are_grouped(caplog: pytest.LogCaptureFixture) -> None:
    red, other_red, blue = (Image.new("RGB", (4, 4), name) for name in ("red", "red", "blue"))
    rows = [
        {"text_en": "a cat", "text": "un gatto", "lang": "it", "image": red},
        {"text_en": "a cat", "text": "eine Katze", "lang": "de", "image": other_red},
        {"text_en": "a cat", "text": "un chat", "lang": "fr", "image": blue},
        {"text_en": "a cat", "text": "una gatta", "lang": "it", "image": red},
    ]

    with caplog.at_level(logging.WARNING):
        grouped = group_parallel(rows)

    assert validate_parallel_rows(grouped) == 2
    assert [[item["lang"] for item in row["translations"]] for row in grouped] == [["it", "de"], ["fr"]]
    assert grouped[0]["translations"][0]["text"] == "un gatto"
    assert "1 translations are left out" in caplog.text
    with pytest.raises(ValueError, match="row 0 lacks the column 'lang'"):
        group_parallel([{"text_en": "a", "text": "b"}])


def test_a_stored_corpus_is_grouped(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (40, 0, 0)).save(tmp_path / "1.png")
    one_image = {"bytes": (tmp_path / "1.png").read_bytes(), "path": "1.png"}

    def row(number: int, image: dict | None, *items: tuple[str, str]) -> dict:
        translations = [{"lang": code, "text": text} for code, text in items]
        return {"id": str(number), "image": image, "text_en": "a cat", "translations": translations, "source": "s"}

    rows = [
        row(0, one_image, ("it", "un gatto")),
        row(1, None, ("it", "gatto")),
        row(2, {**one_image, "path": "copy.png"}, ("de", "eine Katze"), ("it", "un gatto")),
        row(3, None, ("fr", "chat")),
    ]
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(str(tmp_path / "corpus"))
    corpus = load_parallel(tmp_path / "corpus")

    grouped = group_parallel(corpus)

    assert grouped.features == corpus.features
    assert validate_parallel_rows(grouped) == 2
    assert grouped["id"] == ["0", "1"]
    assert grouped[0]["translations"] == [{"lang": "it", "text": "un gatto"}, {"lang": "de", "text": "eine Katze"}]
    assert [item["lang"] for item in grouped[1]["translations"]] == ["it", "fr"]
    assert grouped[0]["image"].getpixel((0, 0)) == (40, 0, 0)
    assert group_parallel(grouped) is grouped  # nothing repeats


def test_grouping_keeps_alignments(tmp_path: Path) -> None:
    def row(number: int, *items: dict) -> dict:
        return {"id": str(number), "image": None, "text_en": "a cat", "translations": list(items), "source": "s"}

    italian = {"lang": "it", "text": "un gatto", "alignment": None}
    aligned = {**italian, "alignment": "0-0 1-1"}
    german = {"lang": "de", "text": "eine Katze", "alignment": "0-0 1-1"}
    rows = [row(0, italian), row(1, german), row(2, aligned)]
    corpus = Dataset.from_list(rows, features=parallel_features(["alignment"]))

    assert group_parallel(corpus)[0]["translations"] == [aligned, german]
    assert group_parallel(rows)[0]["translations"] == [aligned, german]
    single = [{"text_en": "a cat", **item} for item in (aligned, german)]
    assert group_parallel(single)[0]["translations"] == [aligned, german]
