"""Batches of contrastive training, made of rows of MMEB's training sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from xvlm2vec.common.pairs import read_pair
from xvlm2vec.common.store import row_key
from xvlm2vec.modeling.rows import TextImageRow

from .collators import digest_of
from .false_negatives import SIDES, Guide, content_numbers
from .pair_loss import CONTENT, GUIDE, TOLD, VIEWS
from .pair_packs import PairPacker
from .pair_views import make_views

COLUMNS = ("anchor", "positive", "negative")
PACKED = "packed"


@dataclass
class PairCollator(SentenceTransformerDataCollator):
    """Prepares queries, positives and the hard negatives of all rows, each text, images, or both.

    Args:
        instructions: What the column `task` may name.
        mask_duplicates: Whether contents are numbered, so that equal ones can be told.
        guide: The vectors of another embedder, which tell false negatives.
        packer: Packs the sides of batches; where there is none, rows are padded.
        wanted: The keywords of the loss, see `pair_views`.
        seed: Crops depend on it, on the epoch, and on the image.

    Attributes:
        epoch: Another epoch draws other crops.
    """

    instructions: Mapping[str, str] = field(default_factory=dict)
    mask_duplicates: bool = True
    guide: Guide | None = field(default=None, repr=False)
    packer: PairPacker | None = field(default=None, repr=False)
    wanted: frozenset[str] = frozenset()
    seed: int = 0
    epoch: int = field(default=0, init=False)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Makes the columns `anchor`, `positive` and, if a row has one, `negative`, and those of the loss's views.

        `label` tells contents, and what else the loss is told.

        Where the rows may be packed, `packed` holds a `PackedSide` for each of these columns instead.

        Raises:
            ValueError: A row cannot be read as a pair.
        """
        pairs = [read_pair(row, f"Row {index} of a batch", self.instructions) for index, row in enumerate(features)]
        sides = {
            "query": [pair.query for pair in pairs],
            "positive": [pair.positive for pair in pairs],
            "negative": [row for pair in pairs for row in pair.negatives],
        }
        views = make_views(self.wanted, sides, f"{self.seed}:{self.epoch}")
        columns = {name: rows for name, rows in {**sides, **views.columns}.items() if rows}
        digests = {name: [digest_of(row.images) for row in rows] for name, rows in columns.items()}
        label = self._label(sides, digests)
        if views.columns:
            label[VIEWS] = list(columns)
        if views.told:
            label[TOLD] = views.told
        packer = self.packer
        if packer is not None and all(map(packer.takes, columns.values())):
            return {PACKED: [packer.pack(rows, digests[name]) for name, rows in columns.items()], "label": label}
        names = dict(zip(SIDES, COLUMNS, strict=True))
        batch: dict[str, Any] = {}
        for name, rows in columns.items():
            batch |= super().__call__([{names.get(name, name): _input(row)} for row in rows])
        return batch | {"label": label}

    def maybe_warn_about_column_order(self, column_names: list[str]) -> None:
        """Columns are prepared one by one, and the order of a batch's is right."""

    def _label(
        self, sides: Mapping[str, Sequence[TextImageRow]], digests: Mapping[str, Sequence[bytes | None]]
    ) -> dict[str, Any]:
        label: dict[str, Any] = {}
        if not self.mask_duplicates and self.guide is None:
            return label
        keys = {
            side: [row_key(row.text, digest) for row, digest in zip(rows, digests.get(side, ()), strict=True)]
            for side, rows in sides.items()
        }
        if self.mask_duplicates:
            label[CONTENT] = content_numbers(keys)
        if self.guide is not None:
            label[GUIDE] = {side: torch.from_numpy(self.guide.vectors(part)) for side, part in keys.items() if part}
        return label


def pair_key(row: TextImageRow) -> bytes:
    """What names a text with its images, by their content."""
    return row_key(row.text, digest_of(row.images))


def _input(row: TextImageRow) -> Any:
    """A row as sentence-transformers takes it."""
    if not row.images:
        return row.text
    image = row.images[0] if len(row.images) == 1 else list(row.images)
    if row.text:
        return {"text": row.text, "image": image}
    return {"image": image} if isinstance(image, list) else image
