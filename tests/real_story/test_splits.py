"""Rows are parted by what they hold: nothing of a test row, image or text in any language, is in a training row."""

import numpy as np
import pytest
from PIL import Image

from xvlm2vec.eval.benchmarks.reading import read_benchmark
from xvlm2vec.real_story.config import CONTROLS
from xvlm2vec.real_story.data import copy_stamps, parallel_texts, thinned, write_gallery
from xvlm2vec.real_story.rows import benchmark_rows, text_row, without
from xvlm2vec.real_story.splits import TEST_SHARE, VALIDATION_SHARE, contents, grouped, split_rows


@pytest.fixture
def make(tmp_path):
    def row(source, name, shade, **texts):
        path = tmp_path / f"{source}-{name}.png"
        Image.fromarray(np.full((4, 4, 3), shade, np.uint8)).save(path)
        return text_row(source, name, texts, path)

    return row


def test_rows_that_share_a_text_or_pixels_are_one_group(make):
    rows = [
        make("stamps", "a", 1, en="A flower.", ja="花"),
        make("emoji", "b", 2, en="blossom", ja="花 "),
        make("stamps", "c", 2, en="A bloom."),
        make("stamps", "d", 4, en="a  FLOWER."),
        make("stamps", "e", 5, en="A tree.", de="A flower."),
    ]
    assert [[row.id for row in group] for group in grouped(rows)] == [
        ["stamps/a", "emoji/b", "stamps/c", "stamps/d"],
        ["stamps/e"],
    ]


def test_no_part_has_anything_of_another(make):
    rows = [make("stamps", str(number), number, en=f"thing {number % 90}") for number in range(150)]
    rows += [make("emoji", str(number), 150 + number, en=f"thing {number}") for number in range(10)]
    rows += [make("sentences", "s", 200, en="Thing 3"), make("sentences", "t", 201, en="A long sentence.")]
    splits = split_rows(rows, taught=("emoji",), tested=("sentences",))
    parts = [splits.train, splits.validation, splits.test]
    held = [{content for row in part for content in contents(row)} for part in parts]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    assert {row.id for row in splits.left_out} == {"stamps/3", "stamps/93", "emoji/3"}
    assert sorted(row.id for part in (*parts, splits.left_out) for row in part) == sorted(row.id for row in rows)
    assert {row.source for row in splits.validation} == {"stamps"}
    stamps = sum(row.source == "stamps" for row in splits.test) / 150
    assert abs(stamps - TEST_SHARE) < 0.2
    assert abs(len(splits.validation) / 150 - VALIDATION_SHARE) < 0.1
    counts = splits.counts()
    assert counts["left_out"] == {"rows": 3, "sources": {"stamps": 2, "emoji": 1}, "texts": {"en": 3}}
    assert len(thinned(splits, 10).train) == counts["train"]["sources"]["emoji"] + -(
        -counts["train"]["sources"]["stamps"] // 10
    )


def test_controls_are_never_taught_and_equal_captions_are_one_row(make):
    texts = {"de": "Haus", "pt-BR": "casa", "hu": "ház", "ka": "სახლი"}
    rows = without([make("emoji", "a", 1, en="house", **texts), make("stamps", "b", 2, en="house", ja="家")], CONTROLS)
    found = list(parallel_texts(rows))
    assert [row["text_en"] for row in found] == ["house"]
    assert {item["lang"] for item in found[0]["translations"]} == {"de", "pt-BR", "ja"}
    assert found[0]["image"] is None
    assert set(without(rows, CONTROLS, ("pt",))[0].texts) == {"en", "pt-BR"}


def test_held_out_stamps_are_read_as_the_package_is(tmp_path):
    stamps = tmp_path / "package" / "stamps"
    for number, name in enumerate(("animals/cat", "animals/dog", "symbols/a")):
        path = stamps / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 3, 4), 40 * number, np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"{name}.\nde.utf8=das {name}\n", encoding="utf-8")
    sources = {"stamps": "stamps", "symbols": "symbols"}
    rows = benchmark_rows("tuxpaint", stamps.parent, tmp_path / "images", sources)
    assert [row.id for row in rows] == ["stamps/animals/cat.png", "stamps/animals/dog.png", "symbols/symbols/a.png"]
    assert rows[0].texts == {"en": "animals/cat.", "de": "das animals/cat"}
    copy_stamps(rows[1:], stamps, tmp_path / "test" / "stamps")
    again = benchmark_rows("tuxpaint", tmp_path / "test", tmp_path / "images", sources)
    assert [(row.id, row.texts, row.image_digest) for row in again] == [
        (row.id, row.texts, row.image_digest) for row in rows[1:]
    ]


def test_the_demo_gets_the_languages_that_nearly_all_images_have(make, tmp_path):
    rows = [make("stamps", f"{place}.png", place, en=f"thing {place}", de=f"Ding {place}") for place in range(20)]
    del rows[7].texts["de"]
    rows[3].texts["km"] = "វត្ថុ"
    write_gallery(rows, tmp_path / "gallery")
    tasks = read_benchmark("folder", tmp_path / "gallery", tasks=["t2i"])
    assert {task.language for task in tasks} == {"en", "de"}
    assert all(len(task.queries) == 19 for task in tasks)
