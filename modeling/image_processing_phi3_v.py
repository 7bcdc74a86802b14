"""HD preprocessing of Phi-3.5-V: an image becomes a grid of 336-pixel crops and one global view."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

CROP = 336
CROP_TOKENS_PER_SIDE = 12
WHITE = (255, 255, 255)


class Phi3VImageProcessor(BaseImageProcessor):
    """Resizes an image so that at most `num_crops` crops cover it, pads it with white, and cuts it up.

    Args:
        num_crops: Most crops an image may take; the published embedding models use 4.
        image_mean: Mean of each channel.
        image_std: Standard deviation of each channel.
        **kwargs: Further fields of a `preprocessor_config.json`, kept but not used.
    """

    model_input_names = ["pixel_values", "image_sizes"]  # noqa: RUF012 - the type that transformers declares

    def __init__(
        self,
        num_crops: int = 4,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("auto_map", None)  # the original's remote code, which this class replaces
        super().__init__(**kwargs)
        self.num_crops = num_crops
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def preprocess(
        self,
        images: Any,
        num_crops: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepares images.

        Args:
            images: One image or a list of them: PIL images of any mode, or uint8 arrays `(H, W)` or `(H, W, C)`.
            num_crops: Overrides the setting of this processor.
            return_tensors: `"pt"`, `"np"`, or `None` for tensors in a plain batch.

        Returns:
            `pixel_values` `(P, num_crops + 1, 3, 336, 336)` float32, the global view first, zeros after the last crop;
            `image_sizes` `(P, 2)` int64, height and width after padding; `num_img_tokens` `(P,)` int64, placeholders.
        """
        limit = self.num_crops if num_crops is None else num_crops
        if limit < 1:
            raise ValueError(f"num_crops must be at least 1, got {limit}.")
        image_list = [images] if isinstance(images, Image.Image | np.ndarray) else list(images)
        large = [self._normalise(fit_to_crops(as_rgb(image), limit)) for image in image_list]
        sizes = [(image.shape[1], image.shape[2]) for image in large]
        data = {
            "pixel_values": torch.stack([cut_crops(image, limit + 1) for image in large])
            if large
            else torch.zeros(0, limit + 1, 3, CROP, CROP),
            "image_sizes": torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
            "num_img_tokens": torch.tensor([count_tokens(*size) for size in sizes], dtype=torch.int64),
        }
        return BatchFeature(data, tensor_type=return_tensors)

    def _normalise(self, image: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float() / 255
        mean = torch.tensor(self.image_mean).view(3, 1, 1)
        std = torch.tensor(self.image_std).view(3, 1, 1)
        return (pixels - mean) / std


def as_rgb(image: Any) -> Image.Image:
    """An RGB image from a PIL image of any mode or a uint8 array, or a `TypeError`."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        kind = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"An image must be a PIL image or a uint8 array, not a {kind}.")
    return image if image.mode == "RGB" else image.convert("RGB")


def fit_to_crops(image: Image.Image, num_crops: int) -> Image.Image:
    """Scales an image to the largest width of whole crops that `num_crops` allows, and pads its height to whole crops.

    An image higher than wide is treated lying on its side, as the original does: interpolation in two passes makes the
    order of the axes visible in the pixels. Both sides of the result are multiples of 336.
    """
    upright = image.width < image.height
    if upright:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    width, height = scaled_size(*image.size, num_crops)
    image = pad_height(image.resize((width, height), Image.Resampling.BILINEAR))
    return image.transpose(Image.Transpose.TRANSPOSE) if upright else image


def scaled_size(width: int, height: int, num_crops: int) -> tuple[int, int]:
    """Size to which an image that is not higher than wide is scaled: as many crops wide as `num_crops` allows."""
    ratio = width / height
    columns = 1
    while (columns + 1) * math.ceil((columns + 1) / ratio) <= num_crops:
        columns += 1
    return columns * CROP, max(1, int(columns * CROP / ratio))


def tokens_of_size(width: int, height: int, num_crops: int) -> int:
    """Placeholders that an image of this size becomes."""
    long, short = scaled_size(max(width, height), min(width, height), num_crops)
    short = math.ceil(short / CROP) * CROP
    return count_tokens(short, long) if width >= height else count_tokens(long, short)


def pad_height(image: Image.Image) -> Image.Image:
    """Adds white above and below until the height is a multiple of 336."""
    height = math.ceil(image.height / CROP) * CROP
    padded = Image.new("RGB", (image.width, height), WHITE)
    padded.paste(image, (0, (height - image.height) // 2))
    return padded


def cut_crops(pixels: torch.Tensor, slots: int) -> torch.Tensor:
    """Cuts an image `(3, H, W)` float32 into crops `(slots, 3, 336, 336)`, its global view first and zeros last."""
    rows, columns = pixels.shape[1] // CROP, pixels.shape[2] // CROP
    view = functional.interpolate(pixels[None], size=(CROP, CROP), mode="bicubic")
    crops = pixels.reshape(3, rows, CROP, columns, CROP).permute(1, 3, 0, 2, 4).reshape(-1, 3, CROP, CROP)
    result = pixels.new_zeros(slots, 3, CROP, CROP)
    result[: 1 + len(crops)] = torch.cat([view, crops])
    return result


def count_tokens(height: int, width: int) -> int:
    """Placeholders of an image of this padded size in pixels: both grids, a separator at each line's end, one between.

    Both sides are multiples of 336.
    """
    rows, columns = height // CROP, width // CROP
    side = CROP_TOKENS_PER_SIDE
    return (rows * columns + 1) * side * side + (rows + 1) * side + 1


__all__ = ["Phi3VImageProcessor"]
