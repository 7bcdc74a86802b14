"""The image part of Phi-3.5-V: CLIP over every crop, the HD arrangement of the crops, and the projection."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import CLIPVisionModel

from .configuration_phi3_v import Phi3VConfig

MERGE = 2
"""Patches are merged in squares of this side before the projection."""


class Phi3VClipTower(nn.Module):
    """CLIP under the name that it has in the original checkpoints."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        self.vision_model = CLIPVisionModel(config.vision_config)
        # hidden state 0 is the embedding output: index -2 of n layers is what the first n - 1 layers give
        depth = config.vision_config.num_hidden_layers
        self.layers_used = config.vision_feature_layer % (depth + 1)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Patch features `(N, patches, C)` of normalised crops `(N, 3, S, S)`, without the class token.

        Layers after the one that the model reads are not run.
        """
        clip = self.vision_model
        hidden = clip.pre_layrnorm(clip.embeddings(crops))
        for layer in clip.encoder.layers[: self.layers_used]:
            hidden = layer(hidden, None)
        return hidden[:, 1:]


class Phi3VImageEmbedding(nn.Module):
    """Turns the crops of each image into the embeddings that replace its placeholders."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        vision = config.vision_config
        self.crop_size = vision.image_size
        self.grid = vision.image_size // vision.patch_size
        width = vision.hidden_size * MERGE**2
        self.img_processor = Phi3VClipTower(config)
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, width))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.img_projection = nn.Sequential(
            nn.Linear(width, config.hidden_size), nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)
        )

    def forward(self, pixel_values: torch.Tensor, image_sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Embeds every image once.

        Args:
            pixel_values: `(P, crops, 3, S, S)`: the global view, then the crops row by row, then padding.
            image_sizes: `(P, 2)`, height and width in pixels of the padded images, multiples of S.

        Returns:
            One `(tokens, hidden_size)` tensor an image: the crops, a separator, the global view.

        Raises:
            ValueError: The shapes do not fit each other.
        """
        shapes = crop_grids(pixel_values, image_sizes, self.crop_size)
        if not shapes:
            return ()
        counts = [1 + rows * columns for rows, columns in shapes]
        crops = torch.cat([image[:count] for image, count in zip(pixel_values, counts, strict=True)])
        features = self.merge(self.img_processor(crops)).split(counts)
        arranged = [self.arrange(part, *shape) for part, shape in zip(features, shapes, strict=True)]
        projected: torch.Tensor = self.img_projection(torch.cat(arranged))
        return projected.split([len(part) for part in arranged])

    def merge(self, patches: torch.Tensor) -> torch.Tensor:
        """Joins neighbouring patches channel-wise: `(N, g * g, C)` to `(N, g / 2, g / 2, 4 * C)`."""
        number, _, channels = patches.shape
        half = self.grid // MERGE
        squares = patches.reshape(number, half, MERGE, half, MERGE, channels).transpose(2, 3)
        return squares.reshape(number, half, half, MERGE**2 * channels)

    def arrange(self, crops: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Lays out one image's crops: the crops as one large grid, a separator, then the global view.

        Args:
            crops: `(1 + rows * columns, h, h, C)`, the global view first.
            rows: Crops from top to bottom.
            columns: Crops from left to right.

        Returns:
            `(tokens, C)`; each line of either grid ends in a learned separator.
        """
        _, side, _, channels = crops.shape
        detail = crops[1:].reshape(rows, columns, side, side, channels).transpose(1, 2)
        detail = detail.reshape(rows * side, columns * side, channels)
        return torch.cat([self._end_lines(detail), self.glb_GN.view(1, channels), self._end_lines(crops[0])])

    def _end_lines(self, grid: torch.Tensor) -> torch.Tensor:
        ends = self.sub_GN.view(1, 1, -1).expand(len(grid), 1, -1)
        return torch.cat([grid, ends], dim=1).flatten(0, 1)


def crop_grids(pixel_values: torch.Tensor, image_sizes: torch.Tensor, crop_size: int) -> list[tuple[int, int]]:
    """Rows and columns of crops of every image, as `Phi3VImageEmbedding` takes them; all sizes are in pixels.

    Raises:
        ValueError: The shapes do not fit each other, or an image has fewer crops than its size needs.
    """
    expected = (3, crop_size, crop_size)
    if pixel_values.dim() != 5 or tuple(pixel_values.shape[2:]) != expected:
        raise ValueError(f"pixel_values must be (images, crops, {expected}), got {tuple(pixel_values.shape)}.")
    if tuple(image_sizes.shape) != (len(pixel_values), 2):
        raise ValueError(f"image_sizes must be ({len(pixel_values)}, 2), got {tuple(image_sizes.shape)}.")
    sizes: Sequence[Sequence[int]] = image_sizes.tolist()
    for image, (height, width) in enumerate(sizes):
        crops = (height // crop_size) * (width // crop_size)
        if height % crop_size or width % crop_size or not 1 <= crops < pixel_values.shape[1]:
            raise ValueError(
                f"Image {image} has size {height}x{width}, which does not fit {pixel_values.shape[1] - 1} crops of "
                f"{crop_size} pixels."
            )
    return [(height // crop_size, width // crop_size) for height, width in sizes]
