"""Where an adapter for a language begins in the rows of a padded batch, as the processor says it to `forward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from .padding import TokenRow
from .rows import TextImageRow
from .truncation import own_start


def adapter_starts(
    processor: Any,
    rows: Sequence[TextImageRow],
    tokens: Sequence[TokenRow],
    numbers: Sequence[Any],
    prompts: Mapping[str, str],
) -> torch.Tensor:
    """What `forward` must know of each row to let an adapter act on what is in the row's language, and on nothing else.

    Args:
        processor: The `XVLM2VecProcessor`.
        rows: The rows.
        tokens: The tokens of each, not cut.
        numbers: How errors number the rows.
        prompts: The model's `config.prompts`.

    Returns:
        `(B, 3)` int64: the first token of the text, the first of the instruction, and the number of the instruction
        among the prompts (-1 for others). Of rows without text both places lie behind all tokens.

    Raises:
        ValueError: A place is not known, or lies before an image; the message names the row.
    """
    known = list(prompts.values())
    result = []
    for row, whole, number in zip(rows, tokens, numbers, strict=True):
        instruction = processor.recipe.instruction_of(row)
        places = [
            own_start(processor, replace(row, own_instruction=own), whole["input_ids"], number) for own in (False, True)
        ]
        result.append([*places, known.index(instruction) if instruction in known else -1])
    return torch.tensor(result).reshape(-1, 3)
