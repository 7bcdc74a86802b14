"""Two towers, one for texts and one for images, as CLIP and SigLIP have them: what they take and give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .images import ImageError
from .padding import TokenRow
from .truncation import Prompt

IMAGE_ROWS = "image_rows"


def tower_inputs(
    processor: Any,
    prompts: Sequence[Prompt],
    images: Sequence[list[Any]],
    numbers: Sequence[Any],
    options: dict[str, Any],
) -> tuple[list[TokenRow], dict[str, Any]]:
    """Tokens of the rows that are texts (none of the others), and the images of the others.

    Args:
        processor: The model's `XVLM2VecProcessor`.
        prompts: The string of each row; empty where it is an image.
        images: The RGB images of each row.
        numbers: The row numbers for errors.
        options: Further arguments of the image processor.

    Returns:
        The tokens row by row, `pixel_values` and its like of the images, and `image_rows` `(B,)` bool.

    Raises:
        ImageError: A row has several images, of which a tower makes several vectors.
    """
    for row, number in zip(images, numbers, strict=True):
        if len(row) > 1:
            raise ImageError(
                f"row {number} has {len(row)} images, but a tower for images embeds one: make a row of each."
            )
    texts = [index for index, row in enumerate(images) if not row]
    tokens: list[TokenRow] = [{"input_ids": torch.zeros(0, dtype=torch.long)} for _ in prompts]
    for index, ids in zip(texts, processor.text_ids([prompts[index].string for index in texts]), strict=True):
        tokens[index] = {"input_ids": torch.as_tensor(ids, dtype=torch.long)}
    shown = [row[0] for row in images if row]
    if not shown:
        return tokens, {}
    with processor.lock:
        extras = dict(processor.inner.image_processor(images=shown, return_tensors="pt", **options))
    return tokens, {**extras, IMAGE_ROWS: torch.tensor([bool(row) for row in images])}


def tower_vectors(
    backbone: Any, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, inputs: dict[str, Any]
) -> torch.Tensor:
    """Un-normalised vectors `(B, D)` of rows that are each a text or an image.

    Args:
        backbone: A model of transformers with `get_text_features` and `get_image_features`.
        input_ids: `(B, L)` int64; all padding where the row is an image.
        attention_mask: `(B, L)`.
        inputs: The images, and `image_rows` `(B,)` where there are texts, too.
    """
    images = {name: value for name, value in inputs.items() if value is not None}  # PEFT passes what it was not given
    image_rows = images.pop(IMAGE_ROWS, None)
    if "pixel_values" not in images:
        return _of_texts(backbone, input_ids, attention_mask)
    of_images = backbone.get_image_features(**images, return_dict=True).pooler_output
    if image_rows is None or input_ids is None or bool(image_rows.all()):
        return of_images
    mask = None if attention_mask is None else attention_mask[~image_rows]
    of_texts = _of_texts(backbone, input_ids[~image_rows], mask)
    vectors = of_images.new_empty(len(image_rows), of_images.shape[1])
    return vectors.masked_scatter(~image_rows[:, None], of_texts).masked_scatter(image_rows[:, None], of_images)


def _of_texts(backbone: Any, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None) -> torch.Tensor:
    features = backbone.get_text_features(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
    return features.pooler_output
