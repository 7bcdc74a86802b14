"""Candidates of all processes: a contrastive loss sees the global batch, and gradients flow back to their owners."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import pad


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Concatenates the rows of all processes, in the order of ranks.

    Processes may hold different numbers of rows, as rows of a parallel corpus have different numbers of translations.
    A floating tensor keeps its gradients: each process receives the sum of what all processes send back, so that the
    mean that data-parallel training takes over processes is the gradient of the mean of their losses.

    Args:
        rows: `(B,)` or `(B, D)`; `B` may be another one in each process.

    Returns:
        `(sum of B, ...)`; the tensor itself where there is one process.
    """
    if not is_distributed():
        return rows
    counts = _gather(torch.tensor([len(rows)], device=rows.device)).tolist()
    if not any(counts):
        return rows
    padded = pad(rows, (0, 0) * (rows.dim() - 1) + (0, max(counts) - len(rows)))
    gathered = _gather(padded).split(max(counts))
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


def global_row_ids(row_ids: torch.Tensor) -> torch.Tensor:
    """Ids `(B,)` that no other process uses, made of ids that count from 0 in each process."""
    if not is_distributed():
        return row_ids
    largest = torch.cat([row_ids, row_ids.new_zeros(1)]).max().reshape(1)  # a process may hold no row
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return row_ids + dist.get_rank() * (largest + 1)


def _gather(rows: torch.Tensor) -> torch.Tensor:
    if rows.requires_grad:
        return torch.cat(all_gather(rows))
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
