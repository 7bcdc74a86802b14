from __future__ import annotations

from pathlib import Path

import pytest
from datasets import load_dataset, load_from_disk

from xvlm2vec.corpus.benchmark import Benchmark
from xvlm2vec.corpus.emoji.benchmark import BENCHMARK_TASKS, VG_CANDIDATES, emoji_benchmark
from xvlm2vec.corpus.emoji.text import TASKS, instructions
from xvlm2vec.corpus.emoji.training import contrastive_rows, parallel_rows
from xvlm2vec.corpus.emoji.world import EmojiWorld

FIELDS = {
    "c": ["id", "img", "classes"],
    "i2t": ["img", "captions"],
    "t2i": ["text", "images"],
    "vqa": ["img", "question", "answers"],
    "vg": ["img", "text", "imgs"],
    "withheld": ["id", "img", "classes"],
}


@pytest.fixture(scope="module")
def small(small_world: EmojiWorld) -> Benchmark:
    return emoji_benchmark(small_world)


@pytest.fixture(scope="module")
def large(world: EmojiWorld) -> Benchmark:
    return emoji_benchmark(world, languages=["en", "ja"])


def test_form_is_mmmebs(small: Benchmark) -> None:
    assert tuple(small.tasks) == BENCHMARK_TASKS
    for task, by_language in small.tasks.items():
        assert list(by_language) == ["en", "de", "ja", "ko"]
        assert len({len(dataset) for dataset in by_language.values()}) == 1
        assert all(dataset.column_names == FIELDS[task] for dataset in by_language.values())
    assert small.templates == {task: {k: instructions()[task][k] for k in ("en", "de", "ja", "ko")} for task in TASKS}


def test_sizes(small: Benchmark, large: Benchmark) -> None:
    assert {task: len(data["en"]) for task, data in large.tasks.items()} == {
        **dict.fromkeys(TASKS, 500),
        "i2t": 1000,
        "t2i": 1000,
        "withheld": 120,
    }
    assert all(100 <= len(small.tasks[task]["en"]) <= 300 for task in TASKS)
    assert len(small.tasks["withheld"]["en"]) == 25


def test_candidates_are_different_and_gold_comes_first(large: Benchmark, world: EmojiWorld) -> None:
    pools = {"c": 300, "i2t": 1000, "t2i": 1000, "vqa": 300, "vg": VG_CANDIDATES, "withheld": 300}
    for task, by_language in large.tasks.items():
        for dataset in by_language.values():
            for candidates in dataset[FIELDS[task][-1]]:
                assert len(candidates) == len(set(candidates)) == pools[task]
    captions = large.tasks["i2t"]["en"]["captions"]
    golds = [row[0] for row in captions]
    assert len(set(golds)) == 1000
    assert captions[7][1:] == golds[:7] + golds[8:], "the others follow in pool order"
    images = large.tasks["t2i"]["en"]["images"]
    assert [row[0] for row in images] == [f"images/t2i-{row:06d}.png" for row in range(1000)]


def test_rows_are_parallel(large: Benchmark, world: EmojiWorld) -> None:
    english, japanese = (large.tasks["c"][language] for language in ("en", "ja"))
    assert english["img"][:] == japanese["img"][:]
    for a, b in zip(english["classes"], japanese["classes"], strict=True):
        assert world.names("en").index(a[0]) == world.names("ja").index(b[0])
    assert large.tasks["vg"]["en"]["imgs"][:] == large.tasks["vg"]["ja"]["imgs"][:]


def test_candidates_of_grounding(large: Benchmark) -> None:
    rows = large.tasks["vg"]["en"].to_list()
    shows = {}
    for row in rows:
        shows[row["imgs"][0]] = row["text"]
    elsewhere = 0
    for row in rows:
        scene = row["img"].removesuffix(".png")
        own = [path for path in row["imgs"] if path.startswith(scene)]
        assert row["imgs"][0].startswith(scene)
        assert 3 <= len(own) <= 4, "every thing of the scene is a candidate"
        elsewhere += any(shows.get(path) == row["text"] for path in row["imgs"][1:])
    assert elsewhere > len(rows) / 2, "the same thing in other scenes is among the candidates"


def test_every_image_is_there_and_unseen(large: Benchmark, world: EmojiWorld) -> None:
    paths = large.images["path"][:]
    assert len(set(paths)) == len(paths)
    named = set()
    for task, by_language in large.tasks.items():
        data = by_language["en"]
        named |= set(data["img"][:]) if "img" in data.column_names else set()
        if task in ("t2i", "vg"):
            named |= {path for row in data[FIELDS[task][-1]] for path in row}
    assert named <= set(paths)
    image = large.images[0]["image"]
    assert image.size == (48, 48)
    stored = large.images.with_format("arrow")[:]["image"].combine_chunks().field("bytes").to_pylist()
    whole = [png for path, png in zip(paths, stored, strict=True) if path.count("-") == 1]
    assert len(set(whole)) == len(whole)


def test_asked_pairs_are_never_trained_on(large: Benchmark, world: EmojiWorld) -> None:
    names = world.names("en")
    captions = {row[0] for row in large.tasks["i2t"]["en"]["captions"]} | set(large.tasks["t2i"]["en"]["text"])
    for caption in captions:
        first, second = caption.split(" and ")
        assert world.split_of(names.index(first), names.index(second)) == "test"
    for row in large.tasks["vqa"]["en"].to_list():
        named = row["question"].split("“")[1].split("”")[0]
        assert world.split_of(names.index(named), names.index(row["answers"][0])) == "test"
    seen = {text for text in contrastive_rows(world, {"i2t": 1}, 2000, 50, seed=0)[:]["pos_text"]}
    seen |= {row["text_en"] for row in parallel_rows(world, {"caption": 1}, 2000)}
    assert not seen & captions


def test_withheld_concepts_are_asked_apart(large: Benchmark, world: EmojiWorld) -> None:
    withheld = {world.name(concept, "en") for concept in world.withheld}
    assert {row[0] for row in large.tasks["withheld"]["en"]["classes"]} == withheld
    assert not {row[0] for row in large.tasks["c"]["en"]["classes"]} & withheld
    assert not {row[0] for row in large.tasks["vqa"]["en"]["answers"]} & withheld
    assert not set(large.tasks["vg"]["en"]["text"]) & withheld
    for caption in large.tasks["t2i"]["en"]["text"]:
        assert not set(caption.split(" and ")) & withheld


def test_datasets_can_be_written_and_read(small: Benchmark, tmp_path: Path) -> None:
    for task, by_language in small.tasks.items():
        by_language.save_to_disk(str(tmp_path / task))
        again = load_from_disk(str(tmp_path / task))
        assert again["ja"].to_list() == by_language["ja"].to_list()
        by_language["ja"].to_parquet(tmp_path / f"{task}.parquet")
        read = load_dataset(
            "parquet", data_files=str(tmp_path / f"{task}.parquet"), cache_dir=str(tmp_path), split="train"
        )
        assert read.features == by_language["ja"].features
        assert read[0] == by_language["ja"][0]
    small.images.save_to_disk(str(tmp_path / "images"))
    assert load_from_disk(str(tmp_path / "images"))[3]["image"].tobytes() == small.images[3]["image"].tobytes()


def pixels(benchmark: Benchmark) -> list[bytes]:
    return [row["image"].tobytes() for row in benchmark.images]


def test_same_world_same_benchmark(small: Benchmark, small_world: EmojiWorld) -> None:
    again = emoji_benchmark(small_world)
    for task, by_language in small.tasks.items():
        assert again.tasks[task]["ko"].to_list() == by_language["ko"].to_list()
        assert again.tasks[task]["ko"]._fingerprint == by_language["ko"]._fingerprint
    assert pixels(again) == pixels(small)
    validation = emoji_benchmark(small_world, split="validation", rows=50)
    assert not set(pixels(validation)) & set(pixels(small))


def test_unknown_language_and_split(small_world: EmojiWorld) -> None:
    with pytest.raises(ValueError, match=r"Unknown language code 'kr'.*'ko'"):
        emoji_benchmark(small_world, languages=["kr"])
    with pytest.raises(ValueError, match="Unknown split"):
        emoji_benchmark(small_world, split="dev")
