"""Which translations of a row are drawn, so that rare languages are not lost among frequent ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xvlm2vec.common.texts import with_text


@dataclass(frozen=True)
class LanguageSampler:
    """Draws some of a row's translations with a temperature over languages.

    A language that `n` rows have is drawn with the weight `n ** (1 / temperature - 1)`. At 1 all translations of a row
    are equal, so a language is seen as often as the corpus has it; the higher the temperature, the nearer the languages
    come to being seen equally often, as far as their rows allow.

    Attributes:
        counts: How many rows have each language.
        temperature: A number from 1 up.

    Raises:
        ValueError: The temperature is below 1.
    """

    counts: Mapping[str, int]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 1:
            raise ValueError(f"language_temperature must be at least 1, not {self.temperature}.")

    def draw(self, items: Sequence[dict[str, str]], count: int, generator: random.Random) -> list[dict[str, str]]:
        """Some of a row's translations, without repetition, in their order.

        Sampling without replacement by exponential keys (Efraimidis and Spirakis, 2006). A language that was not
        counted weighs like the most frequent one: it was added to the rows, as code-switched texts are, to nearly all.

        Args:
            items: Translations, each with its `lang`.
            count: How many are drawn; all if there are not more.
            generator: One for each row, so that a row is drawn alike whatever stands beside it.
        """
        keys = [generator.random() ** (1 / self.weight(item["lang"])) for item in items]
        best = sorted(range(len(items)), key=lambda place: (-keys[place], place))[:count]
        return [items[place] for place in sorted(best)]

    def weight(self, language: str) -> float:
        """The weight of a language, relative to the most frequent one, which has 1."""
        most = max(self.counts.values(), default=1)
        return (self.counts.get(language, most) / most) ** (1 / self.temperature - 1)


def count_languages(rows: Any) -> Counter[str]:
    """How many rows of a `datasets.Dataset` have each language; only the column `translations` is read."""
    stored = rows.with_format(None)["translations"]
    return Counter(item["lang"] for items in stored for item in with_text(items))


def language_sampler(rows: Any, temperature: float) -> LanguageSampler | None:
    """The sampler for a corpus, or `None` at temperature 1, which needs none.

    Raises:
        ValueError: The corpus is a stream, whose languages cannot be counted beforehand.
    """
    if temperature == 1 or rows is None:
        return None
    if not hasattr(rows, "__len__"):
        raise ValueError("language_temperature needs a corpus whose languages can be counted, not a stream.")
    return LanguageSampler(count_languages(rows), temperature)
