"""The language sampler: how often each language is drawn, and that a row is drawn alike each time."""

import math
import random
from collections import Counter

import pytest
from datasets import Dataset

from xvlm2vec.trainer.language_sampling import LanguageSampler, count_languages

COUNTS = {"de": 900, "sw": 100}
ITEMS = [{"lang": "de", "text": "ein Hund"}, {"lang": "sw", "text": "mbwa"}]


def share_of(language, temperature, draws=4000):
    sampler = LanguageSampler(COUNTS, temperature)
    generator = random.Random(0)
    drawn = Counter(sampler.draw(ITEMS, 1, generator)[0]["lang"] for _ in range(draws))
    return drawn[language] / draws


@pytest.mark.parametrize("temperature", [1.0, 2.0, math.inf])
def test_rows_with_both_languages_are_drawn_by_the_temperature(temperature):
    rare, frequent = (COUNTS[code] ** (1 / temperature - 1) for code in ("sw", "de"))
    assert share_of("sw", temperature) == pytest.approx(rare / (rare + frequent), abs=0.03)  # 0.5, 0.75, 0.9


def test_some_of_many_are_drawn_without_repetition_and_in_order():
    items = [{"lang": code, "text": code} for code in ("ar", "de", "fr", "it", "ja")]
    sampler = LanguageSampler(dict.fromkeys(("ar", "de", "fr", "it", "ja"), 7), 3.0)
    drawn = Counter()
    for seed in range(600):
        chosen = [item["lang"] for item in sampler.draw(items, 2, random.Random(seed))]
        assert chosen == sorted(set(chosen))
        assert len(chosen) == 2
        drawn.update(chosen)
    assert all(count == pytest.approx(240, abs=45) for count in drawn.values())
    assert sampler.draw(items, 9, random.Random(0)) == items
    assert sampler.draw(items, 2, random.Random(5)) == sampler.draw(items, 2, random.Random(5))


def test_an_uncounted_language_weighs_like_the_most_frequent():
    sampler = LanguageSampler(COUNTS, 2.0)
    assert sampler.weight("sw") == pytest.approx(3)
    assert sampler.weight("mul") == sampler.weight("de") == 1


@pytest.mark.parametrize("temperature", [1.0, 3.0, math.inf])
def test_code_switched_texts_do_not_crowd_out_languages(temperature):
    """Nearly every row has one, and no count tells."""
    mixed = {"lang": "mul", "text": "ein dog"}
    sampler = LanguageSampler(COUNTS, temperature)
    drawn = Counter()
    for seed in range(2000):
        items = [ITEMS[0], *ITEMS[1:] * (seed % 10 == 0), mixed]
        drawn[sampler.draw(items, 1, random.Random(seed))[0]["lang"]] += 1
    assert 0.35 < drawn["mul"] / 2000 < 0.55


@pytest.mark.parametrize("temperature", [0.5, 0.0, -1.0, math.nan])
def test_a_temperature_is_at_least_one(temperature):
    with pytest.raises(ValueError, match="at least 1"):
        LanguageSampler(COUNTS, temperature)


def test_languages_are_counted(rows):
    corpus = Dataset.from_list(rows)
    assert count_languages(corpus) == {"it": 3, "ar": 3, "de": 3}
    assert count_languages(corpus.with_transform(lambda batch: {})) == {"it": 3, "ar": 3, "de": 3}
