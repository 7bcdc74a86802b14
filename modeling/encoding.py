"""Batching for `XVLM2VecModel.encode`: rows sorted by length, batches under a token budget, order restored."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from .rows import TextImageRow

if TYPE_CHECKING:
    from .processing_xvlm2vec import XVLM2VecProcessor


@torch.inference_mode()
def encode_rows(
    model: Any,
    processor: XVLM2VecProcessor,
    rows: Sequence[TextImageRow],
    *,
    max_tokens_per_batch: int,
    max_length: int | None = None,
    show_progress: bool | None = None,
) -> torch.Tensor:
    """Embeds rows in the model's own mode and returns them in their order.

    Returns:
        `(N, D)` float32 on the CPU.
    """
    was_training = model.training
    model.eval()
    try:
        lengths = processor.row_lengths(rows)
        order = sorted(range(len(rows)), key=lambda i: (bool(rows[i].images), lengths[i]))
        batches = list(token_batches(order, lengths.__getitem__, max_tokens_per_batch))
        vectors: torch.Tensor | None = None
        cut_rows = 0
        with tqdm(
            total=len(rows), desc="Encoding", unit="row", disable=not _wants_bar(show_progress, len(batches))
        ) as bar:
            for batch in batches:
                inputs, cut = processor.prepare([rows[i] for i in batch], numbers=batch, max_length=max_length)
                cut_rows += cut
                embeddings = model(**inputs.to(model.device)).embeddings.float().cpu()
                if vectors is None:
                    vectors = torch.empty(len(rows), embeddings.shape[1])
                vectors[batch] = embeddings
                bar.update(len(batch))
        if cut_rows:
            warnings.warn(f"The texts of {cut_rows} of {len(rows)} rows were cut to fit the model.", stacklevel=3)
        return vectors if vectors is not None else torch.empty(0, model.config.hidden_size)
    finally:
        model.train(was_training)


def token_batches(order: Sequence[int], length: Callable[[int], int], budget: int) -> Iterator[list[int]]:
    """Cuts an order into batches whose rows times longest row stay within the budget (at least one row each)."""
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, length(index))
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], length(index)
        batch.append(index)
    if batch:
        yield batch


def _wants_bar(show_progress: bool | None, batches: int) -> bool:
    return (batches > 1 and sys.stderr.isatty()) if show_progress is None else show_progress
