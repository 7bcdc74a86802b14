"""Vectors of the texts and images of pairs, by any encoder, each distinct one embedded once and kept in a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.columns import IMAGE_COLUMNS
from xvlm2vec.common.pairs import NO_PROMPTS, Pair, read_pair
from xvlm2vec.eval.embedding import DistinctRows, embed_distinct
from xvlm2vec.eval.ranking import Row
from xvlm2vec.modeling.rows import TextImageRow, is_several
from xvlm2vec.trainer.pair_collator import pair_key

from .encoders import load_encoder

if TYPE_CHECKING:
    from datasets import Dataset

    from xvlm2vec.eval.encoders import Encoder
    from xvlm2vec.eval.pool import VectorSource


@dataclass(frozen=True)
class NamedPair:
    """A pair whose texts and images are known by content.

    Attributes:
        pair: Its images are names that `StoredImages` knows.
        keys: What names the query, the positive and the negatives by their content.
    """

    pair: Pair
    keys: tuple[bytes, ...]


class StoredImages(Mapping[str, Any]):
    """The images of data sets, decoded whenever they are asked for; those of the last row are kept.

    Args:
        data: The data sets.
    """

    def __init__(self, data: Sequence[Dataset]) -> None:
        self.data = data
        self._place: tuple[int, int] | None = None
        self._row: dict[str, Any] = {}

    def row(self, number: int, index: int) -> dict[str, Any]:
        """A row with names in place of its images."""
        return {
            column: _names(value, f"{number}/{index}/{column}") if column in IMAGE_COLUMNS else value
            for column, value in self._read(number, index).items()
        }

    def _read(self, number: int, index: int) -> dict[str, Any]:
        if self._place != (number, index):
            self._place, self._row = (number, index), self.data[number][index]
        return self._row

    def __getitem__(self, name: str) -> Any:
        number, index, column, place = name.split("/")
        value = self._read(int(number), int(index))[column]
        return value[int(place)] if is_several(value) else value

    def __iter__(self) -> Iterator[str]:
        raise TypeError("images are read by their names")

    def __len__(self) -> int:
        return sum(map(len, self.data))


def _names(value: Any, where: str) -> Any:
    if value is None:
        return None
    if is_several(value):
        return [None if image is None else f"{where}/{place}" for place, image in enumerate(value)]
    return f"{where}/0"


def named_pairs(images: StoredImages, prompts: Mapping[str, str] = NO_PROMPTS) -> Iterator[NamedPair]:
    """All pairs of some data sets, one after the other."""
    for number, rows in enumerate(images.data):
        for index in range(len(rows)):
            pair = read_pair(images.row(number, index), f"Row {index}", prompts)
            sides = (pair.query, pair.positive, *pair.negatives)
            yield NamedPair(pair, tuple(_key(side, images) for side in sides))


def _key(side: TextImageRow, images: StoredImages) -> bytes:
    return pair_key(TextImageRow(side.text, tuple(images[name] for name in side.images)))


@dataclass(frozen=True)
class PairVectors:
    """Vectors by content.

    Attributes:
        places: Where the vector of each content stands.
        stored: All vectors, in memory or on disk.
    """

    places: Mapping[bytes, int]
    stored: VectorSource

    def vectors(self, keys: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """The vectors of contents.

        Raises:
            KeyError: There is none for one of them.
        """
        return np.asarray(self.stored[np.array([self.places[key] for key in keys], dtype=np.int64)], dtype=np.float32)


def embed_pairs(
    encoder: Encoder, data: Sequence[Dataset], store: str | Path, prompts: Mapping[str, str] = NO_PROMPTS
) -> PairVectors:
    """Embeds the queries, positives and negatives of data sets.

    Args:
        encoder: The model.
        data: The data sets.
        store: Folder of the store: what was embedded before an interruption is read from it.
        prompts: Instructions by the names of tasks.
    """
    images, distinct, places = StoredImages(data), DistinctRows(), {}
    for named in named_pairs(images, prompts):
        for key, side in zip(named.keys, (named.pair.query, named.pair.positive, *named.pair.negatives), strict=True):
            if key not in places:
                places[key] = int(distinct.add([_row(side)], images)[0])
    return PairVectors(places, embed_distinct(encoder, distinct, store))


def _row(side: TextImageRow) -> Row:
    image = side.images[0] if len(side.images) == 1 else side.images or None
    return Row(side.text or None, image)


def guide_vectors(
    source: str, data: Sequence[Dataset], store: str | Path, prompts: Mapping[str, str] = NO_PROMPTS
) -> PairVectors:
    """What a guide says of all texts and images of the rows.

    Args:
        source: The guide: any encoder, as `evaluate` takes it.
        data: The data sets.
        store: Folder of its vectors.
        prompts: Instructions by the names of tasks.
    """
    return embed_pairs(load_encoder(source), data, store, prompts)
