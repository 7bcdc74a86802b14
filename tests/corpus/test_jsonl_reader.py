"""Rows per language are brought together: one row for an English text and its image, faults with their lines."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from datasets import Dataset
from PIL import Image

from xvlm2vec.corpus.grouping import group_parallel
from xvlm2vec.corpus.jsonl_reader import LineFields, read_jsonl
from xvlm2vec.corpus.schema import parallel_features, validate_parallel_rows
from xvlm2vec.corpus.stored import load_parallel, write_dataset


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


def line(english: str, text: str, lang: str, image: str | None = None) -> dict[str, str | None]:
    return {"text_en": english, "text": text, "lang": lang, "image": image}


def write(path: Path, *lines: dict | str | bytes) -> Path:
    coded = [json.dumps(item) if isinstance(item, dict) else item for item in lines]
    path.write_bytes(b"\n".join(item.encode() if isinstance(item, str) else item for item in coded) + b"\n")
    return path


def test_lines_of_one_text_and_image_become_one_row(tmp_path: Path, images: Path) -> None:
    italian = write(tmp_path / "it.jsonl", line("a cat", "un gatto", "it", "0.png"), line("a cat", "gatto", "it"))
    german = write(
        tmp_path / "de.jsonl",
        line("a cat", "eine Katze", "de", "0.png"),
        line("a cat", "noch eine Katze", "de", "1.png"),
        line("a cat", "eine Katze", "de", "0.png"),  # once more the same
        "",
    )

    corpus = read_jsonl([italian, german], images)

    assert not corpus.rejected
    assert [(row.image_name, row.texts) for row in corpus.rows] == [
        ("0.png", {"en": "a cat", "it": "un gatto", "de": "eine Katze"}),
        ("", {"en": "a cat", "it": "gatto"}),
        ("1.png", {"en": "a cat", "de": "noch eine Katze"}),
    ]
    assert [row.source for row in corpus.rows] == ["it", "it", "de"]
    assert set(corpus.languages) == {"en", "it", "de"}
    write_dataset(lambda: (row.example() for row in corpus.rows), parallel_features(), tmp_path / "parallel")
    written = load_parallel(tmp_path / "parallel")
    assert validate_parallel_rows(written) == 3
    assert written[0]["translations"] == [{"lang": "it", "text": "un gatto"}, {"lang": "de", "text": "eine Katze"}]
    assert written[1]["image"] is None
    assert written[2]["image"].getpixel((0, 0)) == (40, 0, 0)


def test_marks_of_an_image_are_removed(tmp_path: Path, images: Path) -> None:
    lines = line("<image>\na cat", "<image>\nun gatto", "it", "0.png"), line("a cat", "eine Katze", "de", "0.png")

    corpus = read_jsonl([write(tmp_path / "a.jsonl", *lines)], images)

    assert [row.texts for row in corpus.rows] == [{"en": "a cat", "it": "un gatto", "de": "eine Katze"}]


def test_other_names_of_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"caption": "a cat", "translated": "un gatto", "language": "it"})

    corpus = read_jsonl([path], fields=LineFields("caption", "translated", "language", "img_path"))

    assert [row.texts for row in corpus.rows] == [{"en": "a cat", "it": "un gatto"}]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
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
    ],
)
def test_bad_lines_are_collected_with_their_numbers(
    tmp_path: Path, images: Path, bad: dict | str | bytes, kind: str
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    (images / "broken.png").write_bytes((images / "0.png").read_bytes()[:40])
    path = write(tmp_path / "a.jsonl", line("a cat", "un gatto", "it"), "", bad, bad, line("a cat", "un chat", "fr"))

    corpus = read_jsonl([path], images)

    assert [row.texts for row in corpus.rows] == [{"en": "a cat", "it": "un gatto", "fr": "un chat"}]
    assert [(found.line, found.kind) for found in corpus.rejected] == [(3, kind), (4, kind)]
    report = corpus.report()
    assert (report["kept"], report["bad"], report["faults"]) == (1, 2, {kind: 2})
    assert json.loads(json.dumps(report)) == report


def test_images_need_their_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line("a cat", "un gatto", "it", "0.png"))

    assert "--images" in read_jsonl([path]).rejected[0].problem
    with pytest.raises(FileNotFoundError, match=r"b\.jsonl"):
        read_jsonl([path, tmp_path / "b.jsonl"])
    with pytest.raises(FileNotFoundError, match="folder of images"):
        read_jsonl([path], tmp_path / "none")


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


def test_a_stored_corpus_is_grouped(tmp_path: Path, images: Path) -> None:
    one_image = {"bytes": (images / "1.png").read_bytes(), "path": "1.png"}

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


def test_alignments_go_with_their_translations(tmp_path: Path) -> None:
    rows = [line("a cat", "un gatto", "it") | {"alignment": "0-0 1-1"}, line("a cat", "eine Katze", "de")]
    corpus = read_jsonl([write(tmp_path / "a.jsonl", *rows)])

    write_dataset(
        lambda: (row.example() for row in corpus.rows), parallel_features(["alignment"]), tmp_path / "parallel"
    )

    written = load_parallel(tmp_path / "parallel")
    assert written[0]["translations"] == [
        {"lang": "it", "text": "un gatto", "alignment": "0-0 1-1"},
        {"lang": "de", "text": "eine Katze", "alignment": None},
    ]
    assert validate_parallel_rows(written) == 1


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


def test_null_words_and_codes_of_lines(tmp_path: Path) -> None:
    rows = [line("a cat", "NaN", "pt_br"), line("a dog", "um cão", "PT-BR"), line("a fish", "peixe", "por")]
    path = write(tmp_path / "a.jsonl", *rows)

    corpus = read_jsonl([path])
    assert set(corpus.languages) == {"en", "pt-BR", "pt"}
    assert [(row.line, row.kind) for row in corpus.doubtful] == [(1, "null word")]
    dropped = read_jsonl([path], drop_null_words=True)
    assert [(row.line, row.kind) for row in dropped.rejected] == [(1, "null word")]
    assert not dropped.doubtful


def test_the_old_place_of_group_parallel_is_told() -> None:
    import xvlm2vec.corpus.jsonl_reader as old

    with pytest.warns(DeprecationWarning, match="grouping"):
        assert old.group_parallel is group_parallel
