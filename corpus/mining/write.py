"""Pairs with the negatives that were found, as contrastive training reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.columns import IMAGE_COLUMNS, NEGATIVE_COLUMNS
from xvlm2vec.corpus.stored import write_dataset
from xvlm2vec.modeling.rows import is_several

from .pool import MiningPool
from .search import Mined

if TYPE_CHECKING:
    from datasets import Dataset, Features

SCORES = "negative_scores"
"""Cosines of the negatives that were found; those that a row had before stand in front of them and have none."""


def write_mined(rows: Dataset, pool: MiningPool, mined: Mined, folder: Path) -> Dataset:
    """Writes the rows with their negatives; images are copied as they are stored.

    Args:
        rows: The pairs, in the order of the pool.
        pool: The pairs and candidates.
        mined: What was found.
        folder: Where to write; an earlier content is replaced.
    """
    raw = _undecoded(rows)
    features = _features(rows, pool, mined)
    return write_dataset(lambda: _examples(raw, pool, mined, features), features, folder)


def _undecoded(rows: Dataset) -> Dataset:
    from datasets import Image, List

    for column in set(IMAGE_COLUMNS) & set(rows.column_names):
        kind = Image(decode=False)
        rows = rows.cast_column(column, List(kind) if isinstance(rows.features[column], List) else kind)
    return rows


def _features(rows: Dataset, pool: MiningPool, mined: Mined) -> Features:
    """Those of the rows, with lists of negatives; no column of images where no negative has one."""
    from datasets import Features, Image, List, Value

    features = {name: kind for name, kind in rows.features.items() if name not in NEGATIVE_COLUMNS}
    features["neg_text"] = List(Value("string"))
    shown = {pool.kinds[place] for found in mined.negatives for place in found}
    if "neg_image" in rows.column_names or shown & {"image", "both"}:
        features["neg_image"] = List(Image())
    return Features({**features, SCORES: List(Value("float32"))})


def _examples(rows: Dataset, pool: MiningPool, mined: Mined, features: Features) -> Iterator[dict[str, Any]]:
    for row, found, scores in zip(rows, mined.negatives, mined.scores, strict=True):
        texts, images = _listed(row.get("neg_text")), _listed(row.get("neg_image"))
        count = max(len(texts), len(images))
        texts, images = texts or [""] * count, images or [None] * count
        for place in found:
            source = rows[pool.rows[place]]
            texts.append(source.get("pos_text") or "")
            images.append(_single(source.get("pos_image")))
        negatives = {"neg_text": texts, "neg_image": images}
        kept = {name: value for name, value in negatives.items() if name in features}
        yield {**{name: row[name] for name in features if name in row}, **kept, SCORES: scores}


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if is_several(value) else [value]


def _single(value: Any) -> Any:
    return (value[0] if value else None) if is_several(value) else value
