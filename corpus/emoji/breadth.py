"""Retrieval in every language of the emoji world: names and captions, which need no instruction in it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from .specs import Spec, SpecSampler, draw
from .world import EmojiWorld, check_split


@dataclass(frozen=True)
class Scenes:
    """Images of the world, and what each of them shows.

    Attributes:
        world: The world.
        name: Of the scenes; it begins the names of their images.
        specs: The scenes.
        images: Encoded images, `{"bytes", "path"}`, by name, in the order of the scenes.
    """

    world: EmojiWorld
    name: str
    specs: list[Spec]
    images: dict[str, dict[str, Any]]

    def texts(self, language: str) -> list[str]:
        """What each scene shows, in one language: a name, or names with "and"."""
        return [self.world.caption(spec.concepts, language) for spec in self.specs]


def single_scenes(world: EmojiWorld, split: str = "test") -> Scenes:
    """Every concept alone, but for those with withheld names."""
    sampler = SpecSampler(world, split, "breadth/c")
    return _drawn(world, f"{split}-one", [Spec((concept,), sampler.seed()) for concept in _shown(world)])


def pair_scenes(world: EmojiWorld, split: str = "test", rows: int = 500) -> Scenes:
    """Different pairs of the split, `rows` at most; neighbours share a concept."""
    shown = _shown(world)
    inside: Any = world.pair_splits[np.ix_(shown, shown)] == check_split(split)
    sampler = SpecSampler(world, split, "breadth/pairs", shown)
    return _drawn(world, f"{split}-two", sampler.block("t2i", min(rows, int(inside.sum()) // 2)))


def _shown(world: EmojiWorld) -> list[int]:
    return [concept for concept in range(len(world)) if concept not in world.withheld]


def _drawn(world: EmojiWorld, name: str, specs: list[Spec]) -> Scenes:
    images: dict[str, dict[str, Any]] = {}
    for number, spec in enumerate(specs):
        buffer = io.BytesIO()
        draw(world, spec)[1].save(buffer, format="PNG", compress_level=1)
        path = f"{world.config.style}-{name}-{number:06d}"
        images[path] = {"bytes": buffer.getvalue(), "path": path}
    return Scenes(world, name, specs, images)
