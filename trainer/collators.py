"""Batches of parallel rows: every text of a row, its picture prepared once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.rows import TextImageRow, make_rows
from xvlm2vec.modeling.sharing import real_ids, split_prefix, tail_ids

PARALLEL_COLUMNS = ("id", "image", "text_en", "translations")


@dataclass
class ParallelBatch:
    """`G` parallel rows with `P` translations between them.

    Args:
        english: The processor's batch of the `G` English rows, with the pictures.
        token_ids: Token ids of the `G` English rows, then of the `P` translated ones.
        row_of_pair: `(P,)`, the English row that each translation belongs to.
        languages: `P` language codes.
        translated: The processor's batch of the `P` translated rows, with the pictures again, for backbones that
            cannot share a picture's features between rows; else `None`.
    """

    english: dict[str, torch.Tensor]
    token_ids: list[list[int]]
    row_of_pair: torch.Tensor
    languages: list[str]
    translated: dict[str, torch.Tensor] | None = None

    def to(self, device: torch.device | str) -> ParallelBatch:
        """The same batch on another device."""
        return replace(
            self,
            english={key: value.to(device) for key, value in self.english.items()},
            row_of_pair=self.row_of_pair.to(device),
            translated=self.translated and {key: value.to(device) for key, value in self.translated.items()},
        )


class ParallelCollator:
    """Makes a `ParallelBatch` of rows with the columns of a parallel corpus.

    Args:
        processor: The model's processor.
        translations_per_row: How many of a row's translations are drawn; all if `None`.
        seed: Of the draw, which depends on the epoch and on the row's `id` and text only.

    Attributes:
        epoch: Another epoch draws other translations.
    """

    def __init__(self, processor: XVLM2VecProcessor, translations_per_row: int | None = None, seed: int = 0) -> None:
        self.processor = processor
        self.translations_per_row = translations_per_row
        self.seed = seed
        self.epoch = 0

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, ParallelBatch]:
        """Tokenises and prepares the rows.

        Raises:
            ValueError: A row lacks a column or has no translation; the message names it.
        """
        chosen = [self._translations(row, index) for index, row in enumerate(rows)]
        english_rows, _ = make_rows([row["text_en"] for row in rows], [row["image"] for row in rows])
        names = [row["id"] for row in rows]
        english, _ = self.processor.prepare(english_rows, numbers=names)
        pairs = [(index, item) for index, items in enumerate(chosen) for item in items]
        row_of_pair = [index for index, _ in pairs]
        translations = [TextImageRow(item["text"], english_rows[index].images) for index, item in pairs]
        batch = ParallelBatch(
            english=dict(english),
            token_ids=real_ids(english),
            row_of_pair=torch.tensor(row_of_pair, dtype=torch.long),
            languages=[item["lang"] for _, item in pairs],
        )
        if self.processor.family.shares_prefix:
            batch.token_ids += self._translated_ids(english_rows, batch.token_ids, translations, row_of_pair, names)
        else:
            whole, _ = self.processor.prepare(translations, numbers=[names[index] for index in row_of_pair])
            batch = replace(batch, translated=dict(whole))
        return {"batch": batch}

    def _translations(self, row: dict[str, Any], index: int) -> list[dict[str, str]]:
        missing = [column for column in PARALLEL_COLUMNS if column not in row]
        if missing:
            raise ValueError(f"Row {row.get('id', index)!r} lacks the column {missing[0]!r} of a parallel corpus.")
        items = [item for item in row["translations"] if item["text"]]
        if not items:
            raise ValueError(f"Row {row['id']!r} has no translation; drop it, or give it one.")
        if self.translations_per_row is None or len(items) <= self.translations_per_row:
            return items
        draw = random.Random(f"{self.seed}:{self.epoch}:{row['id']}:{row['text_en']}")
        return draw.sample(items, self.translations_per_row)

    def _translated_ids(
        self,
        rows: Sequence[TextImageRow],
        row_ids: Sequence[list[int]],
        translations: Sequence[TextImageRow],
        row_of_pair: Sequence[int],
        names: Sequence[Any],
    ) -> list[list[int]]:
        """Token ids of each translated row: what comes before the English text, then the translation's own tokens.

        The pictures are prepared once, with the English row. A row is prepared whole where its prefix cannot be told,
        and where it is too long and must be cut.
        """
        prefixes = [split_prefix(ids, tail) for ids, tail in zip(row_ids, tail_ids(self.processor, rows), strict=True)]
        limit = self.processor.limit()
        result = []
        for index, row, tail in zip(row_of_pair, translations, tail_ids(self.processor, translations), strict=True):
            prefix = prefixes[index]
            if prefix is None or (limit is not None and len(prefix) + len(tail) > limit):
                result += real_ids(self.processor.prepare([row], numbers=[names[index]])[0])
            else:
                result.append(prefix + tail)
        return result


def pad_ids(rows: Sequence[list[int]], pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids` and `attention_mask`, `(B, L)` int64."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
