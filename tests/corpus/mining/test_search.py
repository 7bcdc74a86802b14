"""Mining on made vectors with known answers: exact search, ranges, and how many false negatives are cut."""

from collections import Counter

import numpy as np
import pytest

from xvlm2vec.corpus.mining import search
from xvlm2vec.corpus.mining.options import MiningOptions
from xvlm2vec.corpus.mining.pool import MiningPool
from xvlm2vec.modeling.rows import TextImageRow

WIDE = MiningOptions(negatives=10, relative_margin=None)


def made(pairs, language=lambda index: "", image=lambda index: False):
    """A pool whose pair `i` asks content `2 i` and has the positive `2 i + 1`."""
    pool = MiningPool()
    for index in range(pairs):
        positive = TextImageRow("", (index,)) if image(index) else TextImageRow(f"text {index}")
        pool.add([2 * index, 2 * index + 1], positive, language(index))
    return pool


def run(pool, vectors, options, folder):
    return search.mine(pool, lambda contents: vectors[np.asarray(contents)], options, folder)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def noise():
    return unit(np.random.default_rng(0).standard_normal((120, 16)).astype(np.float32))


@pytest.mark.parametrize("side", ["query", "positive"])
def test_blocks_find_what_a_whole_matrix_does(noise, tmp_path, monkeypatch, side):
    monkeypatch.setattr(search, "QUERIES", 7)
    monkeypatch.setattr(search, "CANDIDATES", 9)
    options = MiningOptions(negatives=10, relative_margin=None, search_with=side, range_min=2, range_max=12)
    mined = run(made(60), noise, options, tmp_path)
    asked = noise[0::2] if side == "query" else noise[1::2]
    scores = asked @ noise[1::2].T
    np.fill_diagonal(scores, -np.inf)
    expected = np.argsort(-scores, axis=1)[:, 2:12]
    assert mined.negatives == expected.tolist()
    np.testing.assert_allclose(mined.scores, np.take_along_axis(scores, expected, axis=1), rtol=1e-5)


def test_an_interrupted_search_goes_on_with_the_blocks_that_it_has(noise, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "QUERIES", 20)
    whole = run(made(60), noise, WIDE, tmp_path / "whole")
    run(made(60), noise, WIDE, tmp_path / "part")
    (tmp_path / "part" / "000000020.npz").unlink()
    asked = Counter()

    def vectors(contents):
        asked.update(contents)
        return noise[np.asarray(contents)]

    again = search.mine(made(60), vectors, WIDE, tmp_path / "part")
    assert again.negatives == whole.negatives
    assert [index for index in range(60) if asked[2 * index]] == list(range(20, 40))


def test_kinds_and_languages_are_kept_apart(noise, tmp_path):
    pool = made(60, language=lambda index: ("de", "sw")[index % 2], image=lambda index: index < 30)
    same = run(pool, noise, MiningOptions(relative_margin=None, per_language=True), tmp_path / "same")
    for index, found in enumerate(same.negatives):
        assert len(found) == 5
        assert all(other % 2 == index % 2 and (other < 30) == (index < 30) for other in found)
    images = run(pool, noise, MiningOptions(relative_margin=None, candidates="image"), tmp_path / "images")
    assert all(other < 30 for found in images.negatives for other in found)
    every = run(pool, noise, MiningOptions(relative_margin=None, candidates="any", negatives=59), tmp_path / "any")
    assert {len(found) for found in every.negatives} == {59}


def test_what_answers_an_equal_query_and_what_is_known_to_be_wrong_are_left_out(noise, tmp_path):
    pool = MiningPool()
    pool.add([0, 1], TextImageRow("a"))
    pool.add([0, 3, 5], TextImageRow("b"))  # the same query; content 5 is a negative that it has
    pool.add([4, 5], TextImageRow("c"))
    pool.add([1, 7], TextImageRow("d"))  # asks with the first positive
    mined = run(pool, noise, WIDE, tmp_path)
    assert [sorted(found) for found in mined.negatives] == [[2, 3], [3], [0, 1, 3], [1, 2]]


@pytest.mark.parametrize(
    ("options", "least_recall", "least_kept"),
    [
        ({"relative_margin": 0.05}, 0.99, 0.97),
        ({"absolute_margin": 0.05, "relative_margin": None}, 0.99, 0.97),
        ({"relative_margin": None, "max_positive_similarity": 0.8}, 0.99, 0.97),
        ({"relative_margin": 0.0}, 0.4, 0.99),
    ],
)
def test_false_negatives_that_are_known_are_cut(tmp_path, options, least_recall, least_kept):
    """40 things with five pairs each: another pair's positive of the same thing is right, too."""
    draw = np.random.default_rng(1)
    things = np.repeat(unit(draw.standard_normal((40, 64))), 10, axis=0)
    vectors = unit(things + 0.03 * draw.standard_normal(things.shape)).astype(np.float32)
    every = MiningOptions(negatives=199, range_max=199, **options)
    mined = run(made(200), vectors, every, tmp_path)
    right = sum(other // 5 == index // 5 for index, found in enumerate(mined.negatives) for other in found)
    wrong = sum(map(len, mined.negatives)) - right
    assert 1 - right / (200 * 4) >= least_recall
    assert wrong / (200 * 195) >= least_kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 0}, "must be at least 1"),
        ({"range_min": 5, "range_max": 5}, "holds no candidate"),
        ({"relative_margin": -0.1}, "is below 0"),
        ({"min_score": 0.5, "max_score": 0.4}, "is above max_score"),
    ],
)
def test_options_that_find_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MiningOptions(**options)
