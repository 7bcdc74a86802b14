"""Training rows of the emoji world, rendered when they are read.

Contrastive rows teach the English teacher, parallel rows distil it into other languages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from datasets import Dataset, Features, List, Value
from PIL import Image

from .specs import WHOLE, Spec, SpecSampler, allot, draw, draw_target, query, target_text
from .text import LANGUAGES, TASKS, check_languages, instruct, instructions, question
from .world import EmojiWorld

PARALLEL_MIX: Mapping[str, float] = {
    "name": 0.20, "caption": 0.15, "t2i": 0.15, "vqa": 0.10, "vg": 0.10, "c": 0.08, "i2t": 0.10, "image": 0.12,
}  # fmt: skip
PARALLEL_KINDS = tuple(PARALLEL_MIX)
TEXT_KINDS = ("name", "caption", "t2i")
NAMING_KINDS = (*TEXT_KINDS, "vg")
"""Kinds whose texts hold names, and nothing but names and an instruction: languages without instructions have these."""
SPEC_FEATURES = Features(
    {
        "kind": Value("string"),
        "concepts": List(Value("int16")),
        "asked": Value("int8"),
        "side": Value("string"),
        "seed": Value("int64"),
    }
)


def contrastive_rows(
    world: EmojiWorld, mix: Mapping[str, float], rows: int, batch_size: int, seed: int, split: str = "train"
) -> Dataset:
    """English query-target rows for contrastive training, with instructions as in evaluation.

    Every run of `batch_size` rows (the last one may be shorter) shares one task, holds different positives only, and is
    full of hard negatives; so read the rows in order. The stored columns are specifications; reading renders the
    columns of MMEB's training sets: `qry` (str), `qry_image` (image or None), `pos_text` (str), `pos_image` (image
    or None).

    Args:
        world: the emoji world.
        mix: share of the batches per task (c, i2t, t2i, vqa, vg).
        rows: how many rows.
        batch_size: of the contrastive loss.
        seed: another seed gives other rows.
        split: "train", "validation" or "test".

    Raises:
        ValueError: an unknown task or split, an empty mix, or a batch too large for the number of concepts.
    """
    specs = _contrastive_specs(world, mix, rows, batch_size, seed, split)
    return _store(specs).with_transform(_ContrastiveView(world))


def contrastive_curriculum(
    world: EmojiWorld, lessons: Sequence[tuple[int, Mapping[str, float]]], batch_size: int, seed: int
) -> Dataset:
    """Lessons one after the other, each as from `contrastive_rows`.

    Args:
        world: the emoji world.
        lessons: how many batches, and the share of the tasks in them.
        batch_size: of the contrastive loss.
        seed: another seed gives other rows.

    Raises:
        ValueError: as in `contrastive_rows`.
    """
    specs = chain.from_iterable(
        _contrastive_specs(world, mix, batches * batch_size, batch_size, f"{seed}/{lesson}", "train")
        for lesson, (batches, mix) in enumerate(lessons)
    )
    return _store(specs).with_transform(_ContrastiveView(world))


def _contrastive_specs(
    world: EmojiWorld, mix: Mapping[str, float], rows: int, batch_size: int, seed: int | str, split: str
) -> Iterator[tuple[str, Spec]]:
    _check_kinds(mix, TASKS)
    sampler = SpecSampler(world, split, f"contrast/{seed}")
    order = allot(dict(mix), -(-rows // batch_size), random.Random(f"contrast/{seed}"))
    blocks = ((task, sampler.block(task, batch_size)) for task in order)
    return islice(((task, spec) for task, block in blocks for spec in block), rows)


def parallel_rows(
    world: EmojiWorld,
    mix: Mapping[str, float] | None = None,
    rows: int = 10_000,
    languages: Sequence[str] | None = None,
    seed: int = 0,
    split: str = "train",
) -> Dataset:
    """Rows of a parallel corpus for distillation: English and all its translations, some with an image.

    The stored columns are specifications; reading renders exactly the columns of `schema.parallel_features`. A
    translation that would name a withheld concept in a language it is withheld from is left out, and so are those of
    instructions and questions in languages that have none.

    Args:
        world: the emoji world.
        mix: share of the rows per kind; None stands for `PARALLEL_MIX`, of which languages that all lack instructions
            have the `NAMING_KINDS` only. Kinds: `name`, `caption`, `t2i` (text only),
            `vqa`, `vg`, `c`, `i2t` (image and query), `image` (image, whole or cut out, and target instruction).
        rows: how many rows.
        languages: to translate into; None stands for the world's taught languages.
        seed: another seed gives other rows.
        split: "train", "validation" or "test".

    Raises:
        ValueError: an unknown kind, language or split, or an empty mix.
    """
    languages = world.config.taught_languages if languages is None else languages
    languages = check_languages(languages, world.config.languages)
    if mix is None:
        instructed = any(language in LANGUAGES for language in languages)
        mix = {kind: share for kind, share in PARALLEL_MIX.items() if instructed or kind in NAMING_KINDS}
    _check_kinds(mix, PARALLEL_KINDS)
    stream = f"parallel/{seed}"
    unnamed = world.withheld if set(languages) <= set(world.config.withheld_languages) else ()
    shown = [concept for concept in range(len(world)) if concept not in unnamed]
    drawers = _drawers(SpecSampler(world, split, stream, shown), SpecSampler(world, split, f"{stream}/images"))
    kinds = allot(dict(mix), rows, random.Random(stream))
    return _store((kind, drawers[kind]()) for kind in kinds).with_transform(
        _ParallelView(world, languages, split, seed)
    )


def rendered(dataset: Dataset, size: int = 256) -> Iterator[dict[str, Any]]:
    """The rows of a data set that renders batches, `size` at a time: what `stored.write_dataset` takes."""
    for start in range(0, len(dataset), size):
        batch = dataset[start : start + size]
        yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def tokenizer_texts(world: EmojiWorld, captions: int = 2000) -> Iterator[str]:
    """All names, instructions and questions and many captions, in every language of the world, to train a tokenizer.

    Languages without instructions have names and captions.

    Args:
        world: the emoji world.
        captions: training pairs, each written in every language.
    """
    sampler = SpecSampler(world, "train", "tokenizer")
    pairs = [sampler.pair().concepts for _ in range(captions)]
    for language in world.config.languages:
        yield from world.names(language)
        if language in LANGUAGES:
            for task in TASKS:
                yield from (template.replace("{text}", "") for template in instructions()[task][language].values())
            for concept in range(len(world)):
                yield question(language, "left" if concept % 2 else "right", world.name(concept, language))
        yield from (world.caption(pair, language) for pair in pairs)


def _check_kinds(mix: Mapping[str, float], allowed: Sequence[str]) -> None:
    unknown = [kind for kind in mix if kind not in allowed]
    if unknown or not mix:
        raise ValueError(f"Unknown entries in the mix: {unknown}; known: {', '.join(allowed)}")


def _store(specs: Iterator[tuple[str, Spec]]) -> Dataset:
    """The specifications as a data set with the columns of `SPEC_FEATURES`."""
    rows = [(kind, list(spec.concepts), spec.asked, spec.side, spec.seed) for kind, spec in specs]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(SPEC_FEATURES)
    return Dataset.from_dict(
        {name: list(values) for name, values in zip(SPEC_FEATURES, columns, strict=True)}, features=SPEC_FEATURES
    )


def _specs(batch: Mapping[str, list[Any]]) -> list[tuple[str, Spec]]:
    """The inverse of `_store` for a batch of rows."""
    columns = (batch[name] for name in SPEC_FEATURES)
    return [
        (kind, Spec(tuple(concepts), seed, asked, side))
        for kind, concepts, asked, side, seed in zip(*columns, strict=True)
    ]


def _drawers(named: SpecSampler, with_image: SpecSampler) -> dict[str, Callable[[], Spec]]:
    """How to draw a specification of every kind; `named` draws those whose texts name concepts."""
    images = (with_image.single, with_image.pair, lambda: with_image.asked_about("vg"))
    return {
        "name": named.single,
        "caption": named.pair,
        "t2i": named.pair,
        "vqa": lambda: named.asked_about("vqa"),
        "vg": lambda: named.asked_about("vg"),
        "c": with_image.single,
        "i2t": with_image.pair,
        "image": lambda: with_image.pick(images)(),
    }


@dataclass(frozen=True)
class _ContrastiveView:
    """Turns stored specifications into MMEB's training columns."""

    world: EmojiWorld

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        specs = _specs(batch)
        return {
            "qry": [query(self.world, task, spec, "en") for task, spec in specs],
            "qry_image": [None if task == "t2i" else draw(self.world, spec)[1] for task, spec in specs],
            "pos_text": [target_text(self.world, task, spec, "en") for task, spec in specs],
            "pos_image": [draw_target(self.world, task, spec) for task, spec in specs],
        }


@dataclass(frozen=True)
class _ParallelView:
    """Turns stored specifications into the columns of a parallel corpus."""

    world: EmojiWorld
    languages: tuple[str, ...]
    split: str
    seed: int

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        specs = _specs(batch)
        return {
            "id": [f"emoji-{self.split}-{self.seed}-{kind}-{spec.seed:016x}-{spec.asked}" for kind, spec in specs],
            "image": [self._image(kind, spec) for kind, spec in specs],
            "text_en": [self._text(kind, spec, "en") for kind, spec in specs],
            "translations": [self._translations(kind, spec) for kind, spec in specs],
            "source": [f"emoji/{kind}" for kind, _ in specs],
        }

    def _image(self, kind: str, spec: Spec) -> Image.Image | None:
        if kind in TEXT_KINDS:
            return None
        scene, image = draw(self.world, spec)
        return self.world.crop(image, scene.objects[spec.asked]) if kind == "image" and spec.asked != WHOLE else image

    def _text(self, kind: str, spec: Spec, language: str) -> str:
        if kind in ("name", "caption"):
            return self.world.caption(spec.concepts, language)
        if kind == "image":
            return instruct("t2i" if spec.asked == WHOLE else "vg", language, "target")
        return query(self.world, kind, spec, language)

    def _translations(self, kind: str, spec: Spec) -> list[dict[str, str]]:
        named = _named(kind, spec)
        having = [lang for lang in self.languages if kind in NAMING_KINDS or lang in LANGUAGES]
        kept = [lang for lang in having if all(self.world.may_name(concept, lang) for concept in named)]
        return [{"lang": lang, "text": self._text(kind, spec, lang)} for lang in kept]


def _named(kind: str, spec: Spec) -> tuple[int, ...]:
    """The concepts that the text of a parallel row names."""
    if kind in TEXT_KINDS:
        return spec.concepts
    return (spec.concepts[spec.asked],) if kind in ("vqa", "vg") else ()
