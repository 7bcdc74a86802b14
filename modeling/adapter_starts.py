"""Where an adapter for a language begins in the rows of a padded batch: the processor says it, `forward` uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from .activated import Routes
from .language_adapters import adapter_for, is_in_language
from .packing import packing_blocker
from .padding import TokenRow
from .rows import TextImageRow
from .truncation import first_own_token

if TYPE_CHECKING:
    from .processing_xvlm2vec import XVLM2VecProcessor


def adapter_starts(
    processor: XVLM2VecProcessor,
    rows: Sequence[TextImageRow],
    tokens: Sequence[TokenRow],
    numbers: Sequence[Any],
    prompts: Mapping[str, str],
) -> torch.Tensor:
    """What `forward` must know of each row to let an adapter act on what is in the row's language, and on nothing else.

    Args:
        processor: The model's processor.
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
            _place(processor, replace(row, own_instruction=own), whole["input_ids"], number) for own in (False, True)
        ]
        result.append([*places, known.index(instruction) if instruction in known else -1])
    return torch.tensor(result).reshape(-1, 3)


def _place(processor: XVLM2VecProcessor, row: TextImageRow, ids: torch.Tensor, number: Any) -> int:
    """The first token of a row that an adapter acts on."""
    if not row.text.strip():
        return len(ids)
    prompt, recipe = processor.prompt_of(row, number), processor.recipe
    try:
        start = recipe.start_of_own(row, prompt)
        return first_own_token(ids, prompt, start, processor.locked_tokenizer, recipe.special_tokens)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def batch_routes(
    model: Any, language: str | None, starts: torch.Tensor | None, attention_mask: torch.Tensor
) -> Routes | None:
    """The tokens of a padded batch that the adapter of a language acts on; `None` where the base speaks.

    Args:
        model: An `XVLM2VecModel`.
        language: Of all texts of the batch.
        starts: `(B, 3)`, what `adapter_starts` gave.
        attention_mask: `(B, L)`, 1 at tokens.

    Raises:
        UnknownLanguageError: There is no adapter for the language.
        ValueError: The batch does not say where texts begin, texts of the backbone do not just see what stands before
            them, or several languages are given.
    """
    if not isinstance(language, str | None):
        raise ValueError(
            "One language goes with a batch, as sentence-transformers orders rows by their length: call encode once "
            "for each language, or XVLM2VecModel.encode, which takes one for each row."
        )
    name = adapter_for(model, language)
    if name is None:
        return None
    if starts is None:
        raise ValueError(
            f"The batch does not say where its texts begin, so what the adapter for {language!r} is to act on is not "
            "known: make it with processor(..., prompts=model.config.prompts)."
        )
    blocker = packing_blocker(model)
    if blocker:
        raise ValueError(f"An adapter would change what stands before a text, too, as {blocker}. Leave language out.")
    prompts = list(model.config.prompts)
    first, first_of_instruction, number = starts.to(attention_mask.device).unbind(1)
    mine = [place for place, prompt in enumerate(prompts) if is_in_language(prompt, str(language))]
    is_mine = torch.isin(number, torch.tensor(mine, device=number.device, dtype=number.dtype))
    first = torch.where(is_mine, first_of_instruction, first)
    attended = attention_mask.ne(0)
    places = (attended & (attended.cumsum(1) > first[:, None])).flatten().nonzero().flatten()
    return Routes(attention_mask.numel(), {name: places})
