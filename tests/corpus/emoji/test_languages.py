"""The emoji world beyond its fourteen languages, and in its second drawing style."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.benchmark import emoji_benchmark
from xvlm2vec.corpus.emoji.build_languages import ANNOTATIONS, DERIVED, IMAGES, MISC, build_languages
from xvlm2vec.corpus.emoji.text import LANGUAGES, all_languages, instruct, join_names, more_languages
from xvlm2vec.corpus.emoji.training import NAMING_KINDS, parallel_rows, tokenizer_texts
from xvlm2vec.corpus.emoji.world import MORE_NAMES, TABLE, TWITTER, EmojiWorld, EmojiWorldConfig, teaching_world


def small(taught: tuple[str, ...], **settings: object) -> EmojiWorld:
    return teaching_world(taught, (), known=all_languages(), concepts=32, image_size=24, **settings)


@pytest.fixture(scope="module")
def world() -> EmojiWorld:
    return small(("de", "sw", "kk-Arab"))


def test_a_hundred_languages_fit_into_little() -> None:
    assert (len(LANGUAGES), len(more_languages()), len(set(all_languages()))) == (14, 85, 99)
    assert MORE_NAMES.stat().st_size + TWITTER.stat().st_size < 2_000_000
    names, ids = pq.read_table(MORE_NAMES), pq.read_table(TABLE, columns=["id"])["id"]
    assert names["id"].equals(ids)
    assert pq.read_table(TWITTER)["id"].equals(ids)
    for language in more_languages():
        found = [name for name in names[f"name_{language}"].to_pylist() if name is not None]
        assert len(found) >= 1050, language
        assert len({name.casefold() for name in found}) == len(found), language
        assert all(name.strip() == name and name for name in found)
        assert join_names(["a", "b"], language).count("a") >= 1


def test_every_language_in_one_world() -> None:
    every = EmojiWorld.load(EmojiWorldConfig(concepts=1000, languages=all_languages()))
    assert len(every) == 1000
    assert len(set(every.names("yo"))) == 1000
    with pytest.raises(ValueError, match="1039 concepts, fewer than the 1050 asked for"):
        EmojiWorld.load(EmojiWorldConfig(concepts=1050, languages=all_languages()))


def test_names_captions_and_instructions(world: EmojiWorld) -> None:
    dog = EmojiWorld.load(EmojiWorldConfig(concepts=1000, languages=("en", "sw", "zh-Hant")))
    place = dog.names("en").index("dog face")
    assert (dog.name(place, "sw"), dog.name(place, "zh-Hant")) == ("uso wa mbwa", "狗頭")
    assert dog.caption([place, place], "sw") == "uso wa mbwa na uso wa mbwa"
    assert instruct("t2i", "sw", "query", "mbwa") == instruct("t2i", "en", "query", "mbwa")
    with pytest.raises(KeyError):
        instruct("t2i", "xx", "query")


def test_only_drawings_depend_on_the_style(world: EmojiWorld) -> None:
    other = small(("de", "sw", "kk-Arab"), style="twitter")
    assert (other.ids, other.names("sw"), other.withheld) == (world.ids, world.names("sw"), world.withheld)
    np.testing.assert_array_equal(other.pair_splits, world.pair_splits)
    scene = world.compose([0, 1], 8)
    assert other.compose([0, 1], 8) == scene
    apart = [np.asarray(one.render(scene), dtype=float) for one in (world, other, pickle.loads(pickle.dumps(other)))]
    assert np.abs(apart[0] - apart[1]).mean() > 1
    np.testing.assert_array_equal(apart[1], apart[2])
    with pytest.raises(ValueError, match="styles noto, twitter, not 'apple'"):
        EmojiWorldConfig(style="apple")


def test_rows_to_learn_from_hold_what_a_language_has(world: EmojiWorld) -> None:
    rows = parallel_rows(world, rows=120)
    for row in rows:
        kind = row["source"].removeprefix("emoji/")
        languages = {translation["lang"] for translation in row["translations"]}
        assert languages <= {"de"} or kind in NAMING_KINDS
    only = parallel_rows(small(("sw",)), rows=60)
    assert {row["source"].removeprefix("emoji/") for row in only} == set(NAMING_KINDS)
    assert all([t["lang"] for t in row["translations"]] == ["sw"] for row in only)
    assert sum(row["translations"][0]["text"] != row["text_en"] for row in only) >= 50, "but for a few loanwords"
    assert world.name(3, "kk-Arab") in set(tokenizer_texts(world, captions=2))


def test_five_tasks_need_instructions(world: EmojiWorld) -> None:
    assert set(emoji_benchmark(world, rows=20).tasks["vqa"]) == {"en", "de"}
    with pytest.raises(ValueError, match="Unknown language code 'sw'"):
        emoji_benchmark(world, languages=["sw"], rows=20)


@pytest.mark.slow
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    size = ["--concepts", "32", "--image-size", "24", "--rows", "20", "--batch-size", "8", "--test-rows", "8"]
    wanted = ["--languages", "sw,am", "--style", "twitter"]
    assert main(["corpus", "emoji", *wanted, *size, "--output", str(tmp_path)]) == 0
    capsys.readouterr()
    # Some names are far longer in another language, which only the rule of lengths may remark.
    assert main(["corpus", "check", str(tmp_path / "parallel"), "--tell", "length"]) == 0
    shown = capsys.readouterr().out
    assert "  am\n" in shown
    assert "  sw\n" in shown


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def made_packages(folder: Path) -> list[str]:
    """Four packages of npm with 1,700 emoji and four languages, one of which is mostly English, one short of names."""
    emoji = [chr(0x1F300 + i) for i in range(1700)]
    english = {one: f"thing {i}" for i, one in enumerate(emoji)}
    sango = {one: f"yê {i}" for i, one in enumerate(emoji)} | {emoji[0]: "Yê  1"}
    copied = english | {emoji[0]: "chose"}
    short = dict(list(sango.items())[:500])
    for code, names in {"en": english, "sg": sango, "xc": copied, "xs": short}.items():
        halves = [dict(list(names.items())[part::2]) for part in (0, 1)]
        for package, part, half in zip(("", "-derived"), ("annotations", "annotationsDerived"), halves, strict=True):
            entries = {one: {"tts": [name]} for one, name in half.items()} | {"x": {"default": ["y"]}}
            path = folder / f"cldr-annotations{package}-full" / part / code / "annotations.json"
            write(path, {part: {"annotations": entries}})
        patterns = {"listPattern-type-standard": {"2": "{0} na {1}"}}
        path = folder / "cldr-misc-full" / "main" / code / "listPatterns.json"
        write(path, {"main": {code: {"listPatterns": patterns}}})
    listed = [{"unified": f"{ord(one):X}-FE0F", "image": f"{i}.png", "category": "Things", "has_img_twitter": True}
              for i, one in enumerate(emoji)]  # fmt: skip
    write(folder / "emoji-datasource-twitter" / "emoji.json", listed)
    for package in (ANNOTATIONS, DERIVED, MISC, IMAGES):
        write(folder / package / "package.json", {"version": "1.0"})
    for i in range(3):
        image = Image.new("RGBA", (64, 64))
        image.paste((200, 10 * i, 0, 255), (8, 8, 40, 56))
        (folder / "emoji-datasource-twitter" / "img" / "twitter" / "64").mkdir(parents=True, exist_ok=True)
        image.save(folder / "emoji-datasource-twitter" / "img" / "twitter" / "64" / f"{i}.png")
    return emoji[:3]


def test_building_from_packages(tmp_path: Path) -> None:
    emoji = made_packages(tmp_path / "node_modules")
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"id": [f"{ord(one):x}" for one in emoji], "emoji": emoji}), table)
    build_languages(tmp_path / "node_modules", tmp_path / "out", table)
    names = pq.read_table(tmp_path / "out" / MORE_NAMES.name)
    assert names.column_names == ["id", "name_sg"], "others are in English, or too short"
    assert names["name_sg"].to_pylist() == [None, None, "yê 2"], "two share a name but for its case"
    assert json.loads((tmp_path / "out" / "more_list_patterns.json").read_text()) == {"sg": {"2": "{0} na {1}"}}
    assert pq.read_table(tmp_path / "out" / TWITTER.name).num_rows == 3
    (tmp_path / "node_modules" / "cldr-misc-full" / "package.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no package cldr-misc-full; run `npm install cldr-annotations-full@"):
        build_languages(tmp_path / "node_modules", tmp_path / "out", table)
