"""Work done once for several rows: a picture's features serve every text that meets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

PICTURE_KEYS = ("pixel_values", "pixel_attention_mask", "image_sizes", "image_grid_thw")


@dataclass(frozen=True)
class PictureFeatures:
    """Features of the pictures of a batch, in row order.

    Args:
        rows: Per row `(T_i, H)`, its picture tokens' features; `T_i` is 0 for a row without a picture.
    """

    rows: tuple[torch.Tensor, ...]

    def select(self, indices: list[int]) -> dict[str, BaseModelOutputWithPooling] | None:
        """The features of some rows as the backbone's `mm_encoder_outputs`; `None` if they hold no picture."""
        chosen = [self.rows[index] for index in indices if len(self.rows[index])]
        return {"image": BaseModelOutputWithPooling(pooler_output=torch.cat(chosen))} if chosen else None


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
