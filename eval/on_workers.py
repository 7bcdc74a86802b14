"""An encoder that several workers have: each embeds whole chunks, so that vectors are those of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from xvlm2vec.common.workers import WorkerError, Workers
from xvlm2vec.modeling.rows import BadRowsError

from .encoders import Encoder, Vectors
from .ranking import Row

Chunk = tuple[Sequence[Row], Mapping[str, Any]]
"""Rows, and what holds their images."""


class OnWorkers:
    """Gives chunks of rows to workers.

    Args:
        encoder: The model, as this process has it; gives name and fingerprint.
        load: Loads the same model in a worker.
        workers: The workers.
    """

    def __init__(self, encoder: Encoder, load: Callable[[], Encoder], workers: Workers) -> None:
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self._encoder, self._load, self._workers = encoder, load, workers

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embeds rows in this process."""
        return self._encoder.encode_rows(rows, images)

    def encode_chunks(self, chunks: Sequence[Sequence[Row]], images: Mapping[str, Any]) -> Iterator[Vectors]:
        """The vectors of each chunk, in their order.

        Raises:
            BadRowsError: The model refuses rows of the chunk whose turn it is.
            WorkerError: A worker failed.
        """
        items = [(rows, {name: images[name] for row in rows for name in row.images}) for rows in chunks]
        for vectors, refused in self._workers.map(items, partial(Embedding, self._load)):
            if refused is not None:
                raise refused
            yield vectors


class Embedding:
    """Embeds chunks with a model of its own: what a worker does.

    Args:
        load: Loads the model.
    """

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self._encoder = load()

    def __call__(self, chunk: Chunk) -> tuple[Vectors | None, BadRowsError | None]:
        """The vectors, or which rows the model refuses.

        Raises:
            WorkerError: It fails in another way; names the rows.
        """
        rows, images = chunk
        try:
            return self._encoder.encode_rows(rows, images), None
        except BadRowsError as error:
            return None, error
        except Exception as error:
            where = f"one of {len(rows)} rows from {str(rows[0])!r:.80} on"
            raise WorkerError(f"{where}: {type(error).__name__}: {error}") from error
