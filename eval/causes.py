"""Why a language fails: the price of its script, and whether its misses come from the text or from the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .alignment import Places, TaskVectors, evenly, parallel_groups
from .metrics import expected_rank, hit_at_1
from .pool import score_pool
from .ranking import TIE_TOLERANCE, RankingTask, gold_places
from .results import PerRow, Results, row_key
from .tokens import TokenCounter, encoder_tokenizer

_ITEMS = 1_000  # items whose texts are counted, or whose English texts are looked for
_POOL = 10_000  # English texts among which they are looked for
_TEXT = "{text}"


class _Found(NamedTuple):
    """Items whose English texts were looked for: their ids, expected hits at 1, and expected 0-based ranks."""

    ids: list[int]
    hits: npt.NDArray[np.floating]
    ranks: npt.NDArray[np.floating]


def add_causes(
    results: Results, parts: Sequence[TaskVectors], encoder: Any, *, reference: str = "en", items: int = _ITEMS
) -> None:
    """Adds `tokens` and `misses` to rows, and `item` to examples, as far as a task allows them.

    `tokens` of a row are those of the encoder's tokenizer on `texts` texts without their instructions, `items` at most:
    `per_character`, the shares of `unknown` ones and of those that are `bytes`, and `over_english`: how many times the
    tokens of the same items' texts in the reference language.

    `misses` are over `n` items that have a text in the reference language, too. `translation_at_1` and
    `translation_rank` say how well that text (or another one of the same image) is found among all texts of the
    reference language, by the vector of the item's text alone; `rank` is that of the right answer. Both ranks are
    medians and begin at 1. `missed` is the share of items whose right answer is not first. It has three parts that sum
    to 1: `text`, where the translation is not found either; `english`, where it is, and the reference language misses
    the item, too; `image`, where it is, and the reference language finds the item. Ties count in expectation.

    `item` of an example is its `text` without the instruction, the same item's in the reference language (`english`),
    and the `translation_rank` of that.

    Args:
        results: Results with the scores and examples of all tasks.
        parts: The tasks with their vectors.
        encoder: The model; its attribute `tokenizer` counts tokens.
        reference: The language that others are held against.
        items: Items that are looked at, drawn evenly.
    """
    rows = {row_key(row): row for row in results.rows}
    _add_tokens(rows, parts, encoder, reference, items)
    for group in parallel_groups(parts):
        base = parts[group[reference]] if reference in group else None
        english = _right_texts(base) if base else {}
        if base is None or len(english) < 2:
            continue
        reference_texts = dict(item_texts(base.task))
        for part in (parts[number] for language, number in group.items() if language != reference):
            row = rows[row_key(part.task.names)]
            examples = [example for example in results.examples if row_key(example) == row_key(row)]
            if found := _find(english, part, [example["row"] for example in examples], items):
                values = (results.per_row[row_key(one.task.names)] for one in (part, base))
                row["misses"] = _misses(found, *values)
                _add_to_examples(examples, found, dict(item_texts(part.task)), reference_texts)


def item_texts(task: RankingTask) -> list[tuple[int, str]]:
    """Each item's id and its text without instruction: that of the query, or else of its first right answer.

    Nothing where the task does not tell its instructions, or its queries were put into English.
    """
    if task.instructions is None or task.query_language is not None:
        return []
    query, target = task.instructions
    texts = [bare_text(row.text, query) for row in task.queries]
    if not all(texts):
        golds = (task.candidates[int(place)] if place >= 0 else None for place in task.candidate_index[:, 0])
        texts = [bare_text(gold.text, target) if gold else "" for gold in golds]
    ids = np.asarray(task.row_ids).tolist()
    return [(number, text) for number, text in zip(ids, texts, strict=True) if text]


def bare_text(text: str | None, instruction: str) -> str:
    """A text without the instruction around it."""
    before, _, after = instruction.partition(_TEXT)
    return (text or "").strip().removeprefix(before.strip()).removesuffix(after.strip()).strip()


def _add_tokens(
    rows: Mapping[Any, dict[str, Any]], parts: Sequence[TaskVectors], encoder: Any, reference: str, items: int
) -> None:
    tokenizer = encoder_tokenizer(encoder)
    if tokenizer is None:
        return
    counter = TokenCounter(tokenizer)
    for part in parts:
        if measures := _token_measures(part.task, counter, items):
            rows[row_key(part.task.names)]["tokens"] = measures
    for group in parallel_groups(parts):
        english = dict(item_texts(parts[group[reference]].task)) if reference in group else {}
        for language, number in group.items():
            row = rows[row_key(parts[number].task.names)]
            if english and language != reference and "tokens" in row:
                row["tokens"] |= _over(english, dict(item_texts(parts[number].task)), counter, items)


def _token_measures(task: RankingTask, counter: TokenCounter, items: int) -> dict[str, Any]:
    texts = list(dict.fromkeys(text for _, text in item_texts(task)))
    counts = counter.count([texts[place] for place in evenly(len(texts), items)])
    tokens = int(counts.tokens.sum())
    if not tokens:
        return {}
    return {
        "texts": len(counts.tokens),
        "per_character": tokens / int(counts.characters.sum()),
        "unknown": int(counts.unknown.sum()) / tokens,
        "bytes": int(counts.pieces.sum()) / tokens,
    }


def _over(english: Mapping[int, str], other: Mapping[int, str], counter: TokenCounter, items: int) -> dict[str, float]:
    """Tokens of a language's texts over those of the same items in the reference language."""
    both = [number for number in other if number in english]
    chosen = [both[place] for place in evenly(len(both), items)]
    theirs, ours = (int(counter.count([texts[i] for i in chosen]).tokens.sum()) for texts in (english, other))
    return {"over_english": ours / theirs} if theirs else {}


def _right_texts(part: TaskVectors) -> dict[int, Places]:
    """Where each item's texts stand among the distinct rows; a caption's item has all captions of the same image."""
    texts, task = part.texts(), part.task
    if texts is None:
        return {}
    if all(row.image is None for row in task.queries):
        return _texts_by_answer(texts, part.candidate_places[task.candidate_index[:, 0]])
    golds = zip(np.asarray(task.row_ids).tolist(), task.candidate_index, gold_places(task), strict=True)
    places = {number: part.candidate_places[index[: len(gold)][gold]] for number, index, gold in golds}
    return {int(number): np.unique(places[int(number)]) for number in texts[0]}


def _texts_by_answer(texts: tuple[Places, Places], answers: Places) -> dict[int, Places]:
    places: dict[int, set[int]] = {}
    for place, answer in zip(texts[1].tolist(), answers.tolist(), strict=True):
        places.setdefault(answer, set()).add(place)
    arrays = {answer: np.array(sorted(group)) for answer, group in places.items()}
    return {int(number): arrays[answer] for number, answer in zip(texts[0], answers.tolist(), strict=True)}


def _find(english: Mapping[int, Places], part: TaskVectors, shown: Sequence[int], items: int) -> _Found | None:
    """Looks for the English texts of some items, and of those that are shown, by the vectors of their texts alone."""
    texts = part.texts()
    if texts is None:
        return None
    asked = {int(number): int(place) for number, place in zip(*texts, strict=True) if int(number) in english}
    both = np.array(sorted(asked), dtype=np.int64)
    ids = np.union1d(both[evenly(len(both), items)], both[np.isin(both, shown)]).tolist()
    if not ids:
        return None
    every = np.unique(np.concatenate(list(english.values())))
    pool = np.union1d(every[evenly(len(every), _POOL)], np.concatenate([english[number] for number in ids]))
    if len(pool) < 2:  # every item has the same text
        return None
    golds = np.zeros((len(ids), max(len(english[number]) for number in ids)), dtype=np.int64)
    is_gold = np.zeros(golds.shape, dtype=bool)
    for line, number in enumerate(ids):
        right = np.searchsorted(pool, english[number])
        golds[line, : len(right)], is_gold[line, : len(right)] = right, True
    counts = score_pool(
        part.vectors[np.array([asked[number] for number in ids])], part.vectors[pool], golds, is_gold,
        tolerance=TIE_TOLERANCE, name=f"translation of {part.task.name}",
    )  # fmt: skip
    return _Found(ids, hit_at_1(counts), expected_rank(counts))


def _misses(found: _Found, row: PerRow, base: PerRow) -> dict[str, Any]:
    """Splits what a language misses by what else fails."""
    hits, ranks = (_values(row, row_values, found.ids) for row_values in (row.hits, row.ranks))
    missed, english = 1 - hits, _values(base, base.hits, found.ids)
    parts = {
        "text": missed * (1 - found.hits),
        "english": missed * found.hits * (1 - english),
        "image": missed * found.hits * english,
    }
    total = float(missed.sum())
    return {
        "n": len(found.ids),
        "translation_at_1": float(found.hits.mean()),
        "translation_rank": float(np.median(found.ranks)) + 1,
        "rank": float(np.median(ranks)) + 1,
        "missed": float(missed.mean()),
        **({name: float(part.sum()) / total for name, part in parts.items()} if total else {}),
    }


def _values(row: PerRow, values: npt.NDArray[np.floating], ids: Sequence[int]) -> npt.NDArray[np.floating]:
    by_id = dict(zip(row.row_ids.tolist(), values.tolist(), strict=True))
    return np.array([by_id[number] for number in ids])


def _add_to_examples(
    examples: Sequence[dict[str, Any]], found: _Found, texts: Mapping[int, str], english: Mapping[int, str]
) -> None:
    ranks = dict(zip(found.ids, found.ranks.tolist(), strict=True))
    for example in examples:
        number = example["row"]
        if number in ranks and number in texts and number in english:
            item = {"text": texts[number], "english": english[number], "translation_rank": ranks[number] + 1}
            example["item"] = item
