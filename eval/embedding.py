"""The embedding of the distinct rows of many tasks, each once."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from xvlm2vec.common.store import EmbeddingStore, StoredVectors, content_digest, row_key

from . import encoders
from .encoders import Encoder, Vectors, checked_vectors, encode_chunks
from .processes import ALONE, Processes, processes
from .ranking import RankingTask, Row

_MOVED = ("CallableEncoder", "ModelEncoder", "SentenceTransformerEncoder", "as_encoder")  # read here for one release
CHUNK = 256  # rows handed to an encoder at a time
_SHARD, _SHARD_SECONDS = 1024, 20.0  # a shard is written when it has as many rows or is as old


class _SourcedImages(Mapping[str, Any]):
    """Images, or lists of them, by digest, fetched from the mapping that has them: none is held in memory here."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[Mapping[str, Any], str | tuple[str, ...]]] = {}

    def __getitem__(self, digest: str) -> Any:
        source, name = self.places[digest]
        return source[name] if isinstance(name, str) else [source[part] for part in name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class DistinctRows:
    """The distinct rows of many tasks: equal text and equal image (by content) are one row, whatever the task.

    Attributes:
        keys: SHA-256 of each distinct row, in order of first use.
        rows: The rows; their `image` is the hex digest of the image, or of all images of the row together.
        images: Images, or paths to them, or lists of these, by that digest; read from their source each time.
    """

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.rows: list[Row] = []
        self.images = _SourcedImages()
        self._positions: dict[tuple[str | None, str | None, str | None], int] = {}
        self._digests: dict[tuple[int, str | tuple[str, ...]], str] = {}
        self._sources: dict[int, Mapping[str, Any]] = {}

    def add(self, rows: Sequence[Row], images: Mapping[str, Any]) -> npt.NDArray[np.int64]:
        """Add rows and return the position of each among the distinct ones.

        Raises:
            KeyError: `images` lacks an image; names the row.
            ValueError: A row has neither text nor image.
        """
        self._sources[id(images)] = images  # kept, so that the id is not given to another mapping
        return np.array([self._position(row, images) for row in rows], dtype=np.int64)

    def _position(self, row: Row, images: Mapping[str, Any]) -> int:
        digest = self._digest(row, images) if row.image is not None else None
        place = self._positions.setdefault((row.text, digest, row.language), len(self.rows))
        if place == len(self.rows):
            if row.text is None and digest is None:
                raise ValueError("a row has neither text nor image")
            self.rows.append(Row(row.text, digest, row.language))
            self.keys.append(row_key(row.text, bytes.fromhex(digest) if digest else None, row.language))
        return place

    def _digest(self, row: Row, images: Mapping[str, Any]) -> str:
        image = row.image if row.image is not None else ()
        name = (id(images), image)
        if name not in self._digests:
            if isinstance(image, str):
                digest = self._image_digest(image, row, images)
            else:
                parts = "\n".join(self._image_digest(part, row, images) for part in image)
                digest = hashlib.sha256(parts.encode()).hexdigest()
            self.images.places.setdefault(digest, (images, image))
            self._digests[name] = digest
        return self._digests[name]

    def _image_digest(self, name: str, row: Row, images: Mapping[str, Any]) -> str:
        try:
            return content_digest(images[name]).hex()
        except KeyError:
            raise KeyError(f"there is no image {name!r} for {row}") from None


def distinct_rows(
    tasks: Sequence[RankingTask],
) -> tuple[DistinctRows, list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]]:
    """Collect the distinct rows of all tasks.

    Returns:
        The rows, and for each task where its queries and its candidates stand among them.
    """
    distinct = DistinctRows()
    places = [(distinct.add(task.queries, task.images), distinct.add(task.candidates, task.images)) for task in tasks]
    return distinct, places


def embed_distinct(
    encoder: Encoder, distinct: DistinctRows, store: str | Path | None = None, chunk: int = CHUNK, progress: bool = True
) -> Vectors | StoredVectors:
    """Embed each distinct row once, and none that the store has already.

    Args:
        encoder: The model.
        distinct: The rows.
        store: Folder of an `EmbeddingStore`; what was embedded before an interruption is read from it.
        chunk: Rows handed to the encoder at a time; a run that is killed loses these and what the last seconds brought.
        progress: Whether to show a bar.

    Returns:
        `(len(distinct.rows), D)` float32; with a store they stay on disk and are read when indexed.

    Raises:
        ValueError: The encoder returned another number of rows, or a vector with a NaN, which names the row; there is
            a store and the encoder has no fingerprint; or there are several processes and no store.
    """
    if store is not None:
        return _embed_stored(encoder, distinct, store, chunk, progress)
    if processes().count > 1:
        raise ValueError("several processes share their embeddings through a store; pass the folder of one")
    vectors: Vectors | None = None
    for positions, part in _embedded(encoder, distinct, range(len(distinct.rows)), chunk, progress):
        if vectors is None:
            vectors = np.empty((len(distinct.rows), part.shape[1]), dtype=np.float32)
        vectors[positions] = part
    return vectors if vectors is not None else np.zeros((0, 0), dtype=np.float32)


def _embed_stored(
    encoder: Encoder, distinct: DistinctRows, store: str | Path, chunk: int, progress: bool
) -> StoredVectors:
    """Embed what a store lacks; of several processes each takes a share, and all wait for the last."""
    if not encoder.fingerprint:
        raise ValueError(
            f"{encoder.name} refers to what cannot be told apart, so stored vectors could be another's; wrap it "
            'as as_encoder(function, fingerprint="...") and change that name with the vectors, or do without a store'
        )
    group = processes()
    cache = EmbeddingStore(store, encoder.fingerprint)
    missing = [i for i, key in enumerate(distinct.keys) if key not in cache]
    group.wait()  # until all have looked: the shares are cut from what is missing, which must be the same for all
    chunk = max(1, min(chunk, math.ceil(len(missing) / group.count)))
    writer = _Writer(cache)
    try:
        for positions, part in _embedded(encoder, distinct, missing, chunk, progress, group):
            writer.add([distinct.keys[i] for i in positions], part)
    finally:
        writer.flush()
    group.wait()
    if group.count > 1:
        cache = EmbeddingStore(store, encoder.fingerprint)
    return cache.view(distinct.keys)


class _Writer:
    """Writes what was embedded to a store in shards of a fair size, or in smaller ones where it comes slowly.

    One shard for each call of the encoder would be too many: a process may hold only so many files open.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        self.store = store
        self._start()

    def add(self, keys: list[bytes], vectors: Vectors) -> None:
        if self.parts and vectors.shape[1] != self.parts[0].shape[1]:
            self.flush()  # the store then says what does not fit
        self.keys += keys
        self.parts.append(vectors)
        if len(self.keys) >= _SHARD or time.monotonic() - self.started >= _SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.keys:
            self.store.add(self.keys, np.concatenate(self.parts))
        self._start()

    def _start(self) -> None:
        self.keys: list[bytes] = []
        self.parts: list[Vectors] = []
        self.started = time.monotonic()


def _embedded(
    encoder: Encoder,
    distinct: DistinctRows,
    positions: Sequence[int],
    chunk: int,
    progress: bool,
    group: Processes = ALONE,
) -> Iterator[tuple[list[int], Vectors]]:
    """Positions of rows and their vectors, chunk by chunk: this process's share of them."""
    share = list(_chunks(distinct, positions, chunk))[group.rank :: group.count]
    total = sum(map(len, share))
    with tqdm(total=total, desc=f"Embedding with {encoder.name}", unit="row",
              disable=not (total and progress and group.is_main)) as bar:  # fmt: skip
        chunks = [[distinct.rows[i] for i in some] for some in share]
        encoded = encode_chunks(encoder, chunks, distinct.images)
        for some, rows, vectors in zip(share, chunks, encoded, strict=True):
            yield some, checked_vectors(vectors, rows, encoder.name)
            bar.update(len(rows))


def _chunks(distinct: DistinctRows, positions: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows that cost alike side by side: by kind and length, and those of one image together."""
    rows = distinct.rows
    ordered = sorted(positions, key=lambda i: (rows[i].image or "", len(rows[i].text or "")))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{name} is in xvlm2vec.eval.encoders now", DeprecationWarning, stacklevel=2)
    return getattr(encoders, name)
