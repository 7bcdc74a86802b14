"""The emoji world: things with names in many languages, scenes drawn on the fly, splits that do not leak."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from .scene import Painter, Scene, SceneObject, compose
from .text import DATA_FOLDER, LANGUAGES, all_languages, check_languages, join_names, more_languages

TABLE = DATA_FOLDER / "emoji.parquet"
MORE_NAMES, TWITTER = DATA_FOLDER / "more_names.parquet", DATA_FOLDER / "twitter.parquet"
STYLES = ("noto", "twitter")
SPLITS = ("train", "validation", "test")
REBUILD = (
    "Reinstall the package, or rebuild the table with "
    "`pip install 'xvlm2vec[world]' && xvlm2vec corpus build-emoji /path/to/NotoColorEmoji.ttf`."
)


@dataclass(frozen=True)
class EmojiWorldConfig:
    """What a world holds; equal configurations give equal worlds.

    Attributes:
        concepts: how many concepts, taken from the head of the table; those that lack a name of their own in one of
            the further languages (`text.more_languages`) are passed over.
        image_size: side of the images in pixels.
        seed: decides which pairs and which concepts are held out, and all images.
        languages: the languages of the world, English among them.
        taught_languages: languages for distillation; those outside `languages` are left out.
        control_languages: languages that are evaluated and never taught; those outside `languages` are left out.
        withheld_concepts: how many concepts have names that distillation never shows in `withheld_languages`;
            at most a twelfth of the concepts, so that small worlds withhold fewer.
        withheld_languages: see above; those that are not taught are left out.
        validation_share: share of the unordered pairs of concepts kept for validation.
        test_share: share of the unordered pairs of concepts kept for test.
        style: who drew the emoji, one of `STYLES`; everything else does not depend on it.
    """

    concepts: int = 300
    image_size: int = 48
    seed: int = 0
    languages: tuple[str, ...] = LANGUAGES
    taught_languages: tuple[str, ...] = ("de", "fr", "es", "it", "pt", "id", "ru", "fa", "ar", "zh", "ja")
    control_languages: tuple[str, ...] = ("tr", "ko")
    withheld_concepts: int = 24
    withheld_languages: tuple[str, ...] = ("de", "ja", "ar", "fa")
    validation_share: float = 0.05
    test_share: float = 0.10
    style: str = STYLES[0]

    def __post_init__(self) -> None:
        self._settle("languages", all_languages())
        if "en" not in self.languages:
            raise ValueError("The languages of the emoji world must contain 'en', the teacher's language")
        self._settle("taught_languages", self.languages)
        self._settle("control_languages", self.languages)
        self._settle("withheld_languages", self.taught_languages)
        both = sorted(set(self.taught_languages) & set(self.control_languages))
        if both:
            raise ValueError(f"Languages cannot be both taught and control: {', '.join(both)}")
        if self.style not in STYLES:
            raise ValueError(f"The emoji world is drawn in the styles {', '.join(STYLES)}, not {self.style!r}")
        if self.concepts < 16 or self.image_size < 16:
            raise ValueError(
                f"A world needs 16 concepts and 16 pixels or more, not {self.concepts} and {self.image_size}"
            )
        if not 0 < self.test_share + self.validation_share < 0.5:
            raise ValueError("Validation and test together must hold back more than 0 and less than 0.5 of the pairs")

    def _settle(self, field: str, kept: Sequence[str]) -> None:
        """Checks a field's language codes and keeps those in `kept`, without repetitions."""
        codes = dict.fromkeys(check_languages(getattr(self, field)))
        object.__setattr__(self, field, tuple(code for code in codes if code in kept))


class EmojiWorld:
    """Concepts, their names, the splits, and images on demand. Immutable; pickles as its configuration.

    Concepts are numbered from 0 to `len(world) - 1`. Use `EmojiWorld.load`.

    Attributes:
        config: what the world was made from.
        ids: code point of every concept.
        emoji: every concept as an emoji character.
        withheld: the concepts whose names are withheld from distillation in `config.withheld_languages`.
    """

    def __init__(self, config: EmojiWorldConfig, rows: Sequence[dict[str, Any]], table: Path = TABLE) -> None:
        self.config = config
        self.ids = tuple(row["id"] for row in rows)
        self.emoji = tuple(row["emoji"] for row in rows)
        self._names = {language: tuple(row[f"name_{language}"] for row in rows) for language in config.languages}
        self._table = table
        self._painter = Painter([row["sprite"] for row in rows], config.image_size)
        ranked = sorted(range(len(rows)), key=lambda concept: _digest(f"{config.seed}/withheld/{self.ids[concept]}"))
        self.withheld = frozenset(ranked[: min(config.withheld_concepts, len(rows) // 12)])

    @classmethod
    def load(cls, config: EmojiWorldConfig | None = None, table: Path = TABLE) -> EmojiWorld:
        """Reads the table that ships with the package.

        Args:
            config: what the world shall hold; None stands for the default.
            table: another table, as `build_emoji_table` writes it.

        Raises:
            FileNotFoundError: the table is missing.
            ValueError: the table is damaged, or has fewer concepts than asked for.
        """
        config = config or EmojiWorldConfig()
        return cls(config, _read_table(Path(table), config), Path(table))

    def __reduce__(self) -> tuple[Any, ...]:
        return EmojiWorld.load, (self.config, self._table)

    def __deepcopy__(self, memo: dict[int, Any]) -> EmojiWorld:
        return self

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"EmojiWorld({self.config})"

    def name(self, concept: int, language: str) -> str:
        """The name of a concept.

        Raises:
            ValueError: the world does not have this language.
        """
        if language not in self._names:
            check_languages([language], self.config.languages)
        return self._names[language][concept]

    def names(self, language: str) -> tuple[str, ...]:
        """The names of all concepts, in order."""
        check_languages([language], self.config.languages)
        return self._names[language]

    def caption(self, concepts: Sequence[int], language: str) -> str:
        """The names of concepts joined by the language's "and"."""
        return join_names([self.name(concept, language) for concept in concepts], language)

    def may_name(self, concept: int, language: str) -> bool:
        """Whether distillation may show the name of this concept in this language."""
        return concept not in self.withheld or language not in self.config.withheld_languages

    @cached_property
    def pair_splits(self) -> np.ndarray:
        """Split of every unordered pair, an index into `SPLITS`: int8 (concepts, concepts), -1 on the diagonal."""
        test = round(1000 * self.config.test_share)
        held_out = test + round(1000 * self.config.validation_share)
        splits = np.full((len(self), len(self)), -1, np.int8)
        for a in range(len(self)):
            for b in range(a):
                low, high = sorted((self.ids[a], self.ids[b]))
                place = zlib.crc32(f"{self.config.seed}:{low}:{high}".encode()) % 1000
                splits[a, b] = splits[b, a] = 2 if place < test else 1 if place < held_out else 0
        return splits

    def split_of(self, first: int, second: int) -> str:
        """The split an unordered pair of different concepts belongs to."""
        if first == second:
            raise ValueError(f"A pair needs two different concepts, not {first} twice")
        return SPLITS[self.pair_splits[first, second]]

    def scene_seed(self, split: str, stream: str, index: int) -> int:
        """A seed in [0, 2^62) for one rendering; its remainder by 4 is the split, so no two splits share a rendering.

        Args:
            split: one of `SPLITS`.
            stream: a name that sets sequences apart, such as "contrast/0".
            index: the place in the sequence.
        """
        number = int.from_bytes(_digest(f"{self.config.seed}/{split}/{stream}/{index}"), "big") >> 4
        return number << 2 | check_split(split)

    def compose(self, concepts: Sequence[int], seed: int) -> Scene:
        """A scene of one to four concepts from left to right; everything else follows from the seed."""
        return compose(concepts, seed)

    def render(self, scene: Scene) -> Image.Image:
        """Draws a scene as an RGB image, `config.image_size` pixels square."""
        return self._painter.paint(scene)

    def crop(self, image: Image.Image, thing: SceneObject) -> Image.Image:
        """Cuts one thing out of a rendered scene and enlarges it to `config.image_size` pixels square."""
        return self._painter.crop(image, thing)


def teaching_world(
    taught: Sequence[str] | None,
    controls: Sequence[str] | None = None,
    *,
    known: Sequence[str] = LANGUAGES,
    **settings: Any,
) -> EmojiWorld:
    """A world of English, languages to teach, and others that are evaluated only.

    Args:
        taught: Codes; None stands for the world's own.
        controls: Codes, of which those that are taught are left out; None stands for the world's own.
        known: Codes that may be taught.
        settings: Further fields of `EmojiWorldConfig`.

    Raises:
        ValueError: A language is unknown, English is to be taught, or a number does not fit.
    """
    usual = EmojiWorldConfig()
    taught = check_languages(taught or usual.taught_languages, known)
    if "en" in taught:
        raise ValueError("English is what the teacher knows; leave it out of --languages.")
    controls = tuple(code for code in (usual.control_languages if controls is None else controls) if code not in taught)
    config = EmojiWorldConfig(
        **settings, languages=("en", *taught, *controls), taught_languages=taught, control_languages=controls
    )
    return EmojiWorld.load(config)


def check_split(split: str) -> int:
    """The index of a split.

    Raises:
        ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    return SPLITS.index(split)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _read_table(table: Path, config: EmojiWorldConfig) -> list[dict[str, Any]]:
    """The first rows of the table, with the key `sprite` added: the decoded image."""
    if not table.is_file():
        raise FileNotFoundError(f"The emoji table {table} is missing. {REBUILD}")
    further = [language for language in config.languages if language in more_languages()]
    names = [f"name_{language}" for language in config.languages if language not in further]
    columns = ["id", "emoji", "image", *names]
    try:
        rows = pq.read_table(table, columns=columns).to_pylist()
        missing = [column for column in columns if any(row.get(column) is None for row in rows)]
        if further:
            rows = _joined(rows, MORE_NAMES, [f"name_{language}" for language in further])
        if config.style != STYLES[0]:
            rows = _joined(rows, TWITTER, ["image"])
        if len(rows) >= config.concepts:
            rows = rows[: config.concepts]
            rows = [{**row, "sprite": Image.open(io.BytesIO(row["image"])).convert("RGBA")} for row in rows]
    except (pa.ArrowException, OSError, ValueError, TypeError, SyntaxError) as error:
        raise ValueError(f"The emoji table {table} is damaged ({error}). {REBUILD}") from error
    if missing or not rows:
        raise ValueError(f"The emoji table {table} lacks {', '.join(missing) or 'any row'}. {REBUILD}")
    if len(rows) < config.concepts:
        raise ValueError(
            f"The emoji table {table} has {len(rows)} concepts, fewer than the {config.concepts} asked for"
        )
    return rows


def _joined(rows: list[dict[str, Any]], table: Path, columns: list[str]) -> list[dict[str, Any]]:
    """The rows that another table has all of these columns for, with its values."""
    more = {row.pop("id"): row for row in pq.read_table(table, columns=["id", *columns]).to_pylist()}
    return [{**row, **more[row["id"]]} for row in rows if None not in more.get(row["id"], {"": None}).values()]
