"""What scoring tells: figures of each language, and the rows that may mean something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

BELIEVED = 0.25
"""A model is believed in a language if it suspects no more than this share of the right translations."""


@dataclass
class Means:
    """What the scores of a language come to.

    Attributes:
        pairs: Number of pairs.
        similarity: Mean cosine of a translation and its English text.
        shuffled: Mean cosine of a translation and the English text of another row.
        beats: Share of shuffled pairs that a pair beats, on average: near 1 if all is well, 0.5 if nothing is known.
        suspected: Pairs of which more shuffled ones than the threshold are as good.
        far: Pairs of which more than half of the shuffled ones are as good.
        threshold: From which share a pair is suspected.
    """

    threshold: float

    pairs: int = 0
    similarity: float = 0.0
    shuffled: float = 0.0
    beats: float = 0.0
    suspected: int = 0
    far: int = 0

    def add(self, similarity: float, shuffled: float, share: float) -> None:
        """Takes a further pair."""
        self.pairs += 1
        self.similarity += (similarity - self.similarity) / self.pairs
        self.shuffled += (shuffled - self.shuffled) / self.pairs
        self.beats += (1 - share - self.beats) / self.pairs
        self.suspected += share > self.threshold
        self.far += share > 0.5

    @property
    def wrong(self) -> float:
        """About which share of the translations is wrong.

        Wrong ones have any share with the same chance, so half of them one above a half; of right ones few have, if the
        model knows the language.
        """
        return min(1.0, 2 * self.far / self.pairs)

    @property
    def right_suspected(self) -> float:
        """About which share of the right translations is suspected: what the wrong ones do not explain."""
        if self.wrong == 1:
            return 1.0
        by_right = self.suspected / self.pairs - (1 - self.threshold) * self.wrong
        return min(1.0, max(0.0, by_right / (1 - self.wrong)))

    @property
    def is_believed(self) -> bool:
        """Whether suspicions count; else the model does not know the language."""
        return self.right_suspected <= BELIEVED

    def as_json(self) -> dict[str, Any]:
        """The figures, and whether they are believed."""
        names = ("pairs", "similarity", "shuffled", "beats", "suspected", "wrong", "right_suspected")
        values = {name: getattr(self, name) for name in names}
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in values.items()} | {
            "believed": self.is_believed
        }


@dataclass(frozen=True)
class Scored:
    """A kept row with its scores.

    Attributes:
        place: Its line or number.
        id: Its id, or an empty string.
        language: Code of the translation's language.
        english: The English text.
        text: The translation.
        similarity: Their cosine.
        share: Share of the language's shuffled pairs that are as good.
        back: What the translation is translated back into, if it is.
        back_share: The same share for that, if it is.
    """

    place: int
    id: str
    language: str
    english: str
    text: str
    similarity: float
    share: float
    back: str | None = None
    back_share: float | None = None

    def reason(self) -> str:
        """What is suspicious."""
        words = f"{self.share:.0%} of shuffled pairs are as good (similarity {self.similarity:.2f})"
        if self.back is not None and self.back_share is not None:
            words += f"; translated back: {self.back!r:.120} ({self.back_share:.0%})"
        return words

    def as_json(self) -> dict[str, Any]:
        """The scores without the texts."""
        left_out = {"english", "text"}
        return {name: value for name, value in asdict(self).items() if name not in left_out and value not in ("", None)}


@dataclass
class ScoreReport:
    """What scoring tells.

    Attributes:
        model: Name of the model.
        threshold: From which share a pair is suspected.
        languages: By language.
        back: The same of what is translated back.
        not_translated: Texts that could not be translated back, by language.
        not_from: Languages that are not translated back at all, and why.
        not_scored: Rows that have nothing to be compared with, by language.
        worst: The worst rows of each language.
    """

    model: str
    threshold: float
    languages: dict[str, Means] = field(default_factory=dict)
    back: dict[str, Means] = field(default_factory=dict)
    not_translated: dict[str, int] = field(default_factory=dict)
    not_from: dict[str, str] = field(default_factory=dict)
    not_scored: dict[str, int] = field(default_factory=dict)
    worst: dict[str, list[Scored]] = field(default_factory=dict)

    def is_believed(self, language: str) -> bool:
        """Whether the model knows a language."""
        return self.languages[language].is_believed

    @property
    def suspected(self) -> int:
        """Suspected rows of languages that the model knows."""
        return sum(means.suspected for means in self.languages.values() if means.is_believed)

    @property
    def unknown(self) -> list[str]:
        """The languages that the model does not know."""
        return sorted(code for code in self.languages if not self.is_believed(code))

    def as_json(self) -> dict[str, Any]:
        """The figures."""
        found: dict[str, Any] = {"model": self.model, "threshold": self.threshold, "suspected": self.suspected}
        found["languages"] = _sorted(self.languages)
        found |= {"back_translation": _sorted(self.back)} if self.back else {}
        others = {"not_translated_back": self.not_translated, "not_translated_from": self.not_from,
                  "not_scored": self.not_scored}  # fmt: skip
        return found | {name: value for name, value in others.items() if value}


def _sorted(languages: Mapping[str, Means]) -> dict[str, Any]:
    return {code: means.as_json() for code, means in sorted(languages.items())}
