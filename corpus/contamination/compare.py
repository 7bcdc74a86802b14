"""A corpus beside a benchmark or a folder: which rows hold its images or its texts."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from xvlm2vec.common.columns import LANG, TEXT, TRANSLATIONS
from xvlm2vec.common.image_marks import strip_marks
from xvlm2vec.modeling.images import ImageError, load_image

from .hashes import SIDE, greys
from .images import match_images
from .texts import TextIndex

if TYPE_CHECKING:
    from datasets import Dataset


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
    corpus: Dataset, images: Iterable[tuple[str, Any]], texts: Iterable[str], progress: bool = False
) -> Contamination:
    """Looks for a benchmark's images and texts in a parallel corpus.

    Args:
        corpus: The corpus.
        images: The benchmark's images, with their names: whatever `load_image` takes.
        texts: The benchmark's texts in any language.
        progress: Whether to show bars.
    """
    from datasets import Image

    encoded = corpus.cast_column("image", Image(decode=False))
    index = TextIndex(texts)
    found = Contamination(len(encoded), 0, len(index))
    with ExitStack() as stack:
        theirs, ours = (stack.enter_context(Squares(found.unreadable)) for _ in range(2))
        for name, image in tqdm(images, desc="Benchmark", unit="image", disable=not progress):
            theirs.add(name, image)
        ids: dict[int, str] = {}
        for number, row in enumerate(tqdm(encoded, desc="Corpus", unit="row", disable=not progress)):
            found.matches += text_matches(number, row, index)
            if row["image"] is not None:
                ours.add(number, row["image"])
                ids[number] = row["id"]
        found.images = len(theirs.names)
        for match in match_images(ours.array(), theirs.array()):
            number, name = ours.names[match.first], theirs.names[match.second]
            found.matches.append(Match(number, ids[number], "image", match.how, match.likeness, str(name)))
    found.matches.sort(key=lambda match: match.row)
    return found


def text_matches(number: int, row: dict[str, Any], index: TextIndex) -> Iterator[Match]:
    """The texts of a row that are in a benchmark."""
    for code, text in [("en", row["text_en"]), *((item[LANG], item[TEXT]) for item in row[TRANSLATIONS] or ())]:
        match = index.find(strip_marks(text) or "")
        if match is not None:
            yield Match(number, row["id"], code, match.how, match.jaccard, match.text)


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
        try:
            square = greys(load_image(image, name=str(name)))
        except ImageError as error:
            self._unreadable.append(str(error))
            return
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
