from __future__ import annotations

import random
from collections import Counter
from itertools import combinations, pairwise

import pytest
from datasets import Dataset
from PIL import Image

from xvlm2vec.common.columns import PARALLEL_COLUMNS
from xvlm2vec.corpus.emoji.specs import Spec, SpecSampler, allot
from xvlm2vec.corpus.emoji.text import instructions
from xvlm2vec.corpus.emoji.training import (
    PARALLEL_KINDS,
    PARALLEL_MIX,
    contrastive_rows,
    parallel_rows,
    rendered,
    tokenizer_texts,
)
from xvlm2vec.corpus.emoji.world import SPLITS, EmojiWorld
from xvlm2vec.corpus.schema import parallel_features, validate_parallel_rows
from xvlm2vec.corpus.stored import write_dataset

EVEN = {"c": 1.0, "i2t": 1.0, "t2i": 1.0, "vqa": 1.0, "vg": 1.0}


def stored(dataset: Dataset) -> list[dict]:
    return dataset.with_format(None).to_list()


def blocks(dataset: Dataset, size: int) -> list[list[dict]]:
    rows = stored(dataset)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def asked_pair(row: dict) -> tuple[int, int] | None:
    """The pair a row is about; None where the row is about one thing."""
    if row["side"]:
        step = -1 if row["side"] == "left" else 1
        return row["concepts"][row["asked"]], row["concepts"][row["asked"] + step]
    return tuple(row["concepts"]) if len(row["concepts"]) == 2 else None


@pytest.mark.parametrize("task", EVEN)
def test_contrastive_rows_have_mmeb_columns(world: EmojiWorld, task: str) -> None:
    rows = contrastive_rows(world, {task: 1}, 20, 16, seed=0)[:]
    assert set(rows) == {"qry", "qry_image", "pos_text", "pos_image"}
    english = instructions()[task]["en"]
    for qry, qry_image, pos_text, pos_image in zip(*rows.values(), strict=True):
        assert qry.startswith(english["query"].removesuffix("{text}"))
        assert (len(qry) > len(english["query"].removesuffix("{text}"))) == ("{text}" in english["query"])
        assert (qry_image is None) == (task == "t2i")
        assert (pos_image is None) == (task not in ("t2i", "vg"))
        assert pos_text == english["target"] if pos_image else pos_text
        assert all(
            image is None or (image.size == (48, 48) and image.mode == "RGB") for image in (qry_image, pos_image)
        )


@pytest.mark.parametrize("world_name", ["world", "small_world"])
@pytest.mark.parametrize("task", EVEN)
def test_blocks_share_a_task_and_no_positive(world_name: str, task: str, request: pytest.FixtureRequest) -> None:
    dataset = contrastive_rows(request.getfixturevalue(world_name), {task: 1}, 4 * 32, 32, seed=1)
    for start in range(0, 128, 32):
        block = dataset[start : start + 32]
        images = [image and image.tobytes() for image in block["pos_image"]]
        assert len(set(zip(block["pos_text"], images, strict=True))) == 32


def test_mixed_blocks_have_one_task_each_in_the_asked_shares(world: EmojiWorld) -> None:
    parts = blocks(contrastive_rows(world, {"c": 2, "vqa": 1, "vg": 1}, 40 * 8, 8, seed=0), 8)
    assert all(len({row["kind"] for row in part}) == 1 for part in parts)
    assert Counter(part[0]["kind"] for part in parts) == {"c": 20, "vqa": 10, "vg": 10}
    assert len(contrastive_rows(world, {"c": 1}, 19, 8, seed=0)) == 19


def test_neighbours_share_a_thing(world: EmojiWorld) -> None:
    for part in blocks(contrastive_rows(world, {"i2t": 1, "t2i": 1}, 10 * 32, 32, seed=0), 32):
        pairs = [frozenset(row["concepts"]) for row in part]
        assert len(set(pairs)) == len(pairs)
        assert all(a & b for a, b in pairwise(pairs))


def test_questions_have_hard_negatives(world: EmojiWorld) -> None:
    for part in blocks(contrastive_rows(world, {"vqa": 1}, 5 * 32, 32, seed=0), 32):
        answers = {asked_pair(row)[1] for row in part}
        others = [set(row["concepts"]) - {asked_pair(row)[1]} for row in part]
        assert len(answers) == 32
        assert sum(bool(scene & answers) for scene in others) >= 30
        assert all(3 <= len(row["concepts"]) <= 4 for row in part)


def test_searches_have_hard_negatives(world: EmojiWorld) -> None:
    for part in blocks(contrastive_rows(world, {"vg": 1}, 5 * 32, 32, seed=0), 32):
        looked_for = Counter(row["concepts"][row["asked"]] for row in part)
        scenes = Counter(row["seed"] for row in part)
        assert max(scenes.values()) >= 3, "other crops of the same scene are in the block"
        assert sum(count > 1 for count in looked_for.values()) >= 5, "the same thing elsewhere is in the block"


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("world_name", ["world", "small_world"])
def test_splits_do_not_leak(world_name: str, split: str, request: pytest.FixtureRequest) -> None:
    world = request.getfixturevalue(world_name)
    level = SPLITS.index(split)
    rows = stored(contrastive_rows(world, EVEN, 20 * 16, 16, seed=5, split=split))
    rows += stored(parallel_rows(world, None, 500, seed=5, split=split))
    for row in rows:
        splits = {world.split_of(a, b) for a, b in combinations(row["concepts"], 2)}
        if split == "train":
            assert splits <= {"train"}
        if split == "validation":
            assert "test" not in splits
        if asked_pair(row):
            assert world.split_of(*asked_pair(row)) == split
        elif len(row["concepts"]) > 2:
            assert split in {world.split_of(row["concepts"][row["asked"]], other) for other in others(row)}
        assert row["seed"] % 4 == level


def others(row: dict) -> list[int]:
    return [concept for place, concept in enumerate(row["concepts"]) if place != row["asked"]]


def test_same_seed_same_rows(small_world: EmojiWorld) -> None:
    first, again, other = (contrastive_rows(small_world, EVEN, 160, 16, seed=s) for s in (0, 0, 1))
    assert stored(first) == stored(again) != stored(other)
    assert first[:32]["pos_text"] == again[:32]["pos_text"]
    assert not {row["seed"] for row in stored(first)} & {row["seed"] for row in stored(other)}


def test_contrastive_errors(small_world: EmojiWorld) -> None:
    with pytest.raises(ValueError, match=r"\['cls'\]; known: c, i2t"):
        contrastive_rows(small_world, {"cls": 1}, 10, 5, seed=0)
    with pytest.raises(ValueError, match="positive sum"):
        contrastive_rows(small_world, {"c": 0}, 10, 5, seed=0)
    with pytest.raises(ValueError, match=r"64 concepts give only 64 train examples of 'c'.*batch of 65"):
        contrastive_rows(small_world, {"c": 1}, 100, 65, seed=0)
    with pytest.raises(ValueError, match="Unknown split 'dev'; the splits are train"):
        contrastive_rows(small_world, {"c": 1}, 10, 5, seed=0, split="dev")


def test_parallel_rows_have_the_schema(world: EmojiWorld) -> None:
    dataset = parallel_rows(world, None, 800)
    assert len(dataset) == validate_parallel_rows(dataset) == 800
    assert tuple(dataset[0]) == PARALLEL_COLUMNS
    counts = Counter(row["source"] for row in dataset)
    assert counts == {f"emoji/{kind}": round(800 * share) for kind, share in PARALLEL_MIX.items()}
    for row in dataset:
        kind = row["source"].removeprefix("emoji/")
        assert (row["image"] is None) == (kind in ("name", "caption", "t2i"))
        assert isinstance(row["image"], Image.Image | None)


def test_parallel_texts_follow_the_instructions(world: EmojiWorld) -> None:
    for row in parallel_rows(world, None, 400):
        kind = row["source"].removeprefix("emoji/")
        templates = instructions()
        for language, text in [("en", row["text_en"]), *((t["lang"], t["text"]) for t in row["translations"])]:
            if kind in templates:
                assert text.startswith(templates[kind][language]["query"].removesuffix("{text}"))
            elif kind == "image":
                assert text in {templates["t2i"][language]["target"], templates["vg"][language]["target"]}


def test_withheld_names_never_appear_in_withheld_languages(small_world: EmojiWorld, world: EmojiWorld) -> None:
    for a_world, rows in ((world, 3000), (small_world, 1000)):
        forbidden = {
            language: [a_world.name(concept, language) for concept in a_world.withheld]
            for language in a_world.config.withheld_languages
        }
        allowed = {
            language: {a_world.name(c, language) for c in range(len(a_world)) if c not in a_world.withheld}
            for language in forbidden
        }
        dataset = parallel_rows(a_world, {kind: 1 for kind in PARALLEL_KINDS}, rows, seed=2)
        dropped = 0
        for spec, row in zip(stored(dataset), dataset, strict=True):
            languages = {t["lang"] for t in row["translations"]}
            dropped += languages != set(a_world.config.taught_languages)
            assert languages, "a row without translations teaches nothing"
            if spec["kind"] in ("name", "caption", "t2i"):
                named = set(spec["concepts"])
            elif spec["kind"] in ("vqa", "vg"):
                named = {spec["concepts"][spec["asked"]]}
            else:
                named = set()
            if named & a_world.withheld:
                assert not languages & set(forbidden)
            for translation in row["translations"]:
                if spec["kind"] == "name" and translation["lang"] in forbidden:
                    assert translation["text"] not in set(forbidden[translation["lang"]])
                    assert translation["text"] in allowed[translation["lang"]]
        assert bool(dropped) == (a_world is world)


def test_withheld_concepts_are_shown_and_named_elsewhere(world: EmojiWorld) -> None:
    dataset = parallel_rows(world, {"name": 1, "c": 1}, 2000)
    shown = {kind: {row["concepts"][0] for row in stored(dataset) if row["kind"] == kind} for kind in ("name", "c")}
    assert world.withheld <= shown["name"]
    assert world.withheld <= shown["c"]


def test_control_languages_are_not_taught(world: EmojiWorld) -> None:
    row = parallel_rows(world, {"c": 1}, 1)[0]
    assert [t["lang"] for t in row["translations"]] == list(world.config.taught_languages)
    with pytest.raises(ValueError, match="Unknown language code 'xx'"):
        parallel_rows(world, None, 1, languages=["xx"])
    with pytest.raises(ValueError, match="'nme'"):
        parallel_rows(world, {"nme": 1}, 1)


def test_rendered_rows_are_written_as_an_ordinary_dataset(small_world: EmojiWorld, tmp_path) -> None:
    dataset = parallel_rows(small_world, None, 300, seed=4)
    written = write_dataset(lambda: rendered(dataset), parallel_features(), tmp_path / "corpus")
    assert written.features == parallel_features()
    assert validate_parallel_rows(written) == 300
    for before, after in zip(dataset, written, strict=True):
        assert (before["image"] is None) == (after["image"] is None)
        if before["image"] is not None:
            assert before["image"].tobytes() == after["image"].convert("RGB").tobytes()
        assert {k: v for k, v in before.items() if k != "image"} == {k: v for k, v in after.items() if k != "image"}


def test_tokenizer_texts_cover_every_name_and_instruction(small_world: EmojiWorld) -> None:
    texts = list(tokenizer_texts(small_world, captions=10))
    for language in small_world.config.languages:
        assert set(small_world.names(language)) <= set(texts)
        assert instructions()["c"][language]["query"] in texts
    assert texts == list(tokenizer_texts(small_world, captions=10))


def test_allot_gives_exact_shares() -> None:
    counts = Counter(allot({"a": 0.5, "b": 0.3, "c": 0.2}, 11, random.Random(0)))
    assert sum(counts.values()) == 11
    assert counts["a"] in (5, 6)


def test_answers_stand_beside_the_named_thing() -> None:
    assert Spec((7, 8, 9), 0, asked=1, side="left").answer == 7
    assert Spec((7, 8, 9), 0, asked=1, side="right").answer == 9
    assert Spec((7, 8, 9), 0, asked=2).answer == 9
    assert Spec((7,), 0).answer == 7


def test_sampler_needs_pairs(world: EmojiWorld) -> None:
    with pytest.raises(ValueError, match="No pair of these 1 concepts"):
        SpecSampler(world, "train", "x", [3])
