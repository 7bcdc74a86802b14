"""Which tokens of a padded batch the adapter for a language acts on."""

from __future__ import annotations

from typing import Any

import torch

from .activated import Routes
from .language_adapters import adapter_for, is_in_language
from .packing import packing_blocker


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
