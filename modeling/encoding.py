"""Batching for `XVLM2VecModel.encode`: rows sorted by length, batches under a token budget, order restored."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from .rows import TextImageRow
from .sharing import embed_shared, share_rows

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
    """Embeds rows in evaluation mode and returns them in their order.

    Rows with the same pictures share the pictures' part of the forward pass, where the backbone allows it.

    Returns:
        `(N, D)` float32 on the CPU.
    """
    was_training = model.training
    model.eval()
    try:
        lengths = processor.row_lengths(rows)
        groups, single = _plan(model, processor, rows, max_length)
        order = sorted(single, key=lambda i: (bool(rows[i].images), lengths[i]))
        batches = list(token_batches(order, lengths.__getitem__, max_tokens_per_batch))
        vectors = torch.empty(len(rows), model.config.hidden_size)
        cut_rows = 0
        with tqdm(
            total=len(rows), desc="Encoding", unit="row", disable=not _wants_bar(show_progress, len(batches))
        ) as bar:
            for packed in _group_batches(groups, lengths, max_tokens_per_batch):
                members = [index for group in packed for index in group]
                embeddings = _embed_groups(model, processor, [[rows[i] for i in group] for group in packed], packed)
                if embeddings is None:
                    batches += token_batches(members, lengths.__getitem__, max_tokens_per_batch)
                    continue
                vectors[members] = embeddings.float().cpu()
                bar.update(len(members))
            for batch in batches:
                inputs, cut = processor.prepare([rows[i] for i in batch], numbers=batch, max_length=max_length)
                cut_rows += cut
                vectors[batch] = model(**inputs.to(model.device)).embeddings.float().cpu()
                bar.update(len(batch))
        if cut_rows:
            warnings.warn(f"The texts of {cut_rows} of {len(rows)} rows were cut to fit the model.", stacklevel=3)
        return vectors
    finally:
        model.train(was_training)


def _plan(
    model: Any, processor: XVLM2VecProcessor, rows: Sequence[TextImageRow], max_length: int | None
) -> tuple[list[list[int]], list[int]]:
    """Numbers of the rows that share their pictures with others, group by group, and of the rest."""
    if not processor.family.shares_prefix or model.config.pooling != "lasttoken" or max_length is not None:
        return [], list(range(len(rows)))
    same: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        same.setdefault(tuple(map(_identity, row.images)) if row.images else (index,), []).append(index)
    groups = [members for members in same.values() if len(members) > 1 and rows[members[0]].images]
    shared = {index for members in groups for index in members}
    return groups, [index for index in range(len(rows)) if index not in shared]


def _identity(picture: Any) -> Any:
    """What two rows must have in common for their picture to be the same: the path, or the very object."""
    return picture if isinstance(picture, str) else (id(picture),)


def _group_batches(groups: list[list[int]], lengths: Sequence[int], budget: int) -> Iterator[list[list[int]]]:
    """Groups in batches whose rows times longest row stay within the budget; a larger group comes alone, in parts."""
    batch: list[list[int]] = []
    rows = longest = 0
    for group in sorted(groups, key=lambda members: max(lengths[i] for i in members)):
        width = max(lengths[index] for index in group)
        for start in range(0, len(group), max(budget // width, 1)):
            part = group[start : start + max(budget // width, 1)]
            if batch and max(longest, width) * (rows + len(part)) > budget:
                yield batch
                batch, rows, longest = [], 0, 0
            batch.append(part)
            rows, longest = rows + len(part), max(longest, width)
    if batch:
        yield batch


def _embed_groups(
    model: Any, processor: XVLM2VecProcessor, groups: list[list[TextImageRow]], numbers: list[list[int]]
) -> torch.Tensor | None:
    shared = share_rows(processor, groups, [group[0] for group in numbers])
    if shared is None:
        return None
    pad_id = processor.inner.tokenizer.pad_token_id or 0
    return model.finish(embed_shared(model, shared, pad_id))


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
