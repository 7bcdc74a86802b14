"""Scenes of the emoji world and how they are drawn: one to four sprites on a patterned, noisy background."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

ROTATIONS = (-16, -8, 0, 8, 16)  # degrees
SCALE_STEPS = 16  # sprite sizes are multiples of 1/16 of the image's side, so that few variants need to be kept
NOISE_LEVELS = (3, 6, 10)  # standard deviation, in grey levels of 255
NOISE_TILES = 16
NOISE_ZERO = 128  # the value in a noise image that changes nothing
COLOUR_RANGE = (48, 240)  # of backgrounds, in grey levels of 255: neither the darkest outlines nor pure white
MAX_OBJECTS = 4
PATTERNS = 12
CROP_MARGIN = 1.3  # side of a crop in units of the object's size

# per number of objects: columns of the centres, rows of the centres (alternating), sizes in 1/16, jitter of the centres
_LAYOUTS: dict[int, tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...], float]] = {
    1: ((0.5,), (0.5,), (8, 9, 10, 11, 12, 13, 14), 0.08),
    2: ((0.27, 0.73), (0.45, 0.55), (6, 7, 8), 0.05),
    3: ((0.17, 0.5, 0.83), (0.4, 0.6), (5, 6), 0.03),
    4: ((0.14, 0.38, 0.62, 0.86), (0.38, 0.62), (4, 5), 0.02),
}


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene.

    Attributes:
        concept: index of the concept in its world.
        x: centre from the left, as a fraction of the image's side.
        y: centre from the top, as a fraction of the image's side.
        scale: size as a fraction of the image's side.
        rotation: degrees, counter-clockwise.
    """

    concept: int
    x: float
    y: float
    scale: float
    rotation: int


@dataclass(frozen=True)
class Background:
    """Two colours (RGB, 0 to 255) mixed by one of the fixed patterns."""

    first: tuple[int, int, int]
    second: tuple[int, int, int]
    pattern: int


@dataclass(frozen=True)
class Scene:
    """Everything that decides an image; objects are ordered from left to right.

    Attributes:
        objects: one to four things.
        background: colours and pattern behind them.
        noise: standard deviation of the pixel noise, in grey levels of 255.
        seed: the number the scene was composed from; also picks the noise.
    """

    objects: tuple[SceneObject, ...]
    background: Background
    noise: int
    seed: int


def compose(concepts: Sequence[int], seed: int) -> Scene:
    """Lays out concepts from left to right; place, size, rotation, background and noise follow from the seed.

    Raises:
        ValueError: none or more than `MAX_OBJECTS` concepts.
    """
    if not 1 <= len(concepts) <= MAX_OBJECTS:
        raise ValueError(f"A scene holds 1 to {MAX_OBJECTS} objects, not {len(concepts)}")
    draw = random.Random(seed).random
    columns, rows, sizes, jitter = _LAYOUTS[len(concepts)]
    phase = int(draw() * 2)
    objects = []
    for place, concept in enumerate(concepts):
        x = columns[place] + (2 * draw() - 1) * jitter
        y = rows[(place + phase) % len(rows)] + (2 * draw() - 1) * jitter
        scale = sizes[int(draw() * len(sizes))] / SCALE_STEPS
        objects.append(SceneObject(int(concept), x, y, scale, ROTATIONS[int(draw() * len(ROTATIONS))]))
    colours = [COLOUR_RANGE[0] + int(draw() * (COLOUR_RANGE[1] - COLOUR_RANGE[0])) for _ in range(6)]
    first, second = (colours[0], colours[1], colours[2]), (colours[3], colours[4], colours[5])
    background = Background(first, second, int(draw() * PATTERNS))
    return Scene(tuple(objects), background, NOISE_LEVELS[int(draw() * len(NOISE_LEVELS))], seed)


def _patterns(side: int) -> list[Image.Image]:
    """Share of the second colour at every pixel, 0 to 255, for each of the `PATTERNS` patterns."""
    y, x = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
    soft = [x, y, (x + y) / 2, (x + 1 - y) / 2, np.hypot(x - 0.5, y - 0.5) * np.sqrt(2), np.abs(2 * x - 1)]
    stripes = [0.5 + 0.5 * np.sin(2 * np.pi * 3 * wave) for wave in (x, y, (x + y) / 2, (x - y) / 2)]
    checks = [0.5 + 0.5 * np.sin(2 * np.pi * f * x) * np.sin(2 * np.pi * f * y) for f in (1, 2)]
    return [Image.fromarray(np.rint(255 * share).astype(np.uint8)) for share in soft + stripes + checks]


def _noise_tiles(side: int, level: int) -> list[Image.Image]:
    """RGB noise around `NOISE_ZERO` with a standard deviation of `level`."""
    unit = np.random.default_rng(0).standard_normal((NOISE_TILES, side, side, 3), dtype=np.float32)
    return [Image.fromarray(tile) for tile in (NOISE_ZERO + np.rint(unit * level)).clip(0, 255).astype(np.uint8)]


class Painter:
    """Draws scenes of one image size; keeps scaled and rotated sprites, so that drawing is little more than pasting.

    Args:
        sprites: one RGBA image per concept.
        side: width and height of the images in pixels.
    """

    def __init__(self, sprites: Sequence[Image.Image], side: int) -> None:
        self.side = side
        self._sprites = sprites
        self._variants: dict[tuple[int, int, int], Image.Image] = {}
        self._patterns = _patterns(side)
        self._noise = {level: _noise_tiles(side, level) for level in NOISE_LEVELS}

    def paint(self, scene: Scene) -> Image.Image:
        """The scene as an RGB image, `side` pixels square."""
        image = Image.new("RGB", (self.side, self.side), scene.background.first)
        image.paste(scene.background.second, mask=self._patterns[scene.background.pattern])
        for thing in scene.objects:
            sprite = self._variant(thing)
            corner = (round(thing.x * self.side - sprite.width / 2), round(thing.y * self.side - sprite.height / 2))
            image.paste(sprite, corner, sprite)
        noise = self._noise[scene.noise][(scene.seed >> 2) % NOISE_TILES]
        return ImageChops.add(image, noise, offset=-NOISE_ZERO)

    def crop(self, image: Image.Image, thing: SceneObject) -> Image.Image:
        """The part of a painted scene that shows one thing, enlarged to the size of a whole image."""
        window = min(self.side, round(CROP_MARGIN * thing.scale * self.side))
        left = min(max(round(thing.x * self.side - window / 2), 0), self.side - window)
        top = min(max(round(thing.y * self.side - window / 2), 0), self.side - window)
        box = (left, top, left + window, top + window)
        return image.resize((self.side, self.side), Image.Resampling.BILINEAR, box=box)

    def _variant(self, thing: SceneObject) -> Image.Image:
        key = (thing.concept, round(thing.scale * self.side), thing.rotation)
        sprite = self._variants.get(key)
        if sprite is None:
            original = self._sprites[thing.concept]
            turned = original.rotate(thing.rotation, Image.Resampling.BICUBIC, expand=True)
            width = max(1, round(key[1] * turned.width / original.width))
            sprite = turned.resize((width, width), Image.Resampling.LANCZOS)
            self._variants[key] = sprite
        return sprite
