"""A corpus beside a benchmark or a folder: which rows hold its images or its texts."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from xvlm2vec.common.columns import LANG, TEXT, TRANSLATIONS
from xvlm2vec.common.image_marks import strip_marks
from xvlm2vec.common.workers import Here, WorkerError, Workers
from xvlm2vec.modeling.images import ImageError, load_image

from .hashes import SIDE, greys
from .images import Hashed, match_images
from .texts import TextIndex

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS = 512
"""Rows of a corpus that are compared at once."""


@dataclass(frozen=True)
class Match:
    """What a row of a corpus has in common with a benchmark.

    Attributes:
        row: Number of the row, counted from 0.
        id: Its id.
        kind: "image", or the language of a text.
        how: What one is of the other.
        value: How alike they are, 1 for the same.
        benchmark: Name of the image, or the text.
    """

    row: int
    id: str
    kind: str
    how: str
    value: float
    benchmark: str


@dataclass
class Contamination:
    """What a corpus has in common with a benchmark.

    Attributes:
        rows: Rows of the corpus.
        images: Images of the benchmark.
        texts: Texts of the benchmark that are long enough to tell.
        matches: What was found.
        unreadable: Images, of either side, that could not be read.
    """

    rows: int
    images: int
    texts: int
    matches: list[Match] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def contaminated(self) -> set[int]:
        """The rows that have something in common."""
        return {match.row for match in self.matches}

    def as_json(self) -> dict[str, Any]:
        """Counts, and all matches."""
        kinds = Counter("image" if match.kind == "image" else "text" for match in self.matches)
        return {
            "rows": self.rows,
            "contaminated": len(self.contaminated),
            "benchmark_images": self.images,
            "benchmark_texts": self.texts,
            "found": dict(kinds),
            "how": dict(Counter(match.how for match in self.matches).most_common()),
            "unreadable": self.unreadable,
            "matches": [asdict(match) for match in self.matches],
        }


def find_contamination(
    corpus: Dataset,
    images: Iterable[tuple[str, Any]],
    texts: Iterable[str],
    progress: bool = False,
    workers: Workers | None = None,
) -> Contamination:
    """Looks for a benchmark's images and texts in a parallel corpus.

    Args:
        corpus: The corpus.
        images: The benchmark's images, with their names: whatever `load_image` takes.
        texts: The benchmark's texts in any language.
        progress: Whether to show bars.
        workers: Read and compare the corpus, stretch by stretch; this process does it without them.

    Raises:
        WorkerError: A row cannot be compared; an image that cannot be read is only told.
    """
    index = TextIndex(texts)
    found = Contamination(len(corpus), 0, len(index))
    with Squares(found.unreadable) as theirs:
        for name, image in tqdm(images, desc="Benchmark", unit="image", disable=not progress):
            theirs.add(name, image)
        found.images = len(theirs.names)
        names = [str(name) for name in theirs.names]
        # As an array: a mapped file cannot be sent to a worker. No name holds it, so that it can be removed after.
        make = partial(Comparison, corpus, names=names, index=index)
        _compare(found, workers or Here(), partial(make, np.asarray(theirs.array())), progress)
    return found


def _compare(found: Contamination, workers: Workers, make: Callable[[], Comparison], progress: bool) -> None:
    """Adds what all stretches of the corpus have in common with the benchmark."""
    starts = range(0, found.rows, _ROWS)
    with tqdm(total=found.rows, desc="Corpus", unit="row", disable=not progress) as bar:
        for start, (matches, unreadable) in zip(starts, workers.map(starts, make), strict=True):
            found.matches += matches
            found.unreadable += unreadable
            bar.update(min(_ROWS, found.rows - start))


class Comparison:
    """Compares stretches of a corpus with a benchmark: what a worker does.

    Args:
        corpus: The corpus.
        squares: Greys of the benchmark's images.
        names: Their names.
        index: The benchmark's texts.
    """

    def __init__(self, corpus: Dataset, squares: npt.NDArray[np.uint8], names: Sequence[str], index: TextIndex) -> None:
        from datasets import Image

        self._corpus = corpus.cast_column("image", Image(decode=False))
        self._benchmark, self._names, self._index = Hashed(squares), names, index

    def __call__(self, start: int) -> tuple[list[Match], list[str]]:
        """What the rows from one on have in common with the benchmark, and which of their images cannot be read."""
        rows = range(start, min(start + _ROWS, len(self._corpus)))
        matches: list[Match] = []
        unreadable: list[str] = []
        held: list[tuple[int, str]] = []
        squares: list[npt.NDArray[np.uint8]] = []
        for number, row in zip(rows, self._corpus.select(rows), strict=True):
            try:
                matches += text_matches(number, row, self._index)
                square = None if row["image"] is None else _square(number, row["image"], unreadable)
            except Exception as error:
                raise WorkerError(f"row {number} ({row['id']}): {type(error).__name__}: {error}") from error
            if square is not None:
                squares.append(square)
                held.append((number, row["id"]))
        for match in match_images(np.stack(squares), self._benchmark) if squares else ():
            number, name = held[match.first]
            matches.append(Match(number, name, "image", match.how, match.likeness, self._names[match.second]))
        return sorted(matches, key=lambda match: match.row), unreadable


def text_matches(number: int, row: dict[str, Any], index: TextIndex) -> Iterator[Match]:
    """The texts of a row that are in a benchmark."""
    for code, text in [("en", row["text_en"]), *((item[LANG], item[TEXT]) for item in row[TRANSLATIONS] or ())]:
        match = index.find(strip_marks(text) or "")
        if match is not None:
            yield Match(number, row["id"], code, match.how, match.jaccard, match.text)


def _square(name: Any, image: Any, unreadable: list[str]) -> npt.NDArray[np.uint8] | None:
    """An image as a square of greys; None if it cannot be read, which is noted."""
    try:
        return greys(load_image(image, name=str(name)))
    except ImageError as error:
        unreadable.append(str(error))
        return None


class Squares:
    """Squares of greys in a temporary file: 4 kB for each image, however many there are.

    Args:
        unreadable: Gets the names of images that cannot be read, and why.

    Attributes:
        names: What each square is called.
    """

    def __init__(self, unreadable: list[str]) -> None:
        self.names: list[Any] = []
        self._unreadable = unreadable

    def __enter__(self) -> Squares:
        self._folder = tempfile.TemporaryDirectory(prefix="xvlm2vec-squares-")
        self._file = open(Path(self._folder.name) / "squares", "wb")
        self._array: npt.NDArray[np.uint8] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._array = None  # Windows removes no file that is mapped
        self._file.close()
        self._folder.cleanup()

    def add(self, name: Any, image: Any) -> None:
        """Takes an image; one that cannot be read is only told."""
        square = _square(name, image, self._unreadable)
        if square is not None:
            self._file.write(square.tobytes())
            self.names.append(name)

    def array(self) -> npt.NDArray[np.uint8]:
        """All squares, mapped from the file."""
        self._file.flush()
        if not self.names:
            return np.zeros((0, SIDE, SIDE), np.uint8)
        self._array = np.memmap(self._file.name, np.uint8, "r", shape=(len(self.names), SIDE, SIDE))
        return self._array


def without_rows(corpus: Dataset, rows: set[int]) -> Iterator[dict[str, Any]]:
    """The rows of a corpus but for some, images as they are stored."""
    from datasets import Image

    for number, row in enumerate(corpus.cast_column("image", Image(decode=False))):
        if number not in rows:
            yield row
