"""Tux Paint's stamps and GCompris, on small made folders of the packages' layouts."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from xvlm2vec import cli
from xvlm2vec.common.captioned.captions import locale_code
from xvlm2vec.common.captioned.qt_files import Resources
from xvlm2vec.eval.benchmarks.debian import package_data
from xvlm2vec.eval.benchmarks.reading import read_benchmark
from xvlm2vec.eval.encoders import as_encoder
from xvlm2vec.eval.row_images import open_image
from xvlm2vec.eval.runner import evaluate

COLORS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="2" height="2"><rect width="2" height="2" fill="red"/></svg>'


def stamp(path: Path, color: str | None, *captions: str, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if color:
        Image.new(mode, (12, 36), COLORS[color] if mode == "RGB" else (0, 0, 0, 0)).save(path)
    if captions:
        path.with_suffix(".txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    """Seven captioned images, of which two share a caption, a symbol, a drawing, and what is left out."""
    folder = tmp_path / "usr" / "share" / "tuxpaint" / "stamps"
    stamp(folder / "a" / "red.png", "red", "red", "de.utf8=rot ", "sr@latin.utf8=crveno", "en_GB.utf8=red")
    stamp(folder / "a" / "scarlet.png", "red", "red", "de.utf8=rot", "km.utf8=red", "en_GB.utf8=scarlet")
    stamp(folder / "b" / "lime.png", "lime", "lime ", "de.utf8= grün", "sr@latin.utf8=", "older=gruen")
    stamp(folder / "b" / "blue.png", "blue", "blue", "de.utf8=blue ")
    stamp(folder / "b" / "nothing.png", "red", "nothing", "de.utf8=nichts", mode="RGBA")
    stamp(folder / "symbols" / "letters" / "r.png", "red", "the letter R", "de.utf8=ein R")
    stamp(folder / "b" / "red_mirror.png", "red")
    stamp(folder / "c" / "gift.png", None, "gift", "de.utf8=Geschenk")
    (folder / "c" / "drawn.svg").write_text(SVG, encoding="utf-8")
    (folder / "c" / "drawn.txt").write_text("red drawing\nde.utf8=rote Zeichnung\n", encoding="utf-8")
    return tmp_path


def test_stamps_in_every_language_that_has_captions_of_its_own(
    stamps: Path, color_model: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = read_benchmark("tuxpaint", stamps, templates={"i2t": {"*": {"query": "", "target": "{text}"}},
                                                         "t2i": {"*": {"query": "{text}", "target": ""}}})  # fmt: skip
    results = evaluate(as_encoder(color_model("en", "de")), tasks, progress=False)
    rows = {(row["dataset"], row["task"], row["language"]): row for row in results.rows}
    assert {key[2] for key in rows if key[0] == "stamps"} == {"en", "de", "sr-Latn", "en-GB"}, "km is English still"
    german = rows["stamps", "t2i", "de"]
    assert (german["n"], german["skipped"], german["skipped_for"]) == (4, 1, {"the same as in English": 1})
    assert rows["stamps", "t2i", "sr-Latn"]["skipped_for"] == {"no caption": 4}
    assert (rows["stamps", "t2i", "en-GB"]["n"], rows["symbols", "t2i", "de"]["n"]) == (1, 1)
    by_name = {(task.dataset, task.task, task.language): task for task in tasks}
    task = by_name["stamps", "t2i", "de"]
    assert len(task.candidates) == 5, "images without a caption in the language compete, too"
    assert task.gold_counts is not None
    assert sorted(task.gold_counts) == [1, 1, 2, 2], "equal captions share their images"
    assert len(by_name["stamps", "i2t", "de"].candidates) == 3
    assert [row.text for row in task.queries] == ["rot", "rot", "grün", "nichts"]
    assert german["p_at_1"] == pytest.approx((1 + 1 + 1 + 1 / 5) / 4)
    assert open_image(task.images["b/nothing.png"]).getpixel((0, 0)) == (255, 255, 255), "on white"
    assert "1 captions without an image or in no English, left out: c/gift.txt" in caplog.text
    assert "lime.txt: 1 lines are not of the form de.utf8=..., left out" in caplog.text
    assert "5 stamps; version 2022.06.04-1 of tuxpaint-stamps-default has 538" in caplog.text


def test_drawings_need_the_extra(
    stamps: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("xvlm2vec.eval.benchmarks.tuxpaint.importlib.util.find_spec", lambda name: None)
    tasks = read_benchmark("tuxpaint", stamps)
    assert "drawings" not in {task.dataset for task in tasks}
    assert "Left out 1 drawings: they need pip install 'xvlm2vec[svg]'" in caplog.text


def test_drawings_are_drawn(stamps: Path) -> None:
    pytest.importorskip("resvg_py")
    (task,) = read_benchmark("tuxpaint", stamps, datasets=["drawings"], languages=["de"], tasks=["t2i"])
    image = open_image(task.images["c/drawn.svg"])
    assert (image.size, image.getpixel((0, 0))) == ((256, 256), (255, 0, 0))


def test_a_caption_file_in_another_encoding_is_named(stamps: Path) -> None:
    path = stamps / "usr" / "share" / "tuxpaint" / "stamps" / "b" / "lime.txt"
    path.write_bytes("lime\nde.utf8=grün".encode("latin-1"))
    with pytest.raises(ValueError, match=r"lime\.txt: line 2 is not in UTF-8 .* save the file in UTF-8"):
        read_benchmark("tuxpaint", stamps)
    (stamps / "usr" / "share" / "tuxpaint" / "stamps" / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no file .*empty/.* with an image .*`xvlm2vec data tuxpaint"):
        read_benchmark("tuxpaint", stamps / "usr" / "share" / "tuxpaint" / "stamps" / "empty")


def test_codes_of_locales() -> None:
    spellings = ("pt_BR", "sr@latin", "ca@valencia", "zh_TW", "son", "nb")
    assert [locale_code(name) for name in spellings] == ["pt-BR", "sr-Latn", "ca-valencia", "zh-TW", "son", "nb"]


def resources(files: dict[str, bytes]) -> bytes:
    """A resource file of version 3, every second member compressed."""
    names, entries, data = b"", [], b""
    tree: dict[str, Any] = {}
    for path in files:
        here = tree
        for part in path.strip("/").split("/")[:-1]:
            here = here.setdefault(part, {})
        here[path.rsplit("/", 1)[1]] = files[path]
    offsets: dict[str, int] = {}

    def name_of(text: str) -> int:
        nonlocal names
        if text not in offsets:
            offsets[text] = len(names)
            names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return offsets[text]

    entries.append(["", tree])
    place = 0
    packed = []
    while place < len(entries):
        name, content = entries[place]
        if isinstance(content, dict):
            packed.append(struct.pack(">IHIIQ", name_of(name), 2, len(content), len(entries), 0))
            entries.extend([list(item) for item in content.items()])
        else:
            flags = place % 2
            stored = struct.pack(">I", len(content)) + zlib.compress(content) if flags else content
            packed.append(struct.pack(">IHHHIQ", name_of(name), flags, 0, 0, len(data), 0))
            data += struct.pack(">I", len(stored)) + stored
        place += 1
    body = b"".join(packed)
    return b"qres" + struct.pack(">5I", 3, 24, 24 + len(body), 24 + len(body) + len(data), 0) + body + data + names


def translations(context: str, texts: dict[str, str]) -> bytes:
    """A `.qm` file."""
    messages = b""
    for source, text in texts.items():
        for tag, part in ((3, text.encode("utf-16-be")), (8, b""), (6, source.encode()), (7, context.encode())):
            messages += struct.pack(">BI", tag, len(part)) + part
        messages += b"\x01"
    sections = struct.pack(">BI", 0x42, 4) + b"\0" * 4 + struct.pack(">BI", 0x69, len(messages)) + messages
    return bytes.fromhex("3cb86418caef9c95cd211cbf60a1bddd") + sections


def webp(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def gcompris(tmp_path: Path) -> Path:
    below = "/gcompris/src/activities/lang/resource"
    words = [{"description": w, "image": f"{w}.webp", "voice": f"v/$LOCALE/words/{w}.$CA"} for w in COLORS]
    files = {f"{below}/words_sample.json": json.dumps([{"content": [{"content": words}]}]).encode()}
    content = {"en": list(COLORS), "de": ["rot", "lime", ""], "en_GB": list(COLORS)}
    for language, texts in content.items():
        entries = {f"{word}.ogg": text for word, text in zip(COLORS, texts, strict=True)}
        files[f"{below}/content-{language}.json"] = json.dumps(entries).encode()
    files |= {f"{below}/words_sample/{word}.webp": webp(word) for word in COLORS}
    (tmp_path / "rcc").mkdir()
    (tmp_path / "rcc" / "lang.rcc").write_bytes(resources(files))
    for number, name in enumerate(("farm_animals", "monuments", "world_animals", "world_music")):
        image = f"/gcompris/src/activities/explore_{name}/resource/it.webp"
        board = f'{{ "text": qsTr("A \\"red\\" {number}"), "x": 1, "image2": "qrc:{image}", }}'.encode()
        members = {f"/gcompris/src/activities/explore_{name}/board/board1.qml": board, image: webp("red")}
        (tmp_path / "rcc" / f"explore_{name}.rcc").write_bytes(resources(members))
    (tmp_path / "translations").mkdir()
    german = {f'A "red" {number}': f"Ein rotes {number}" for number in range(3)}
    (tmp_path / "translations" / "gcompris_de.qm").write_bytes(translations("board1", german))
    (tmp_path / "translations" / "gcompris_en.qm").write_bytes(translations("other", {"a": "b"}))
    return tmp_path


def test_words_and_sentences_of_gcompris(gcompris: Path) -> None:
    tasks = read_benchmark("gcompris", gcompris, tasks=["t2i"])
    found = {(task.dataset, task.language): task for task in tasks}
    assert set(found) == {("words", "en"), ("words", "de"), ("sentences", "en"), ("sentences", "de")}
    assert [str(row.text).split(": ")[-1] for row in found["words", "de"].queries] == ["rot", "lime"], "lime is German"
    assert found["words", "de"].skipped_for == {"no caption": 1}
    assert str(found["sentences", "en"].queries[0].text).endswith('A "red" 0')
    assert str(found["sentences", "de"].queries[1].text).endswith("Ein rotes 1")
    assert found["sentences", "de"].skipped_for == {"no caption": 1}
    (image,) = (name for name in found["words", "de"].images if name.endswith("blue.webp"))
    assert open_image(found["words", "de"].images[image]).getpixel((0, 0)) == (0, 0, 255)


def test_damaged_files_of_gcompris_are_named(gcompris: Path) -> None:
    path = gcompris / "rcc" / "lang.rcc"
    content = path.read_bytes()
    for damaged, message in ((content[:40], "lang.rcc is damaged"), (b"GIF8", "lang.rcc is no resource file of Qt's")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            read_benchmark("gcompris", gcompris)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*lang\.rcc; .*`xvlm2vec data gcompris"):
        read_benchmark("gcompris", gcompris)
    path.write_bytes(resources({"/gcompris/other.json": b"{}"}))
    assert list(Resources(path)) == ["/gcompris/other.json"]
    with pytest.raises(ValueError, match=r"has no .*content-en\.json; is it of another version than 3\.1-2\?"):
        read_benchmark("gcompris", gcompris)


def test_training_data_without_what_is_held_out(
    stamps: Path, gcompris: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same fixtures as corpora: every captioned image is in one part, and equal captions are in the same."""
    from xvlm2vec.corpus.stored import load_parallel

    monkeypatch.setattr("xvlm2vec.corpus.readers.tuxpaint.importlib.util.find_spec", lambda name: None)
    parts: dict[str, dict[str, Any]] = {}
    for part in ("train", "test", "all"):
        parts[part] = {}
        for name in ("tuxpaint", "gcompris"):
            output = stamps / "out" / part / name
            if cli.main(["corpus", "read", name, str(stamps), "--part", part, "--output", str(output)]) == 0:
                parts[part] |= {row["id"]: row for row in load_parallel(output / "parallel")}
    assert parts["train"].keys() | parts["test"].keys() == parts["all"].keys()
    assert not {row["text_en"] for row in parts["train"].values()} & {row["text_en"] for row in parts["test"].values()}
    assert len(parts["test"]) > 0
    lime = parts["all"]["Tux Paint/stamps/b/lime.png"]
    assert (lime["text_en"], lime["translations"]) == ("lime", [{"lang": "de", "text": "grün"}])
    assert lime["image"].getpixel((0, 0)) == COLORS["lime"]
    assert sum(row["source"] == "GCompris/words" for row in parts["all"].values()) == 3
    assert sum(row["source"] == "GCompris/sentences" for row in parts["all"].values()) == 4
    assert "1  drawings, which need pip install 'xvlm2vec[svg]'" in capsys.readouterr().out
    held_out = {name for name in parts["test"] if name.startswith("GCompris/sentences")}
    (task,) = read_benchmark("gcompris", gcompris, datasets=["sentences-test"], languages=["en"], tasks=["t2i"])
    assert {f"GCompris/sentences{name}" for row in task.candidates for name in row.images} == held_out


def package(path: Path, folder: Path, *more: tuple[str, bytes]) -> None:
    """A Debian package of a folder's files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        archive.add(folder, arcname=".")
        for name, content in more:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    parts = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", buffer.getvalue())):
        parts += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        parts += b"\n" * (len(content) % 2)
    path.write_bytes(parts)


def test_data_says_how_to_get_the_package_then_unpacks_and_reads_it(
    stamps: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path_factory.mktemp("data")
    assert cli.main(["data", "tuxpaint", "--output", str(output)]) == 1
    assert f"cd {output} && apt-get download tuxpaint-stamps-default" in capsys.readouterr().err
    (stamps / "usr" / "share" / "tuxpaint" / "stamps" / "a" / "red.ogg").write_bytes(b"sound")
    package(output / "tuxpaint-stamps-default_2022.06.04-1_all.deb", stamps)
    assert cli.main(["data", "tuxpaint", "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "stamps: 5 images, 4 languages with captions: en 5, de 4, en-GB 1, sr-Latn 1" in shown
    assert f"--benchmark tuxpaint --data {output / 'tuxpaint'}" in shown
    assert not list(output.rglob("*.ogg"))
    assert cli.main(["data", "tuxpaint", "--output", str(output)]) == 0, "it is unpacked already"


def test_packages_that_cannot_be_unpacked(stamps: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    output = tmp_path_factory.mktemp("data")
    path = output / "tuxpaint-stamps-default_1_all.deb"
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"_1_all\.deb is no package of Debian's"):
        package_data("tuxpaint", output)
    package(path, stamps)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"_1_all\.deb is damaged"):
        package_data("tuxpaint", output)
    package(path, stamps, ("usr/share/tuxpaint/stamps/../../../../../evil.txt", b"evil"))
    with pytest.raises(ValueError, match="is damaged"):
        package_data("tuxpaint", output)
    assert not (output / "tuxpaint").exists(), "nothing half"
    package(path, stamps)
    with pytest.raises(ValueError, match="has none of the files of gcompris-qt-data; is it another package"):
        package_data("gcompris", output, path)
