"""Which languages fail, and why: the worst first, each with what its misses come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from xvlm2vec.common.languages import Language, language
from xvlm2vec.common.tasks import MEAN_TASKS
from xvlm2vec.eval.bootstrap import PairedTest, paired_test
from xvlm2vec.eval.results import Key, Results, row_key

BELOW, WORST = 0.5, 10
_ENGLISH = "en"
_SAMPLES = 2_000
PARTS: Mapping[str, str] = MappingProxyType({"text": "text", "english": "English too", "image": "image"})
"""The parts of what a language misses (see `causes.add_causes`), and what tables call them."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class FailingLanguage:
    """One language; what was not measured is None, or empty.

    Attributes:
        lang: The language.
        score: Mean over its columns.
        before: The same of an earlier model.
        test: Paired test of both on P@1, over items.
        gap: By how much it is behind English, over the columns that both have.
        is_partial: Whether it has fewer columns than another language.
        per_character: Tokens per character.
        over_english: The same, over that of English.
        text_over_english: Tokens of the same texts over those in English.
        broken: Share of tokens that are unknown, or bytes.
        found: How often its English text is found first by text alone.
        found_before: The same of an earlier model.
        hubness: Of its candidates.
        missed: Share of queries whose right answer is not first, of those that were looked at.
        parts: Shares of these, by `PARTS`.
        example: An item that it misses: `text`, `english`, `translation_rank`, `rank`, and the file names `images`.
    """

    lang: Language
    score: float
    before: float | None = None
    test: PairedTest | None = None
    gap: float | None = None
    is_partial: bool = False
    per_character: float | None = None
    over_english: float | None = None
    text_over_english: float | None = None
    broken: float | None = None
    found: float | None = None
    found_before: float | None = None
    hubness: float | None = None
    missed: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None

    @property
    def main_part(self) -> str | None:
        """The part that most of what it misses belongs to; None if it misses nothing, or no part has half of it."""
        name = max(self.parts, key=self.parts.__getitem__, default=None)
        return name if name and self.parts[name] >= BELOW else None


@dataclass(frozen=True)
class Figures:
    """What one model's languages come to.

    Attributes:
        below: How many other languages than English score below half.
        worst: Mean of the worst ten.
        parity: Mean of the languages over English's score.
        english: That score.
    """

    below: int
    worst: float
    parity: float | None
    english: float | None


@dataclass(frozen=True)
class Failing:
    """All languages but English, the worst first.

    Attributes:
        languages: The languages.
        figures: What they come to.
        before: The same of the earlier model.
        metric: Key of the score.
        parts: Parts of what the worst ten miss, as shares.
    """

    languages: Sequence[FailingLanguage]
    figures: Figures
    before: Figures | None
    metric: str
    parts: Mapping[str, float]

    @property
    def worst(self) -> Sequence[FailingLanguage]:
        """The worst ten."""
        return self.languages[:WORST]


def failing_languages(results: Results, before: Results | None = None, metric: str = "p_at_1") -> Failing | None:
    """Sorts the languages by what they score.

    Args:
        results: The results.
        before: Results of an earlier model; tasks that only one of the two has are left out.
        metric: Which score: its mean over the tasks of `MEAN_TASKS`, or over all where there are none of these.

    Returns:
        None if no language but English was scored by the metric.

    Raises:
        ValueError: The two models were not scored on the same rows.
    """
    earlier = {row_key(row): row for row in before.rows if metric in row} if before else {}
    rows = [row for row in results.rows if metric in row and (before is None or row_key(row) in earlier)]
    rows = [row for row in rows if "translation" not in row]  # queries in English say nothing of a language
    rows = [row for row in rows if row["task"] in MEAN_TASKS] or rows
    by_language: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_language.setdefault(row["language"], []).append(row)
    english = by_language.pop(_ENGLISH, [])
    if not by_language:
        return None
    most = max(map(len, by_language.values()))
    found = []
    for code, scored in by_language.items():
        measures = _measures(scored, english, metric)
        if before:
            old = [earlier[row_key(row)] for row in scored]
            measures |= {
                "before": _mean(old, _of(metric)),
                "found_before": _mean(old, _of("translation_at_1", "misses")),
            }
            measures["test"] = language_test(before, results, [row_key(row) for row in scored])
        example = _example(results, code, {row_key(row) for row in scored})
        found.append(FailingLanguage(language(code), is_partial=len(scored) < most, example=example, **measures))
    found.sort(key=lambda one: one.score)
    before_rows = [earlier[row_key(row)] for row in english] if before else []
    return Failing(
        found,
        _figures([one.score for one in found], _mean(english, _of(metric))),
        _figures(sorted(one.before or 0.0 for one in found), _mean(before_rows, _of(metric))) if before else None,
        metric,
        _parts([row for one in found[:WORST] for row in by_language[one.lang.code]])[1],
    )


def language_test(before: Results, after: Results, keys: Sequence[Key]) -> PairedTest | None:
    """Paired test of two models on one language: mean P@1 over its tasks, each counting the same.

    An item is one sample, whichever tasks ask for it: its two directions are not independent of each other.

    Returns:
        None if the values of single rows are missing.

    Raises:
        ValueError: The two models were not scored on the same rows.
    """
    if not all(key in one.per_row for key in keys for one in (before, after)):
        return None
    items: dict[tuple[Any, ...], int] = {}
    places, values = [], []
    for key in keys:
        first, second = before.per_row[key], after.per_row[key]
        if not np.array_equal(first.row_ids, second.row_ids):
            raise ValueError(f"{'/'.join(key)}: {before.model} and {after.model} were not scored on the same rows")
        names = [(key[0], key[1], key[4], number) for number in first.row_ids.tolist()]
        places.append(np.array([items.setdefault(name, len(items)) for name in names], dtype=np.int64))
        values.append(np.stack([first.hits, second.hits]) / (len(keys) * len(names)))
    sums = np.zeros((2, len(items)))
    for where, part in zip(places, values, strict=True):
        sums[:, where] += part  # ids are distinct within a task
    return paired_test(sums[0] * len(items), sums[1] * len(items), samples=_SAMPLES)


def _measures(rows: Rows, english: Rows, metric: str) -> dict[str, Any]:
    per_character = _mean(rows, _of("per_character", "tokens"))
    tokens_of_both = _of_both(rows, english, _of("per_character", "tokens"))
    score_of_both = _of_both(rows, english, _of(metric))
    unknown, pieces = (_mean(rows, _of(name, "tokens")) for name in ("unknown", "bytes"))
    missed, parts = _parts(rows)
    return {
        "score": _mean(rows, _of(metric)),
        "gap": score_of_both[1] - score_of_both[0] if score_of_both else None,
        "per_character": per_character,
        "over_english": tokens_of_both[0] / tokens_of_both[1] if tokens_of_both else None,
        "text_over_english": _mean(rows, _of("over_english", "tokens")),
        "broken": unknown + pieces if unknown is not None and pieces is not None else None,
        "found": _mean(rows, _of("translation_at_1", "misses")),
        "hubness": _mean(rows, _of("hubness", "alignment")),
        "missed": missed,
        "parts": parts,
    }


def _of(name: str, group: str | None = None) -> Callable[[Mapping[str, Any]], float | None]:
    """Reads a value of a row, or of a group of values in it."""
    return lambda row: (row.get(group, {}) if group else row).get(name)


def _mean(rows: Rows, value: Callable[[Mapping[str, Any]], float | None]) -> float | None:
    values = [number for row in rows if (number := value(row)) is not None]
    return float(np.mean(values)) if values else None


def _of_both(
    rows: Rows, english: Rows, value: Callable[[Mapping[str, Any]], float | None]
) -> tuple[float, float] | None:
    """Means of a language and of English over the columns that both have."""
    columns = set(map(_column, rows)) & set(map(_column, english))
    ours, theirs = (_mean([row for row in some if _column(row) in columns], value) for some in (rows, english))
    return (ours, theirs) if ours is not None and theirs is not None else None


def _column(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (row["benchmark"], row["dataset"], row["task"], row["style"])


def _parts(rows: Rows) -> tuple[float | None, dict[str, float]]:
    """Share that is missed, and its parts, over the items of all rows that were looked at."""
    looked = [(row["misses"]["n"], row["misses"]) for row in rows if "misses" in row]
    total = sum(n * misses["missed"] for n, misses in looked)
    if not looked:
        return None, {}
    shares = {
        name: sum(n * misses["missed"] * misses.get(name, 0.0) for n, misses in looked) / total if total else 0.0
        for name in PARTS
    }
    return total / sum(n for n, _ in looked), shares if total else {}


def _figures(scores: Sequence[float], english: float | None) -> Figures:
    """Of the scores of the other languages, the lowest first."""
    parity = float(np.mean(scores)) / english if english else None
    return Figures(sum(score < BELOW for score in scores), float(np.mean(scores[:WORST])), parity, english)


def _example(results: Results, code: str, keys: set[Key]) -> Mapping[str, Any] | None:
    """The example that the language misses most by rank, of those drawn at random if any of these was missed."""
    missed = [
        example
        for example in results.examples
        if example["language"] == code and row_key(example) in keys and "item" in example and example["rank"] > 1
    ]
    if not missed:
        return None
    best = max(missed, key=lambda example: (bool(example.get("drawn")), example["rank"]))
    shown = best["gold"] if best["gold"].get("image") else best["query"]
    return {**best["item"], "rank": best["rank"], "images": shown.get("images", ())}
