"""Batches of token rows: takes padded batches apart, and pads rows of any origin to one batch on either side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

TokenRow = dict[str, torch.Tensor]
"""One row without padding: `input_ids` and other per-token inputs by name, each `(L, ...)`, `input_ids` int64."""


def split_rows(batch: Mapping[str, torch.Tensor], names: Sequence[str]) -> list[TokenRow]:
    """The rows of a padded batch without padding: their inputs with these names, `(B, L, ...)` each in the batch."""
    masks = batch["attention_mask"].bool()
    return [{name: batch[name][row][mask] for name in names} for row, mask in enumerate(masks)]


def pad_rows(rows: Sequence[TokenRow], pad_id: int, side: str, width: int = 0, multiple: int = 1) -> TokenRow:
    """Pads rows to one length and adds the attention mask. Inputs that a row lacks are 0 there.

    What has further axes, as for each of a row's images, is 0 there beyond a row's own.

    Args:
        rows: The rows.
        pad_id: Token id of padding.
        side: `"left"` or `"right"`.
        width: Least width of the batch.
        multiple: The width becomes a multiple of this.

    Returns:
        Every input of any row, `(B, L, ...)`, and `attention_mask`, `(B, L)` int64.
    """
    if side not in {"left", "right"}:
        raise ValueError(f"padding_side={side!r} is unknown; choose 'left' or 'right'.")
    lengths = [len(row["input_ids"]) for row in rows]
    width = -(-max(*lengths, width, 1) // multiple) * multiple if len(lengths) else width
    names = list(dict.fromkeys(name for row in rows for name in row))
    batch = {name: _filled(rows, name, width, pad_id if name == "input_ids" else 0) for name in names}
    batch["attention_mask"] = torch.zeros(len(rows), width, dtype=torch.long)
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        where = slice(width - length, width) if side == "left" else slice(0, length)
        batch["attention_mask"][index, where] = 1
        for name, values in row.items():
            place: tuple[int | slice, ...] = (index, where, *(slice(size) for size in values.shape[1:]))
            batch[name][place] = values
    return batch


def _filled(rows: Sequence[TokenRow], name: str, width: int, value: int) -> torch.Tensor:
    """A batch of padding for one input, as large as the largest row needs."""
    values = [row[name] for row in rows if name in row]
    further = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in values), strict=True)]
    return torch.full((len(rows), width, *further), value, dtype=values[0].dtype)


def spread_rows(values: torch.Tensor, rows: Sequence[int], count: int) -> torch.Tensor:
    """Gives rows without images an all-zero entry: `values` `(len(rows), ...)` of these rows to `(count, ...)`."""
    spread = values.new_zeros(count, *values.shape[1:])
    spread[list(rows)] = values
    return spread
