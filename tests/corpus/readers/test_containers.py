"""WebDataset, parquet, JSONL and folders of images: what belongs together, and files that mean harm."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xvlm2vec import cli
from xvlm2vec.corpus.readers import images as images_module
from xvlm2vec.corpus.readers import lines as lines_module


def shard(path: Path, members: dict[str, bytes | str], links: tuple[str, ...] = ()) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            member, data = tarfile.TarInfo(name), content.encode() if isinstance(content, str) else content
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return path


def test_webdataset_names_with_dots_are_rows_of_their_own(
    tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]
) -> None:
    path = shard(
        tmp_path / "shard-00000.tar",
        {
            "a/photo.1.png": encoded(1, 0, 0), "a/photo.1.txt": "first", "a/photo.1.de.txt": "erstes",
            "a/photo.2.png": encoded(2, 0, 0), "a/photo.2.txt": "second",
            "a/photo.de.jpg": encoded(3, 0, 0), "a/photo.de.txt": "the third", "a/photo.de.json": '{"source": "web"}',
            "a/4.cls": "17", "a/4.json": '{"text_en": "four", "translations": {"de": "vier"}, "image": "else.png"}',
            "a/5.png": encoded(5, 0, 0), "a/._5.txt": "left behind", "a/6.png": b"torn", "a/6.txt": "six",
        },
        links=("a/7.png",),
    )  # fmt: skip

    found = read("webdataset", path)

    rows = {name.rpartition("/")[2]: found.texts(name) for name in found.rows}
    assert rows == {"photo.1": {"en": "first", "de": "erstes"}, "photo.2": {"en": "second"},
                    "photo.de": {"en": "the third"}, "4": {"en": "four", "de": "vier"}}  # fmt: skip
    assert found.color("shard-00000/a/photo.2") == (2, 0, 0)
    assert found.rows["shard-00000/a/photo.de"]["source"] == "web"
    assert [(row["kind"], row["id"]) for row in found.report["bad_rows"]] == [
        ("missing field", "shard-00000/a/5"), ("unreadable image", "shard-00000/a/6"), ("link", "shard-00000/a/7"),
    ]  # fmt: skip
    torn = tmp_path / "torn.tar.gz"
    torn.write_bytes(shard(torn, {"1.txt": "one", "2.txt": "two" * 9999}).read_bytes()[:-40])
    again = read("webdataset", torn)
    assert list(again.rows) == ["torn/1"]
    assert again.result.bad == {"damaged archive": 1}


def test_parquet_rows_of_one_text_and_image_become_one(
    tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]
) -> None:
    image = {"bytes": encoded(8, 8, 8), "path": "cat.png"}
    rows = [{"caption": "a cat", "text": text, "lang": code, "image": image} for code, text in
            (("de", "eine Katze"), ("zh_hant", "貓"), ("de", "Kater"), ("deutsch", "Katze"))]  # fmt: skip
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "image": None}]), tmp_path / "rows.parquet")
    from xvlm2vec.corpus.readers.records import LineFields

    found = read("parquet", tmp_path, fields=LineFields(english="caption"))

    assert found.texts("row-000000") == {"en": "a cat", "de": "eine Katze", "zh-Hant": "貓"}
    assert (found.color("row-000000"), found.color("row-000001")) == ((8, 8, 8), None)
    assert [(row["kind"], row["row"]) for row in found.report["bad_rows"]] == [
        ("another translation", 2), ("no other language", 3),
    ]  # fmt: skip
    assert "did you mean 'de'" in found.report["bad_rows"][1]["problem"]
    whole = [{"translation": {"en": "a dog", "de": "ein Hund", "fr": None}, "id": "dog"},
             {"translation": {"en": "a cow", "de": "eine Kuh", "fr": "une vache"}, "id": "dog"}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(whole), tmp_path / "rows.parquet")
    found = read("parquet", tmp_path / "rows.parquet")
    assert found.texts("dog") == {"en": "a dog", "de": "ein Hund"}
    assert found.texts("dog#1")["fr"] == "une vache", "an id that is there already is made another one"
    assert found.report["doubtful"][0]["kind"] == "duplicate id"
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match=r"none of 1 records .* cannot be read as parquet"):
        read("parquet", tmp_path)


def test_jsonl_with_lists_of_translations(
    tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]
) -> None:
    written = [
        {"text_en": "a cat", "translations": [{"lang": "de", "text": "eine Katze"}, {"lang": "qq", "text": "?"}]},
        {"text_en": "a cat", "text": "un gatto", "lang": "it", "alignment": "0-0 1-1"},
        {"text_en": "a dog", "id": "dog", "image": "dog.png", "source": "pets"},
        {"text_en": "a cow", "translations": "Kuh"}, {"text_en": " "}, {"text_en": "a hen", "text": "", "lang": "de"},
        {"text_en": "half \ud83d", "text": "?", "lang": "de"},
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, written)) + '\n{"text_en": "to', encoding="utf-8")
    (tmp_path / "dog.png").write_bytes(encoded(1, 1, 1))

    found = read("jsonl", tmp_path / "rows.jsonl", images=tmp_path)

    assert found.texts("row-000000") == {"en": "a cat", "de": "eine Katze", "it": "un gatto"}
    assert (found.rows["dog"]["source"], found.color("dog")) == ("pets", (1, 1, 1))
    assert [(row["kind"], row["line"]) for row in found.report["bad_rows"]] == [
        ("no list", 4), ("empty English text", 5), ("empty translation", 6), ("not UTF-8", 7), ("no JSON", 8),
    ]  # fmt: skip
    assert found.report["texts_left_out"] == {"no other language": 1}


def test_folders_of_images(tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes]) -> None:
    for name in ("animals/cat.png", "animals/cow.png", "plants/oak_tree/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(len(name), 0, 0))
    (tmp_path / "animals" / "cat.txt").write_text("a cat\n", encoding="utf-8")
    (tmp_path / "animals" / "cat.de.txt").write_text("eine Katze", encoding="utf-8")

    beside = read("images", tmp_path, images=tmp_path)
    assert beside.texts("animals/cat.png") == {"en": "a cat", "de": "eine Katze"}
    assert beside.result.left_out == {"images without a text": 2}
    named = read("images", tmp_path, images=tmp_path, folder_names=True)
    assert named.texts("plants/oak_tree/1.png") == {"en": "oak tree"}
    table = "file_name,text,de,split\ncat.png,a cat,eine Katze,a\n../../x.png,no,nein,a\ncow.png,a cow,,b\n"
    (tmp_path / "animals" / "metadata.csv").write_text(table, encoding="utf-8")
    tabled = read("images", tmp_path, images=tmp_path)
    assert [tabled.texts(name) for name in tabled.rows] == [{"en": "a cat", "de": "eine Katze"}, {"en": "a cow"}]
    assert [row["line"] for row in tabled.report["bad_rows"]] == [3]


def test_bombs_and_long_lines_are_refused(
    tmp_path: Path, read: Callable[..., Any], encoded: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "LARGEST", 1000)
    monkeypatch.setattr(lines_module, "LONGEST", 500)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", b"\0" * 100_000)
        archive.writestr("small.png", encoded(4, 4, 4))
    names = ["big.png", "small.png", "other/small.png", "/etc/passwd", "a" * 300]
    written = [json.dumps({"text_en": f"text {place}", "image": name}) for place, name in enumerate(names)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*written, json.dumps({"text_en": "x" * 9000}), "{}"]))

    found = read("jsonl", tmp_path / "rows.jsonl", images=tmp_path)

    assert [row["text_en"] for row in found.rows.values()] == ["text 1"]
    assert [(row["kind"], row["line"]) for row in found.report["bad_rows"]] == [
        ("too large", 1), ("missing image", 3), ("image outside the folder", 4), ("missing image", 5), ("too long", 6),
        ("missing field", 7),
    ]  # fmt: skip


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text_en": "a cat", "text": "Katze", "lang": "de", "image": "no.png"}\n{"text_en": "to\n')
    arguments = ["corpus", "read", "jsonl", str(path), "--output", str(tmp_path / "data")]
    assert cli.main(arguments) == 1
    assert "none of 2 records can be used" in capsys.readouterr().err
    assert cli.main([*arguments, "--without-images"]) == 0
    shown = capsys.readouterr().out
    assert "2 records: 1 kept, 1 bad, 0 left out" in shown
    assert "1 rows, 0 with an image" in shown
    assert f"BAD: {path}, line 2: no JSON" in shown
