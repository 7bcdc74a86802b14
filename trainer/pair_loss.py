"""A loss of pairs as sentence-transformers' trainer calls it: on columns of prepared rows, in pieces if wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from torch import nn

from .false_negatives import SIDES, FalseNegatives, duplicates, guided
from .pair_packs import PackedSide, pack_sides
from .pair_views import TARGETS

CONTENT, GUIDE, PLACES, VIEWS, TOLD = "content", "guide", "places", "views", "told"


class PairLoss(CachedLossMixin, nn.Module):
    """Embeds queries, positives and negatives, and hands the vectors to a loss by keyword.

    Args:
        model: The model.
        loss: Called with `query`, `positive`, `negative`, `no_negative` and `no_query`, as `PairInfoNCELoss` is.
        mini_batch_size: With a value, rows are embedded in pieces of this size, twice: the gradient is the same, and
            memory does not grow with the batch (GradCache, arXiv 2101.06983). Sides that are packed are embedded in
            packs of the memory that so many rows take.
        mask_duplicates: Whether equal texts and images are kept from being each other's negatives.
        guide_margin: See `guided`, which applies where batches bring a guide's vectors.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module,
        mini_batch_size: int | None = None,
        mask_duplicates: bool = True,
        guide_margin: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.uses_gradient_cache = mini_batch_size is not None
        self.mini_batch_size = mini_batch_size or 0
        self.mask_duplicates, self.guide_margin = mask_duplicates, guide_margin

    def forward(
        self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: Mapping[str, Any] | None = None
    ) -> torch.Tensor:
        """Scalar loss of a batch.

        Args:
            sentence_features: Prepared queries, positives and, if there are any, negatives, padded or packed.
            labels: Of the collator: `content`, `guide`, `told`, and in `views` the names of all columns, if there are
                more than queries, positives and negatives.
        """
        labels = labels or {}
        columns: dict[str, Any] = dict(zip(labels.get(VIEWS, SIDES), sentence_features, strict=False))
        targets = {name: self._target(columns.pop(name)) for name in TARGETS if name in columns}
        labels = {**labels, VIEWS: list(columns), TOLD: {**labels.get(TOLD, {}), **targets}}
        features = list(columns.values())
        if isinstance(features[0], PackedSide):  # each pack becomes a column, which is never cut
            features, places = pack_sides(features, self.mini_batch_size or None)
            labels = {**labels, PLACES: places}
        if self.uses_gradient_cache:
            return self.forward_cached(features, labels)  # type: ignore[arg-type]
        return self.calculate_loss([[self.model(part)["sentence_embedding"]] for part in features], labels)

    def calculate_loss(  # type: ignore[override]
        self,
        reps: list[list[torch.Tensor]],
        labels: Mapping[str, Any] | None = None,
        *,
        with_backward: bool = False,
    ) -> torch.Tensor:
        """The loss of vectors by column and piece; with `with_backward` also their gradients."""
        labels = labels or {}
        parts = labels[PLACES].restore(reps) if PLACES in labels else [torch.cat(pieces) for pieces in reps]
        vectors = dict(zip(labels.get(VIEWS, SIDES), parts, strict=False))
        loss: torch.Tensor = self.loss(**vectors, **labels.get(TOLD, {}), **self._left_out(labels))
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    @torch.no_grad()
    def _target(self, features: Any) -> torch.Tensor:
        """Vectors that are learned from."""
        if isinstance(features, PackedSide):
            packs, places = pack_sides([features], self.mini_batch_size or None)
            return places.restore([[self.model(pack)["sentence_embedding"]] for pack in packs])[0]
        if not self.uses_gradient_cache:
            vectors: torch.Tensor = self.model(features)["sentence_embedding"]
            return vectors
        pieces = self.embed_minibatch_iter(features, with_grad=False, copy_random_state=False)
        return torch.cat([piece for piece, _ in pieces])

    def _left_out(self, labels: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        parts: list[FalseNegatives] = []
        if self.mask_duplicates and CONTENT in labels:
            parts.append(duplicates(labels[CONTENT]))
        if GUIDE in labels:
            parts.append(guided(labels[GUIDE], self.guide_margin))
        if not parts:
            return {}
        both = parts[0] if len(parts) == 1 else parts[0] | parts[1]
        return {"no_negative": both.no_negative, "no_query": both.no_query}
