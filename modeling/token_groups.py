"""Rows of text and images as groups of tokens: what they begin with in common, images included, only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .packs import TokenGroup
from .rows import TextImageRow
from .truncation import UNCUT, cut_texts, own_start

if TYPE_CHECKING:
    from .processing_xvlm2vec import XVLM2VecProcessor

LEAST_SAVING = 32
"""Tokens that a common prefix of texts without images must save to be worth a second step of attention."""


def token_groups(
    processor: XVLM2VecProcessor,
    groups: Sequence[Sequence[TextImageRow]],
    numbers: Sequence[Sequence[Any]] | None = None,
    max_length: int | None = None,
    starts: bool = False,
) -> tuple[list[TokenGroup], int]:
    """Prepares groups of rows; the images of a group, which all its rows show, once.

    Args:
        processor: The model's processor.
        groups: Rows with the same images, or rows without images, which share a prefix if they begin alike.
        numbers: The row numbers of each group for errors; by default from 0 over all groups.
        max_length: As in a call of the processor.
        starts: Whether groups are to tell where the user's texts begin; what rows share then ends there at the latest.

    Returns:
        A group of tokens for each group of rows, its texts in their order, and the number of truncated rows.

    Raises:
        ValueError: A row is empty or cannot be cut short enough, or the rows of a group show different images.
        ImageError: An image cannot be read; the message names the row.
    """
    counter = iter(range(sum(map(len, groups))))
    names_of_groups = numbers or [[next(counter) for _ in group] for group in groups]
    result, num_truncated = [], 0
    for rows, names in zip(groups, names_of_groups, strict=True):
        prepare = _with_images if rows[0].images else _without_images
        group, truncated = prepare(processor, rows, names, max_length, starts)
        result.append(group)
        num_truncated += truncated
    return result, num_truncated


def takes_bare_images(processor: XVLM2VecProcessor, images: Sequence[Any], instruction: str | None = None) -> bool:
    """Whether images without a text can be the prefix of a group: something must be written behind them."""
    try:
        token_groups(processor, [[TextImageRow("", tuple(images), instruction)]])
    except Exception:  # an image that ends its row, or a backbone that packs do not know, which may fail in any way
        return False
    return True


def _without_images(
    processor: XVLM2VecProcessor,
    rows: Sequence[TextImageRow],
    names: Sequence[Any],
    max_length: int | None,
    starts: bool,
) -> tuple[TokenGroup, int]:
    length = UNCUT if starts else max_length
    tokens, _, num_truncated = processor.token_rows(rows, numbers=names, max_length=length)
    ids = [row["input_ids"].tolist() for row in tokens]
    if starts:
        ids, places, num_truncated = own_places(processor, rows, names, ids, max_length)
        shared = min(len(common_prefix(ids)), *places)
        own = [place - shared for place in places]
        return TokenGroup(ids[0][:shared], [row[shared:] for row in ids], starts=own), num_truncated
    prefix = common_prefix(ids)
    shared = len(prefix) if len(prefix) * (len(ids) - 1) >= LEAST_SAVING else 0
    return TokenGroup(prefix[:shared], [row[shared:] for row in ids]), num_truncated


def _with_images(
    processor: XVLM2VecProcessor,
    rows: Sequence[TextImageRow],
    names: Sequence[Any],
    max_length: int | None,
    starts: bool,
) -> tuple[TokenGroup, int]:
    length = UNCUT if starts else max_length
    (first,), images, num_truncated = processor.token_rows(rows[:1], numbers=names[:1], max_length=length)
    ids = [first["input_ids"].tolist()]
    tails = tail_ids(processor, rows)
    fronts = [processor.recipe.shared_part(row) for row in rows]
    prefix = split_prefix(ids[0], tails[0]) if fronts[0] is not None else None
    limit = processor.limit(length)
    for row, name, tail, front in zip(rows[1:], names[1:], tails[1:], fronts[1:], strict=True):
        if prefix and tail and front == fronts[0] and (limit is None or len(prefix) + len(tail) <= limit):
            ids.append(prefix + tail)
            continue
        (whole,), _, truncated = processor.token_rows([row], numbers=[name], max_length=length)
        ids.append(whole["input_ids"].tolist())
        num_truncated += truncated
    common, own = common_prefix(ids), None
    if starts:
        ids, spots, num_truncated = own_places(processor, rows, names, ids, max_length)
        common = common_prefix(ids)[: min(spots)]
        own = [spot - len(common) for spot in spots]
    texts = [row[len(common) :] for row in ids]
    token = image_token_id(processor)
    places = [place for place, value in enumerate(common) if value == token or value < 0]
    unequal = any(len(row.images) != len(rows[0].images) for row in rows)
    if unequal or any(value == token or value < 0 for text in texts for value in text):
        raise ValueError(
            f"Rows {names[0]} to {names[-1]}: an image is not common to all of them, or is the last token of a row."
        )
    images = {name: values[0] if isinstance(values, list) else values for name, values in images.items()}
    return TokenGroup(common, texts, images, places[-1] + 2 if places else 1, own), num_truncated


def own_places(
    processor: XVLM2VecProcessor,
    rows: Sequence[TextImageRow],
    names: Sequence[Any],
    ids: Sequence[list[int]],
    max_length: int | None,
) -> tuple[list[list[int]], list[int], int]:
    """Cuts rows to their length and tells where in each the user's own begins: behind all tokens where there is none.

    Args:
        processor: The model's processor.
        rows: The rows.
        names: Their numbers for errors.
        ids: The tokens of each, not cut.
        max_length: As in a call of the processor.

    Returns:
        The tokens, the place in each, and the number of rows that were cut.

    Raises:
        ValueError: The place is not known, or lies before an image; the message names the row.
    """
    whole = [{"input_ids": torch.tensor(row)} for row in ids]
    places = [
        own_start(processor, row, tokens["input_ids"], name)
        for row, tokens, name in zip(rows, whole, names, strict=True)
    ]
    shorter, num_truncated = cut_texts(processor, whole, rows, names, processor.limit(max_length))
    return [tokens["input_ids"].tolist() for tokens in shorter], places, num_truncated


def common_prefix(ids: Sequence[list[int]]) -> list[int]:
    """What rows of token ids begin with, leaving each row one token at least."""
    first, last = min(ids), max(ids)  # in the order of lists, so that all others begin with what these two share
    shortest = min(map(len, ids)) - 1
    different = (place for place in range(shortest) if first[place] != last[place])
    return first[: next(different, shortest)]


def image_token_id(processor: XVLM2VecProcessor) -> int | None:
    """Id of the token that stands for a part of an image; backbones with negative ids there have none."""
    token = getattr(processor.inner, "image_token", None)
    return processor.inner.tokenizer.convert_tokens_to_ids(token) if token else None


def tail_ids(processor: XVLM2VecProcessor, rows: Sequence[TextImageRow]) -> list[list[int]]:
    """Token ids of each row behind its last image; of the whole row if it has none."""
    tokenizer, recipe = processor.locked_tokenizer, processor.recipe
    strings = [processor.prompt_of(row, number).string for number, row in enumerate(rows)]
    if processor.family.texts_by_processor:
        fronts = [(recipe.shared_part(row) or "") if row.images else "" for row in rows]
        texts = [string.removeprefix(front) for string, front in zip(strings, fronts, strict=True)]
        return [list(map(int, ids)) for ids in processor.text_ids(texts)]
    ids_of_rows = tokenizer(strings, add_special_tokens=recipe.special_tokens)["input_ids"] if rows else []
    if not any(row.images for row in rows):
        return ids_of_rows
    if not recipe.image:  # the backbone's processor puts the image where it likes
        return [[] for _ in rows]
    # Tokenized with its placeholders, one an image: some tokenizers write the start of a text in another way.
    last = tokenizer(recipe.image or "", add_special_tokens=False)["input_ids"][-1]
    return [
        ids[len(ids) - ids[::-1].index(last) :] if row.images and last in ids else ids
        for ids, row in zip(ids_of_rows, rows, strict=True)
    ]


def split_prefix(ids: list[int], tail: list[int]) -> list[int] | None:
    """What stands before the tail, or `None` if the ids do not end with it.

    They do not where a tokenizer merges across the border or adds something behind the text.
    """
    border = len(ids) - len(tail)
    return ids[:border] if tail and border >= 0 and ids[border:] == tail else None
