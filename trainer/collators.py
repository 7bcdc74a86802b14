"""Batches of parallel rows: every text of a row, its picture prepared once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

PARALLEL_COLUMNS = ("id", "image", "text_en", "translations")


@dataclass
class ParallelBatch:
    """`G` parallel rows with `P` translations between them.

    Args:
        english: The processor's batch of the `G` English rows, with the pictures.
        token_ids: Token ids of the `G` English rows, then of the `P` translated ones.
        row_of_pair: `(P,)`, the English row that each translation belongs to.
        languages: `P` language codes.
    """

    english: dict[str, torch.Tensor]
    token_ids: list[list[int]]
    row_of_pair: torch.Tensor
    languages: list[str]

    def to(self, device: torch.device | str) -> ParallelBatch:
        """The same batch on another device."""
        moved = {key: value.to(device) for key, value in self.english.items()}
        return ParallelBatch(moved, self.token_ids, self.row_of_pair.to(device), self.languages)


class ParallelCollator:
    """Makes a `ParallelBatch` of rows with the columns of a parallel corpus.

    Args:
        processor: The model's processor.
        translations_per_row: How many of a row's translations are drawn; all if `None`.
        seed: Of the draw, which depends on the row's `id` and text only.
    """

    def __init__(self, processor: XVLM2VecProcessor, translations_per_row: int | None = None, seed: int = 0) -> None:
        self.processor = processor
        self.translations_per_row = translations_per_row
        self.seed = seed

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, ParallelBatch]:
        """Tokenises and prepares the rows.

        Raises:
            ValueError: A row lacks a column or has no translation; the message names it.
        """
        chosen = [self._translations(row, index) for index, row in enumerate(rows)]
        english = self.processor(text=[row["text_en"] for row in rows], images=[row["image"] for row in rows])
        pairs = [(index, item) for index, items in enumerate(chosen) for item in items]
        translated = self._translated_ids(rows, english, [(index, item["text"]) for index, item in pairs])
        batch = ParallelBatch(
            english=dict(english),
            token_ids=real_ids(english) + translated,
            row_of_pair=torch.tensor([index for index, _ in pairs], dtype=torch.long),
            languages=[item["lang"] for _, item in pairs],
        )
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
        draw = random.Random(f"{self.seed}:{row['id']}:{row['text_en']}")
        return draw.sample(items, self.translations_per_row)

    def _translated_ids(
        self, rows: Sequence[dict[str, Any]], english: Any, pairs: Sequence[tuple[int, str]]
    ) -> list[list[int]]:
        """Token ids of each translated row: what comes before the English text, then the translation's own tokens.

        The pictures are prepared once, with the English row. Where a tokenizer merges across the border, or adds
        something behind the text, the row is prepared whole instead.
        """
        pictures = [_as_list(row["image"]) for row in rows]
        english_tails = self._tails([(row["text_en"], bool(p)) for row, p in zip(rows, pictures, strict=True)])
        tails = self._tails([(text, bool(pictures[index])) for index, text in pairs])
        prefixes = [_prefix(ids, tail) for ids, tail in zip(real_ids(english), english_tails, strict=True)]
        result = []
        for (index, text), tail in zip(pairs, tails, strict=True):
            prefix = prefixes[index]
            if prefix is None:
                result += real_ids(self.processor(text=[text], images=[pictures[index]]))
            else:
                result.append(prefix + tail)
        return result

    def _tails(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Token ids of texts as they stand behind a row's pictures, if it has one."""
        after = self.processor.family.after_images
        written = [(after if has_picture else "") + text for text, has_picture in texts]
        return self.processor.inner.tokenizer(written, add_special_tokens=False)["input_ids"] if written else []


def _as_list(image: Any) -> list[Any]:
    return [] if image is None else list(image) if isinstance(image, list | tuple) else [image]


def _prefix(ids: list[int], tail: list[int]) -> list[int] | None:
    """What stands before the tail, or `None` if the ids do not end with it."""
    cut = len(ids) - len(tail)
    return ids[:cut] if tail and ids[cut:] == tail else None


def real_ids(batch: Any) -> list[list[int]]:
    """Token ids of each row without its padding."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def pad_ids(rows: Sequence[list[int]], pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids` and `attention_mask`, `(B, L)` int64."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
