"""Truncation that cuts the user's text only: images, instruction and the token that is pooled stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .padding import TokenRow
from .rows import TextImageRow

UNCUT = 10**9
"""A length that no row has."""


@dataclass(frozen=True)
class Prompt:
    """The string that stands for a row, and where the user's text lies in it (characters)."""

    string: str
    start: int
    stop: int


def cut_texts(
    processor: Any,
    tokens: Sequence[TokenRow],
    rows: Sequence[TextImageRow],
    numbers: Sequence[Any],
    limit: int | None,
) -> tuple[list[TokenRow], int]:
    """The tokens of rows without the ends of texts that are too long, see `cut_text`, and the number of these rows."""
    result: list[TokenRow] = []
    tokenizer, special = processor.locked_tokenizer, processor.recipe.special_tokens
    for whole, row, number in zip(tokens, rows, numbers, strict=True):
        if limit is None or len(whole["input_ids"]) <= limit:
            result.append(whole)
        else:
            prompt = processor.prompt_of(row, number)
            result.append(cut_text(whole, prompt, tokenizer, limit, f"row {number}", special))
    return result, sum(short is not whole for short, whole in zip(result, tokens, strict=True))


def cut_text(
    row: TokenRow, prompt: Prompt, tokenizer: Any, max_length: int, name: str, special_tokens: bool = True
) -> TokenRow:
    """Takes tokens of the user's text out of a row, from its end, until the row has `max_length` tokens.

    The row is cut as tokens, not as a string: what stays is what the whole row had there. The text's last token
    stays if it is the row's last, because that is where the row is pooled.

    Args:
        row: The row's tokens, its images expanded.
        prompt: The row's prompt, its images not expanded.
        tokenizer: A fast tokenizer, the one that made the row.
        max_length: Tokens that may stay.
        name: How an error calls the row.
        special_tokens: Whether the tokenizer added its own.

    Raises:
        ValueError: What must stay is longer than `max_length`, or the tokenizer cannot tell where its tokens lie.
    """
    excess = len(row["input_ids"]) - max_length
    if excess <= 0:
        return row
    start, stop = _text_tokens(row["input_ids"], prompt, tokenizer, special_tokens)
    if stop == len(row["input_ids"]):
        stop -= 1
    if excess > stop - start:
        raise ValueError(
            f"{name}: images, instruction and the last token take {len(row['input_ids']) - max(stop - start, 0)} "
            f"tokens and are never cut, but max_length is {max_length}; raise it or make the images smaller."
        )
    return {key: torch.cat([values[: stop - excess], values[stop:]]) for key, values in row.items()}


def own_start(processor: Any, row: TextImageRow, ids: torch.Tensor, number: Any) -> int:
    """Place of the first token of a row that is in the language of its text; behind all tokens if it has no text.

    Args:
        processor: The `XVLM2VecProcessor`.
        row: The row.
        ids: `(L,)` int64, its tokens, not cut.
        number: How an error calls the row.

    Raises:
        ValueError: The place is not known, or lies before an image; the message names the row.
    """
    if not row.text.strip():
        return len(ids)
    prompt, recipe = processor.prompt_of(row, number), processor.recipe
    try:
        start = recipe.start_of_own(row, prompt)
        return first_own_token(ids, prompt, start, processor.locked_tokenizer, recipe.special_tokens)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def first_own_token(ids: torch.Tensor, prompt: Prompt, start: int, tokenizer: Any, special_tokens: bool = True) -> int:
    """Place of the first token of a row, not cut, that holds something of its string behind a character.

    Args:
        ids: `(L,)` int64, the row's tokens, its images expanded.
        prompt: The row's prompt, its images not expanded.
        start: Place of the character in it.
        tokenizer: A fast tokenizer, the one that made the row.
        special_tokens: Whether the tokenizer added its own.

    Raises:
        ValueError: The tokenizer cannot tell where its tokens lie, or an image lies behind the character.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} does not tell where its tokens lie, so where an adapter begins is not known."
        )
    plain = tokenizer(prompt.string, return_offsets_mapping=True, add_special_tokens=special_tokens)
    spans = enumerate(plain["offset_mapping"])
    behind = len(plain["input_ids"]) - next(
        (index for index, (_, last) in spans if last > start), len(plain["input_ids"])
    )
    if behind > _common_suffix(ids.tolist(), plain["input_ids"]):
        raise ValueError("What belongs to an adapter stands before an image, or its tokens are not those of the text.")
    return len(ids) - behind


def _text_tokens(ids: torch.Tensor, prompt: Prompt, tokenizer: Any, special_tokens: bool) -> tuple[int, int]:
    """First and last (exclusive) token of a row that lie wholly in the user's text."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"{type(tokenizer).__name__} does not tell where its tokens lie, so texts cannot be cut.")
    plain = tokenizer(prompt.string, return_offsets_mapping=True, add_special_tokens=special_tokens)
    inside = [
        index
        for index, (first, last) in enumerate(plain["offset_mapping"])
        if prompt.start <= first < last <= prompt.stop
    ]
    if not inside:
        return 0, 0
    # Expanded images change the front of a row only, so both are counted from their ends as far as they agree.
    same = _common_suffix(ids.tolist(), plain["input_ids"])
    after = len(plain["input_ids"]) - 1 - inside[-1]
    before = min(len(plain["input_ids"]) - inside[0], same)
    return len(ids) - before, len(ids) - min(after, before)


def _common_suffix(one: list[int], other: list[int]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
