"""Work done once for several rows: a picture's features, and the prefix that its texts share, serve all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .batching import pad_rows
from .pooling import pool
from .rows import TextImageRow

if TYPE_CHECKING:
    from .processing_xvlm2vec import XVLM2VecProcessor

PICTURE_KEYS = ("pixel_values", "pixel_attention_mask", "image_sizes", "image_grid_thw")


@dataclass(frozen=True)
class PictureFeatures:
    """Features of the pictures of a batch, in row order.

    Args:
        rows: Per row `(T_i, H)`, its picture tokens' features; `T_i` is 0 for a row without a picture.
    """

    rows: tuple[torch.Tensor, ...]

    def select(self, indices: Sequence[int]) -> dict[str, BaseModelOutputWithPooling] | None:
        """The features of some rows as the backbone's `mm_encoder_outputs`; `None` if they hold no picture."""
        chosen = [self.rows[index] for index in indices if len(self.rows[index])]
        # A list, not a tensor: it is what every family's forward pass can concatenate.
        listed: Any = chosen
        return {"image": BaseModelOutputWithPooling(pooler_output=listed)} if chosen else None


def picture_features(backbone: Any, inputs: dict[str, torch.Tensor]) -> PictureFeatures:
    """Runs the vision tower once over the pictures of a batch.

    Args:
        backbone: A vision-language model of transformers with `get_image_features` and `config.image_token_id`.
        inputs: The batch as its processor made it: `input_ids` `(B, L)` and the pictures.

    Returns:
        One entry for each row of the batch.

    Raises:
        ValueError: The number of features is not the number of picture tokens.
    """
    counts = inputs["input_ids"].eq(backbone.config.image_token_id).sum(dim=1).tolist()
    pictures = {key: inputs[key] for key in PICTURE_KEYS if key in inputs}
    if not pictures:
        return PictureFeatures(tuple(torch.empty(0) for _ in counts))
    features = backbone.get_image_features(**pictures, return_dict=True).pooler_output
    flat = torch.cat(tuple(features)) if isinstance(features, list | tuple) else features.flatten(0, -2)
    if len(flat) != sum(counts):
        raise ValueError(f"{len(flat)} picture features for {sum(counts)} picture tokens: the rows would be wrong.")
    return PictureFeatures(tuple(flat.split(counts)))


@dataclass(frozen=True)
class SharedRows:
    """Rows cut into what they share with others and what they do not.

    Args:
        heads: The processor's batch of one row per prefix, pictures included.
        prefixes: Token ids of each prefix.
        tails: Token ids of each row behind its prefix.
        head_of_row: For each row, its prefix.
    """

    heads: dict[str, Any]
    prefixes: list[list[int]]
    tails: list[list[int]]
    head_of_row: list[int]


def tail_ids(processor: XVLM2VecProcessor, rows: Sequence[TextImageRow]) -> list[list[int]]:
    """Token ids of each row behind its last picture; of the whole row if it has none."""
    tokenizer, family = processor.inner.tokenizer, processor.family
    strings = [processor.prompt(row.instruction + row.text, len(row.images), i) for i, row in enumerate(rows)]
    found = tokenizer([string + family.after_text for string in strings])["input_ids"] if rows else []
    if not any(row.images for row in rows):
        return found
    # Tokenized with its placeholders, one a picture: some tokenizers write the start of a text in another way.
    placeholder = family.image or getattr(processor.inner, "image_token", "")
    last = tokenizer(placeholder, add_special_tokens=False)["input_ids"][-1]
    return [
        ids[len(ids) - ids[::-1].index(last) :] if row.images and last in ids else ids
        for ids, row in zip(found, rows, strict=True)
    ]


def split_prefix(ids: list[int], tail: list[int]) -> list[int] | None:
    """What stands before the tail, or `None` if the ids do not end with it.

    They do not where a tokenizer merges across the border or adds something behind the text.
    """
    cut = len(ids) - len(tail)
    return ids[:cut] if tail and cut >= 0 and ids[cut:] == tail else None


def real_ids(batch: Any) -> list[list[int]]:
    """Token ids of each row of a batch without its padding."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def share_rows(
    processor: XVLM2VecProcessor, groups: Sequence[Sequence[TextImageRow]], numbers: Sequence[int]
) -> SharedRows | None:
    """Prepares groups of rows with the same pictures: each picture once.

    Args:
        processor: The processor.
        groups: Rows with the same pictures.
        numbers: How errors number the first row of each group.

    Returns:
        The rows, or `None` where a prefix cannot be told from its text, or a row is too long: prepare those whole.
    """
    heads, cut = processor.prepare([group[0] for group in groups], numbers=numbers)
    head_tails = tail_ids(processor, [group[0] for group in groups])
    prefixes = [split_prefix(ids, tail) for ids, tail in zip(real_ids(heads), head_tails, strict=True)]
    tails = tail_ids(processor, [row for group in groups for row in group])
    head_of_row = [place for place, group in enumerate(groups) for _ in group]
    found = [prefix for prefix in prefixes if prefix]
    limit = processor.limit()
    if cut or len(found) < len(groups) or not all(tails):
        return None
    lengths = [len(found[head]) + len(tail) for head, tail in zip(head_of_row, tails, strict=True)]
    if limit is not None and max(lengths) > limit:
        return None
    return SharedRows(dict(heads), found, tails, head_of_row)


def embed_shared(model: Any, shared: SharedRows, pad_id: int) -> torch.Tensor:
    """Embeds rows over the key-value cache of their prefixes: exact, as the language model is causal.

    Args:
        model: An `XVLM2VecModel` with last-token pooling, in evaluation mode, its backbone counting tokens.
        shared: The rows.
        pad_id: Fills up shorter rows.

    Returns:
        `(R, H)` pooled, un-normalised.
    """
    backbone, device = model.backbone, model.device
    heads = {key: value.to(device) for key, value in shared.heads.items()}
    pictures = picture_features(backbone, heads).select(range(len(shared.prefixes)))
    prefix = _pad(shared.prefixes, pad_id, "left", device)
    positions = prefix["attention_mask"].cumsum(dim=1) - 1
    cache = backbone(
        **prefix, position_ids=positions.clamp(min=0), mm_encoder_outputs=pictures, use_cache=True, return_dict=True
    ).past_key_values
    head_of_row = torch.tensor(shared.head_of_row, device=device)
    cache.batch_select_indices(head_of_row)
    tail = _pad(shared.tails, pad_id, "right", device)
    seen = prefix["attention_mask"][head_of_row]
    hidden = backbone(
        input_ids=tail["input_ids"],
        attention_mask=torch.cat([seen, tail["attention_mask"]], dim=1),
        position_ids=seen.sum(dim=1, keepdim=True) + torch.arange(tail["input_ids"].shape[1], device=device),
        past_key_values=cache,
        use_cache=True,
        return_dict=True,
    ).last_hidden_state
    return pool(hidden, tail["attention_mask"], "lasttoken")


def _pad(rows: Sequence[list[int]], pad_id: int, side: str, device: torch.device) -> dict[str, torch.Tensor]:
    tokens = [{"input_ids": torch.tensor(row, dtype=torch.long)} for row in rows]
    return {key: value.to(device) for key, value in pad_rows(tokens, pad_id=pad_id, side=side).items()}
