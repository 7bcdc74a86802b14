"""The benchmark of emoji in all languages: its tasks, and what the runner says of a model that knows two of them."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.text import all_languages
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS
from xvlm2vec.eval.ranking import RankingTask
from xvlm2vec.eval.runner import Extras, evaluate
from xvlm2vec.flags.emoji_languages import emoji_language_tasks


def tasks(**chosen: object) -> list[RankingTask]:
    return emoji_language_tasks(concepts=32, image_size=24, seed=0, **chosen)


def test_every_language_in_both_styles_on_the_same_items() -> None:
    found = tasks(tasks=["c", "t2i"])
    assert {task.language for task in found} == set(all_languages())
    assert len(found) == 99 * 2 * 2
    by_name = {(task.dataset, task.task, task.language): task for task in found}
    for name in ("c", "t2i"):
        first = by_name["noto", name, "en"]
        for key in (("twitter", name, "yo"), ("noto", name, "my")):
            assert np.array_equal(by_name[key].row_ids, first.row_ids)
            assert (by_name[key].images == first.images) is (key[0] == "noto")
    names = by_name["noto", "c", "sw"]
    assert len(names.candidates) == 32, "withheld names are candidates, too"
    assert len(names.queries) == 30
    assert names.queries[0].text == by_name["noto", "c", "en"].queries[0].text, "instructions are in English"
    assert by_name["noto", "c", "de"].queries[0].text != names.queries[0].text


def test_parts_of_it_and_bad_names() -> None:
    (one,) = tasks(datasets=["twitter"], languages=["sw"], tasks=["i2t"], templates=NO_INSTRUCTIONS)
    assert one.name == "Emoji in all languages/twitter/i2t/sw/verbatim"
    assert one.queries[0].text in (None, "")
    for wrong, message in (
        ({"datasets": ["apple"]}, "no data set apple; it has noto, twitter"),
        ({"languages": ["tlh"], "datasets": ["noto"]}, "no language tlh"),
        ({"tasks": ["vqa"], "datasets": ["noto"]}, "no task vqa; it has c, i2t, t2i"),
    ):
        with pytest.raises(ValueError, match=message):
            tasks(**wrong)


def test_a_language_that_a_model_cannot_read_fails_as_a_text() -> None:
    """The model's image of a scene is that of its English caption; it reads Swahili, and no Yoruba."""
    read = tasks(datasets=["noto"], languages=["en", "sw", "yo"], tasks=["t2i"], templates=NO_INSTRUCTIONS)
    english = next(task for task in read if task.language == "en")
    places = {row.text: i for task in read if task.language != "yo" for i, row in enumerate(task.queries)}
    digests = {english.images[row.image]["bytes"]: i for i, row in enumerate(english.candidates)}
    vectors = np.random.default_rng(0).normal(size=(len(english.queries), 16)).astype(np.float32)

    class Model:
        name, fingerprint = "known", "1"

        def encode_rows(self, rows, images) -> np.ndarray:
            return np.stack([self.vector(row, images) for row in rows])

        def vector(self, row, images) -> np.ndarray:
            if row.image is not None:
                return vectors[digests[images[row.image]["bytes"]]]
            return vectors[places[row.text]] if row.text in places else np.ones(16, np.float32)

    results = evaluate(Model(), read, bootstrap=10, progress=False, extras=Extras(failures=1, image_size=16))
    assert results.images, "examples have copies of their images"
    rows = {row["language"]: row for row in results.rows}
    assert (rows["en"]["p_at_1"], rows["sw"]["p_at_1"]) == (1, 1)
    assert rows["yo"]["p_at_1"] < 0.2
    assert rows["yo"]["misses"]["text"] > 0.9


def test_data_has_no_meaning(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        main(["evaluate", "model", "--benchmark", "emoji-languages", "--data", "x", "--output", "y"])
    assert "--data has no meaning" in capsys.readouterr().err
