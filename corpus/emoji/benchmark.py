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

from .specs import Spec, SpecSampler, draw, query_text
from .text import check_languages, instructions
from .world import EmojiWorld, check_split

WITHHELD = "withheld"
RENDERINGS = 5  # at most, per concept; smaller worlds have fewer rows
VG_CANDIDATES = 10
VG_ELSEWHERE = 3  # candidates that show the gold concept in other scenes
BENCHMARK_TASKS = ("c", "i2t", "t2i", "vqa", "vg", WITHHELD)

_CANDIDATES = {"c": "classes", "i2t": "captions", "t2i": "images", "vqa": "answers", "vg": "imgs", WITHHELD: "classes"}
_QUERY = {
    "c": ("id", "img"),
    "i2t": ("img",),
    "t2i": ("text",),
    "vqa": ("img", "question"),
    "vg": ("img", "text"),
    WITHHELD: ("id", "img"),
}


@dataclass(frozen=True)
class EmojiBenchmark:
    """A benchmark ready to be evaluated, saved or pushed.

    Attributes:
        tasks: per task (c, i2t, t2i, vqa, vg and "withheld": c for the concepts with withheld names) a data set per
            language; row i shows the same scene in every language. Fields as in MMMEB; the first candidate is the right
            one.
        images: `path`, as the rows name them, and `image` (PNG).
        templates: the instructions, `{task: {language: {"query": ..., "target": ...}}}`.
    """

    tasks: dict[str, DatasetDict]
    images: Dataset
    templates: dict[str, dict[str, dict[str, str]]]


class _Gallery:
    """Collects rendered images under their paths."""

    def __init__(self, world: EmojiWorld) -> None:
        self.world = world
        self._png: dict[str, bytes] = {}

    def add(self, path: str, image: PILImage.Image) -> str:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=1)
        self._png[path] = buffer.getvalue()
        return path

    def dataset(self) -> Dataset:
        """The images as a data set with the columns `path` and `image`."""
        stored = [{"bytes": png, "path": path} for path, png in self._png.items()]
        features = Features({"path": Value("string"), "image": Image()})
        return Dataset.from_dict({"path": list(self._png), "image": stored}, features=features)


@dataclass(frozen=True)
class _Task:
    """One task before its texts are written.

    Attributes:
        specs: one per row.
        paths: the query's image per row; empty for t2i.
        order: places in the pool of candidates, the right one first: int32, shape (rows, candidates).
    """

    specs: list[Spec]
    paths: list[str]
    order: np.ndarray


def emoji_benchmark(
    world: EmojiWorld, split: str = "test", languages: Sequence[str] | None = None, rows: int = 1000
) -> EmojiBenchmark:
    """Builds the benchmark of one split.

    Withheld concepts occur in the candidates of c and vqa, and in the queries of the task "withheld" only.

    Args:
        world: the emoji world.
        split: "test" for figures, "validation" for choices.
        languages: which languages to write; None stands for all of the world.
        rows: of i2t and t2i, at most, and half of it of the others; worlds with few concepts give fewer.

    Raises:
        ValueError: an unknown split or language.
    """
    check_split(split)
    languages = check_languages(world.config.languages if languages is None else languages, world.config.languages)
    shown = [concept for concept in range(len(world)) if concept not in world.withheld]
    gallery = _Gallery(world)
    half = -(-rows // 2)  # retrieval wants a large pool; for the others, half the rows are as telling
    tasks = {
        "c": _classification(world, split, "c", shown, half, gallery),
        "i2t": _pairs(world, split, "i2t", shown, rows, gallery),
        "t2i": _pairs(world, split, "t2i", shown, rows, gallery),
        "vqa": _questions(world, split, shown, half, gallery),
    }
    tasks["vg"], crops = _grounding(world, split, shown, half, gallery)
    if world.withheld:
        tasks[WITHHELD] = _classification(world, split, WITHHELD, sorted(world.withheld), half, gallery)
    pools = {"t2i": [_path("t2i", row) for row in range(len(tasks["t2i"].specs))], "vg": crops}
    written = {name: _write(world, name, task, languages, pools.get(name)) for name, task in tasks.items()}
    templates = {task: {lang: by_lang[lang] for lang in languages} for task, by_lang in instructions().items()}
    return EmojiBenchmark(written, gallery.dataset(), templates)


def _path(task: str, row: int) -> str:
    return f"images/{task}-{row:06d}.png"


def _classification(
    world: EmojiWorld, split: str, name: str, concepts: Sequence[int], rows: int, gallery: _Gallery
) -> _Task:
    """Every concept alone, several times; all names of the world are candidates."""
    sampler = SpecSampler(world, split, f"benchmark/{name}")
    count = min(rows, RENDERINGS * len(concepts))
    specs = [Spec((concepts[row % len(concepts)],), sampler.seed()) for row in range(count)]
    return _Task(specs, _render(name, specs, gallery), _gold_first([spec.answer for spec in specs], len(world)))


def _pairs(world: EmojiWorld, split: str, name: str, concepts: Sequence[int], rows: int, gallery: _Gallery) -> _Task:
    """Different pairs of the split; the captions (i2t) or images (t2i) of all rows are candidates."""
    sampler = SpecSampler(world, split, f"benchmark/{name}", concepts)
    inside = world.pair_splits[np.ix_(concepts, concepts)]
    available = int((inside == check_split(split)).sum()) // 2
    specs = sampler.block(name, min(rows, available))
    return _Task(specs, _render(name, specs, gallery), _gold_first(range(len(specs)), len(specs)))


def _questions(world: EmojiWorld, split: str, concepts: Sequence[int], rows: int, gallery: _Gallery) -> _Task:
    """What stands beside what; all names of the world are candidates, those of the scene among them."""
    sampler = SpecSampler(world, split, "benchmark/vqa", concepts)
    specs = [sampler.asked_about("vqa") for _ in range(min(rows, RENDERINGS * len(concepts)))]
    return _Task(specs, _render("vqa", specs, gallery), _gold_first([spec.answer for spec in specs], len(world)))


def _grounding(
    world: EmojiWorld, split: str, concepts: Sequence[int], rows: int, gallery: _Gallery
) -> tuple[_Task, list[str]]:
    """Which crop shows the thing? The other things of the scene and the same thing in other scenes are candidates."""
    sampler = SpecSampler(world, split, "benchmark/vg", concepts)
    specs = [sampler.asked_about("vg") for _ in range(min(rows, RENDERINGS * len(concepts)))]
    crops: list[str] = []
    places: list[list[int]] = []  # of each scene's crops in the pool
    elsewhere: dict[int, list[int]] = {}
    paths = []
    for row, spec in enumerate(specs):
        scene, image = draw(world, spec)
        paths.append(gallery.add(_path("vg", row), image))
        places.append(list(range(len(crops), len(crops) + len(scene.objects))))
        for number, thing in enumerate(scene.objects):
            elsewhere.setdefault(thing.concept, []).append(len(crops))
            crops.append(gallery.add(f"images/vg-{row:06d}-{number}.png", world.crop(image, thing)))
    rng = random.Random(f"{world.config.seed}/{split}/benchmark/vg/candidates")
    order = [
        _crop_candidates(spec, places[row], elsewhere[spec.answer], len(crops), rng) for row, spec in enumerate(specs)
    ]
    return _Task(specs, paths, np.array(order, np.int32)), crops


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


def _render(task: str, specs: Sequence[Spec], gallery: _Gallery) -> list[str]:
    return [gallery.add(_path(task, row), draw(gallery.world, spec)[1]) for row, spec in enumerate(specs)]


def _gold_first(gold: Sequence[int], pool: int) -> np.ndarray:
    """For every row the gold place and then all others in pool order: int32, shape (rows, pool)."""
    right = np.fromiter(gold, np.int32)[:, None]
    rest = np.arange(pool - 1, dtype=np.int32)[None]
    return np.hstack([right, rest + (rest >= right)])


def _write(
    world: EmojiWorld, name: str, task: _Task, languages: Sequence[str], paths: Sequence[str] | None
) -> DatasetDict:
    """One task in every language; `paths` is the pool of candidates where these are images."""
    form = "c" if name == WITHHELD else name
    shared = None if paths is None else _candidates(paths, task.order)
    features = Features(
        {**{column: Value("string") for column in _QUERY[name]}, _CANDIDATES[name]: List(Value("string"))}
    )
    written = {}
    for language in languages:
        texts = [query_text(world, form, spec, language) for spec in task.specs]
        ids = [f"{name}-{row:06d}" for row in range(len(task.specs))]
        columns = {"id": ids, "img": task.paths, "text": texts, "question": texts}
        arrays = [pa.array(columns[column], pa.string()) for column in _QUERY[name]]
        pool = paths if paths is not None else _text_pool(world, form, task, language)
        candidates = shared if shared is not None else _candidates(pool, task.order)
        table = pa.Table.from_arrays([*arrays, candidates], schema=features.arrow_schema)
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
