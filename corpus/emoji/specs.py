"""Rows of the emoji world as small specifications, and the texts and images they stand for."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from .scene import Scene
from .text import SIDES, instruct, question
from .world import EmojiWorld, check_split

T = TypeVar("T")

WHOLE = -1  # `asked` of an image that is meant as a whole
GROUP_SIZES = (3, 3, 3, 4)  # objects of a vqa or vg scene, drawn evenly


@dataclass(frozen=True)
class Spec:
    """One example before it is rendered.

    Attributes:
        concepts: the scene's concepts from left to right.
        seed: of the scene.
        asked: place in `concepts` of the thing named (vqa) or looked for (vg), or `WHOLE`.
        side: of the thing named, where the answer to a vqa question is; else empty.
    """

    concepts: tuple[int, ...]
    seed: int
    asked: int = WHOLE
    side: str = ""

    @property
    def answer(self) -> int:
        """The concept that is the answer (vqa) or is looked for (vg, c)."""
        step = {"left": -1, "right": 1}.get(self.side, 0)
        return self.concepts[max(self.asked, 0) + step]


def query_text(world: EmojiWorld, task: str, spec: Spec, language: str) -> str:
    """The query's own text, without instruction: the caption, question or name; empty for c and i2t."""
    if task == "t2i":
        return world.caption(spec.concepts, language)
    if task == "vqa":
        return question(language, spec.side, world.name(spec.concepts[spec.asked], language))
    return world.name(spec.answer, language) if task == "vg" else ""


def query(world: EmojiWorld, task: str, spec: Spec, language: str) -> str:
    """The query as a model reads it, with its instruction."""
    return instruct(task, language, "query", query_text(world, task, spec, language))


def target_text(world: EmojiWorld, task: str, spec: Spec, language: str) -> str:
    """The target as a model reads it; for t2i and vg this is the instruction that goes with the image."""
    if task in ("c", "vqa"):
        text = world.name(spec.answer, language)
    else:
        text = world.caption(spec.concepts, language) if task == "i2t" else ""
    return instruct(task, language, "target", text)


def draw(world: EmojiWorld, spec: Spec) -> tuple[Scene, Image.Image]:
    """The composed scene and its image."""
    scene = world.compose(spec.concepts, spec.seed)
    return scene, world.render(scene)


def draw_target(world: EmojiWorld, task: str, spec: Spec) -> Image.Image | None:
    """The target's image: the scene for t2i, the crop for vg, None for tasks with text targets."""
    if task not in ("t2i", "vg"):
        return None
    scene, image = draw(world, spec)
    return image if task == "t2i" else world.crop(image, scene.objects[spec.asked])


class SpecSampler:
    """Draws specifications that keep to one split.

    The pair that an example is about belongs to the split. Training scenes hold pairs of training only, validation
    scenes no pair of test.

    Args:
        world: where the concepts come from.
        split: "train", "validation" or "test".
        stream: a name that sets this sampler's renderings apart from others of the split.
        concepts: the concepts to use; None for all.
    """

    def __init__(self, world: EmojiWorld, split: str, stream: str, concepts: Sequence[int] | None = None) -> None:
        self.world, self.split, self.stream = world, split, stream
        self.concepts = list(range(len(world)) if concepts is None else concepts)
        self._rng = random.Random(f"{world.config.seed}/{split}/{stream}")
        self._drawn = 0
        self._turns: list[int] = []
        self._level = check_split(split)
        self._splits = world.pair_splits
        inside = set(self.concepts)
        self._partners = {
            a: [int(b) for b in np.flatnonzero(self._splits[a] == self._level) if int(b) in inside]
            for a in self.concepts
        }
        if not any(self._partners.values()):
            raise ValueError(f"No pair of these {len(self.concepts)} concepts belongs to {split}; use more concepts")

    def seed(self) -> int:
        """The next scene seed."""
        self._drawn += 1
        return self.world.scene_seed(self.split, self.stream, self._drawn)

    def single(self) -> Spec:
        """One thing alone; every concept has its turn before one comes again."""
        self._turns = self._turns or self._shuffled(self.concepts)
        return Spec((self._turns.pop(),), self.seed())

    def pair(self) -> Spec:
        """Two things whose pair belongs to the split."""
        first = self._linked()
        return self._pair(first, self.pick(self._partners[first]))

    def asked_about(self, task: str) -> Spec:
        """A scene of three or four things and one question about it (vqa) or one thing to find (vg)."""
        group = self._group(self._linked(), self.concepts)
        if task == "vqa":
            return self._question(group, group[0], group[1])
        return self._scene(group, self.seed())[0]

    def block(self, task: str, size: int) -> list[Spec]:
        """Examples whose positives are all different, with hard negatives among them.

        Pairs form chains in which neighbours share a thing; the answers to vqa questions are the other things of
        neighbouring scenes; vg rows look for different things in the same scene, and neighbouring scenes share a thing.

        Raises:
            ValueError: `size` is more than the concepts can give.
        """
        draw_block = {"c": self._singles, "vqa": self._questions, "vg": self._searches}.get(task, self._chain)
        specs = draw_block(size)
        if len(specs) < size:
            raise ValueError(
                f"The {len(self.concepts)} concepts give only {len(specs)} {self.split} examples of {task!r} with "
                f"different positives, fewer than the batch of {size}: use a smaller batch or more concepts"
            )
        return specs[:size]

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, at random."""
        return options[int(self._rng.random() * len(options))]

    def _shuffled(self, items: Sequence[int]) -> list[int]:
        return self._rng.sample(items, len(items))

    def _linked(self) -> int:
        """A concept that has partners in the split."""
        while True:
            concept = self.pick(self.concepts)
            if self._partners[concept]:
                return concept

    def _pair(self, first: int, second: int) -> Spec:
        return Spec((first, second) if self._rng.random() < 0.5 else (second, first), self.seed())

    def _singles(self, size: int) -> list[Spec]:
        return [Spec((concept,), self.seed()) for concept in self._shuffled(self.concepts)[:size]]

    def _chain(self, size: int) -> list[Spec]:
        """A walk over pairs of the split that uses no pair twice; jumps where it cannot go on."""
        if size > sum(map(len, self._partners.values())) // 2:
            return []
        used: set[frozenset[int]] = set()
        specs: list[Spec] = []
        current = self._linked()
        while len(specs) < size:
            following = self._unused_partner(current, used)
            if following is None:
                current = self._linked()
                continue
            used.add(frozenset((current, following)))
            specs.append(self._pair(current, following))
            current = following
        return specs

    def _unused_partner(self, concept: int, used: set[frozenset[int]]) -> int | None:
        for _ in range(8):
            partner = self.pick(self._partners[concept])
            if frozenset((concept, partner)) not in used:
                return partner
        free = [partner for partner in self._partners[concept] if frozenset((concept, partner)) not in used]
        return self.pick(free) if free else None

    def _group(self, first: int, preferred: Sequence[int]) -> list[int]:
        """Three or four concepts, fewer if none fits: the first two a pair of the split, all pairs allowed in it."""
        wanted = self.pick(GROUP_SIZES)
        close = [self.pick(preferred) for _ in range(6)] if preferred else []
        partners = [concept for concept in close if concept != first and self._splits[first, concept] == self._level]
        group = [first, partners[0] if partners else self.pick(self._partners[first])]
        while len(group) < wanted:
            mate = self._mate(group, close)
            if mate is None:
                break
            group.append(mate)
        return group

    def _mate(self, group: Sequence[int], preferred: list[int]) -> int | None:
        """A concept that may stand beside all of a group; takes from `preferred` what it tries."""

        def fits(concept: int) -> bool:
            return concept not in group and all(self._splits[concept, other] <= self._level for other in group)

        for _ in range(24):
            mate = preferred.pop() if preferred else self.pick(self.concepts)
            if fits(mate):
                return mate
        fitting = [concept for concept in self.concepts if fits(concept)]
        return self.pick(fitting) if fitting else None

    def _askable(self, group: Sequence[int]) -> Sequence[int]:
        """The concepts of a group that a question may be about: those of the split's pair."""
        return group if self._level == 0 else group[:2]

    def _question(self, group: Sequence[int], answer: int, named: int) -> Spec:
        """A row of things in which `answer` stands directly beside `named`."""
        side = SIDES[int(self._rng.random() * 2)]
        row = self._shuffled([concept for concept in group if concept not in (answer, named)])
        place = int(self._rng.random() * (len(row) + 1))
        row[place:place] = [answer, named] if side == "left" else [named, answer]
        return Spec(tuple(row), self.seed(), row.index(named), side)

    def _questions(self, size: int) -> list[Spec]:
        """Questions with different answers; the other things of each scene are answers of its neighbours."""
        specs: list[Spec] = []
        fresh = dict.fromkeys(self._shuffled(self.concepts))
        while fresh and len(specs) < size:
            first = next(iter(fresh))
            del fresh[first]
            if not self._partners[first]:
                continue
            group = self._group(first, list(fresh))
            askable = self._askable(group)
            for answer in [first, *(concept for concept in askable if concept in fresh)]:
                fresh.pop(answer, None)
                others = [concept for concept in askable if concept != answer]
                specs.append(self._question(group, answer, self.pick(others)))
        return specs

    def _scene(self, group: Sequence[int], seed: int) -> list[Spec]:
        """One scene and a search for every concept that may be asked about, the first one first."""
        row = self._shuffled(group)
        return [Spec(tuple(row), seed, row.index(concept)) for concept in self._askable(group)]

    def _searches(self, size: int) -> list[Spec]:
        """Searches for all things of scenes, each of which shares a thing with the scene before."""
        specs: list[Spec] = []
        first = self._linked()
        while len(specs) < size:
            group = self._group(first, self.concepts)
            specs += self._scene(group, self.seed())
            first = group[1]
        return specs


def allot(weights: dict[str, float], count: int, rng: random.Random) -> Iterator[str]:
    """Spreads `count` places over kinds in proportion to their weights, in shuffled order.

    Raises:
        ValueError: no weight is positive, or one is negative.
    """
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise ValueError(f"A mix needs weights of 0 or more with a positive sum, not {weights}")
    exact = {kind: count * weight / total for kind, weight in weights.items()}
    places = {kind: int(share) for kind, share in exact.items()}
    rest = sorted(weights, key=lambda kind: places[kind] - exact[kind])[: count - sum(places.values())]
    order = [kind for kind, n in places.items() for _ in range(n + (kind in rest))]
    rng.shuffle(order)
    yield from order
