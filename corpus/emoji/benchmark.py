"""The emoji world as a benchmark in MMMEB's row form: five tasks and the withheld concepts, in all languages."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from xvlm2vec.corpus.benchmark import Benchmark

from .specs import Spec, SpecSampler, draw, query_text
from .text import LANGUAGES, check_languages, instructions
from .world import EmojiWorld, check_split

WITHHELD = "withheld"
RENDERINGS = 5  # at most, per concept; smaller worlds have fewer rows
VG_CANDIDATES = 10
VG_ELSEWHERE = 3  # candidates that show the gold concept in other scenes
BENCHMARK_TASKS = ("c", "i2t", "t2i", "vqa", "vg", WITHHELD)

_CANDIDATES = {"c": "classes", "i2t": "captions", "t2i": "images", "vqa": "answers", "vg": "imgs", WITHHELD: "classes"}
_QUERY = {
    "c": ("id", "img"), "i2t": ("img",), "t2i": ("text",), "vqa": ("img", "question"), "vg": ("img", "text"),
    WITHHELD: ("id", "img"),
}  # fmt: skip


def emoji_benchmark(
    world: EmojiWorld, split: str = "test", languages: Sequence[str] | None = None, rows: int = 1000
) -> Benchmark:
    """Builds the benchmark of one split.

    Its tasks are c, i2t, t2i, vqa, vg, and "withheld": classification of the concepts with withheld names. These occur
    in the candidates of c and vqa, and in the queries of "withheld" only.

    Args:
        world: the emoji world.
        split: "test" for figures, "validation" for choices.
        languages: which languages to write, of those that have instructions; None stands for all of these.
        rows: of i2t and t2i, at most, and half of it of the others; worlds with few concepts give fewer.

    Raises:
        ValueError: an unknown split or language.
    """
    check_split(split)
    instructed = [language for language in world.config.languages if language in LANGUAGES]
    languages = check_languages(instructed if languages is None else languages, instructed)
    builder = _TaskBuilder(world, split)
    half = -(-rows // 2)  # retrieval wants a large pool; for the others, half the rows are as telling
    tasks = {
        "c": builder.classification("c", builder.shown, half),
        "i2t": builder.pairs("i2t", rows),
        "t2i": builder.pairs("t2i", rows),
        "vqa": builder.questions(half),
        "vg": builder.grounding(half),
    }
    if world.withheld:
        tasks[WITHHELD] = builder.classification(WITHHELD, sorted(world.withheld), half)
    written = {name: _write(world, name, task, languages) for name, task in tasks.items()}
    templates = {task: {lang: by_lang[lang] for lang in languages} for task, by_lang in instructions().items()}
    return Benchmark(written, builder.images(), templates)


@dataclass(frozen=True)
class _Task:
    """One task before its texts are written; all but `order` and `pool` have an entry per row.

    Attributes:
        specs: the scenes.
        paths: their images.
        order: places in the pool of candidates, the right one first: int32, shape (rows, candidates).
        pool: paths of the candidates where these are images, else None.
    """

    specs: list[Spec]
    paths: list[str]
    order: np.ndarray
    pool: list[str] | None = None


class _TaskBuilder:
    """Draws the tasks of one split, and keeps their images by path."""

    def __init__(self, world: EmojiWorld, split: str) -> None:
        self.world, self.split = world, split
        self.shown = [concept for concept in range(len(world)) if concept not in world.withheld]
        self._png: dict[str, bytes] = {}

    def images(self) -> Dataset:
        """All images as a data set with the columns `path` and `image`."""
        stored = [{"bytes": png, "path": path} for path, png in self._png.items()]
        features = Features({"path": Value("string"), "image": Image()})
        return Dataset.from_dict({"path": list(self._png), "image": stored}, features=features)

    def classification(self, name: str, concepts: Sequence[int], rows: int) -> _Task:
        """Every concept alone, several times; all names of the world are candidates."""
        sampler = SpecSampler(self.world, self.split, f"benchmark/{name}")
        count = min(rows, RENDERINGS * len(concepts))
        specs = [Spec((concepts[row % len(concepts)],), sampler.seed()) for row in range(count)]
        return _Task(specs, self._render(name, specs), _gold_first([spec.answer for spec in specs], len(self.world)))

    def pairs(self, name: str, rows: int) -> _Task:
        """Different pairs of the split; the captions (i2t) or images (t2i) of all rows are candidates."""
        inside = self.world.pair_splits[np.ix_(self.shown, self.shown)]
        available = int((inside == check_split(self.split)).sum()) // 2
        specs = self._sampler(name).block(name, min(rows, available))
        paths = self._render(name, specs)
        return _Task(specs, paths, _gold_first(range(len(specs)), len(specs)), paths if name == "t2i" else None)

    def questions(self, rows: int) -> _Task:
        """What stands beside what; all names of the world are candidates, those of the scene among them."""
        sampler = self._sampler("vqa")
        specs = [sampler.asked_about("vqa") for _ in range(min(rows, RENDERINGS * len(self.shown)))]
        return _Task(specs, self._render("vqa", specs), _gold_first([spec.answer for spec in specs], len(self.world)))

    def grounding(self, rows: int) -> _Task:
        """Which crop shows the thing? Other things of the scene and the same thing in other scenes are candidates."""
        sampler = self._sampler("vg")
        specs = [sampler.asked_about("vg") for _ in range(min(rows, RENDERINGS * len(self.shown)))]
        paths: list[str] = []
        crops: list[str] = []
        places: list[list[int]] = []  # of each scene's crops in the pool
        elsewhere: dict[int, list[int]] = {}
        for row, spec in enumerate(specs):
            scene, image = draw(self.world, spec)
            paths.append(self._keep(f"vg-{row:06d}", image))
            places.append(list(range(len(crops), len(crops) + len(scene.objects))))
            for number, thing in enumerate(scene.objects):
                elsewhere.setdefault(thing.concept, []).append(len(crops))
                crops.append(self._keep(f"vg-{row:06d}-{number}", self.world.crop(image, thing)))
        rng = random.Random(f"{self.world.config.seed}/{self.split}/benchmark/vg/candidates")
        order = [
            _crop_candidates(spec, scene_crops, elsewhere[spec.answer], len(crops), rng)
            for spec, scene_crops in zip(specs, places, strict=True)
        ]
        return _Task(specs, paths, np.array(order, np.int32), crops)

    def _sampler(self, task: str) -> SpecSampler:
        return SpecSampler(self.world, self.split, f"benchmark/{task}", self.shown)

    def _render(self, task: str, specs: Sequence[Spec]) -> list[str]:
        return [self._keep(f"{task}-{row:06d}", draw(self.world, spec)[1]) for row, spec in enumerate(specs)]

    def _keep(self, name: str, image: PILImage.Image) -> str:
        """Keeps an image as PNG, and gives its path."""
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=1)
        path = f"images/{name}.png"
        self._png[path] = buffer.getvalue()
        return path


def _crop_candidates(spec: Spec, crops: Sequence[int], same: Sequence[int], pool: int, rng: random.Random) -> list[int]:
    """The right crop, the others of its scene, the same concept elsewhere, and random ones: places in the pool."""
    gold = crops[spec.asked]
    chosen = [gold, *(place for place in crops if place != gold)]
    others = [place for place in same if place not in crops]
    chosen += rng.sample(others, min(VG_ELSEWHERE, len(others)))
    while len(chosen) < min(VG_CANDIDATES, pool):
        place = int(rng.random() * pool)
        if place not in chosen:
            chosen.append(place)
    return chosen


def _gold_first(gold: Sequence[int], pool: int) -> np.ndarray:
    """For every row the gold place and then all others in pool order: int32, shape (rows, pool)."""
    right = np.fromiter(gold, np.int32)[:, None]
    rest = np.arange(pool - 1, dtype=np.int32)[None]
    return np.hstack([right, rest + (rest >= right)])


def _write(world: EmojiWorld, name: str, task: _Task, languages: Sequence[str]) -> DatasetDict:
    """One task in every language."""
    form = "c" if name == WITHHELD else name
    images = None if task.pool is None else _candidates(task.pool, task.order)  # the same in all languages
    columns = {**dict.fromkeys(_QUERY[name], Value("string")), _CANDIDATES[name]: List(Value("string"))}
    schema = Features(columns).arrow_schema
    ids = [f"{name}-{row:06d}" for row in range(len(task.specs))]
    written = {}
    for language in languages:
        texts = [query_text(world, form, spec, language) for spec in task.specs]
        contents = {"id": ids, "img": task.paths, "text": texts, "question": texts}
        arrays = [pa.array(contents[column], pa.string()) for column in _QUERY[name]]
        pool = _text_pool(world, form, task, language) if task.pool is None else task.pool
        candidates = _candidates(pool, task.order) if images is None else images
        table = pa.Table.from_arrays([*arrays, candidates], schema=schema)
        written[language] = Dataset(table, fingerprint=_fingerprint([*ids, *task.paths, *texts, *pool], task.order))
    return DatasetDict(written)


def _fingerprint(texts: Sequence[str], order: np.ndarray) -> str:
    """Identifies a table by its small parts; `datasets` would spend seconds on hashing a million candidates."""
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=8)
    digest.update(order.tobytes())
    return digest.hexdigest()


def _candidates(pool: Sequence[str], order: np.ndarray) -> pa.ListArray:
    """The candidates of all rows, taken from the pool by Arrow: building them in Python would take a minute."""
    values = pa.array(pool, pa.string()).take(pa.array(order.ravel()))
    offsets = np.arange(0, order.size + 1, order.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _text_pool(world: EmojiWorld, form: str, task: _Task, language: str) -> Sequence[str]:
    """The candidates of a task with text targets: all captions of its rows, or all names of the world."""
    if form == "i2t":
        return [world.caption(spec.concepts, language) for spec in task.specs]
    return world.names(language)
