"""An on-disk store of embeddings: what a model has embedded once is never embedded again.

A store is a folder for each model (by fingerprint) with `meta.json` and shards. A shard is one `.npy` file of a
structured array (key, vector) whose name holds its row count and checksum. It is written under another name, flushed
and then renamed, so a killed process loses at most the rows of its last call. Shards never change, so several processes
may add to one store.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import re
import time
import tokenize
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import replaced_file, write_json

_SHARD = re.compile(r"(\d+)-([0-9a-f]{8})-[0-9a-f]{16}\.npy")
_DTYPE = "float32"
DRAFT_SECONDS = 3600
"""A draft of this age is no longer written: a living process needs seconds."""
META_FILE = "meta.json"


class StoreError(ValueError):
    """The store does not fit the model, or a file of it is damaged."""


def content_digest(image: Any) -> bytes:
    """SHA-256 of an image.

    Of the file's bytes for a path, of the bytes themselves if they are encoded (also in a dictionary as
    `datasets.Image` stores it), of mode, size and pixels for a `PIL.Image`.

    Raises:
        TypeError: The image is none of these.
    """
    if isinstance(image, Mapping):
        return content_digest(image["path"] if image.get("bytes") is None else image["bytes"])
    if isinstance(image, bytes | bytearray):
        return hashlib.sha256(image).digest()
    if isinstance(image, str | os.PathLike):
        with open(image, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    if hasattr(image, "tobytes") and hasattr(image, "mode"):
        head = f"{image.mode} {image.size}\n".encode()
        palette = bytes(image.getpalette() or ()) if image.mode == "P" else b""
        return hashlib.sha256(head + palette + image.tobytes()).digest()
    raise TypeError(f"an image must be a path, encoded bytes or a PIL image, not {type(image).__name__}")


def row_key(text: str | None, image: bytes | None = None, language: str | None = None) -> bytes:
    """SHA-256 (32 bytes) of what is embedded: text and digest of the image; None differs from empty.

    Args:
        text: The text.
        image: Digest of the image.
        language: Of the text, where an adapter speaks it.
    """
    digest = hashlib.sha256()
    for part in (text.encode() if text is not None else None, image, language.encode() if language else None):
        digest.update(b"-" if part is None else b"%d:" % len(part) + part)
    return digest.digest()


class EmbeddingStore:
    """Vectors of one model by row key.

    Args:
        folder: Root of the store, with a folder for each fingerprint.
        fingerprint: Names the model with its weights and settings.
        model: What people call the model, for `xvlm2vec cache`; an existing store keeps what it was given.

    Raises:
        StoreError: The store holds vectors of another width or type, or a damaged file.
    """

    def __init__(self, folder: str | Path, fingerprint: str, *, model: str = "") -> None:
        self.folder = Path(folder) / hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        self.fingerprint, self.model = fingerprint, model
        self.width = self._read_meta()
        self._shards: list[npt.NDArray[np.void]] = []
        self._starts: list[int] = []  # the number that the first row of each shard has among all rows
        self._places: dict[bytes, int] = {}
        self._open_shards()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def get(self, keys: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Read `(len(keys), width)` vectors from the memory-mapped shards.

        Raises:
            KeyError: A key is not stored.
        """
        return self._read(np.array([self._places[key] for key in keys], dtype=np.int64))

    def view(self, keys: Sequence[bytes]) -> StoredVectors:
        """The same vectors left on disk: read when they are asked for, so that they may exceed the memory.

        Raises:
            KeyError: A key is not stored.
        """
        return StoredVectors(self._read, np.array([self._places[key] for key in keys], dtype=np.int64), self.width or 0)

    def _read(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        vectors = np.empty((len(places), self.width or 0), dtype=np.float32)
        if not len(places):
            return vectors
        shards = np.searchsorted(self._starts, places, side="right") - 1
        order = np.argsort(shards, kind="stable")
        numbers, first = np.unique(shards[order], return_index=True)
        for number, rows in zip(numbers, np.split(order, first[1:]), strict=True):
            vectors[rows] = self._shards[number]["vector"][places[rows] - self._starts[number]]
            _release(self._shards[number])
        return vectors

    def add(self, keys: Iterable[bytes], vectors: npt.ArrayLike) -> None:
        """Append rows as one shard; keys that are stored already are left as they are.

        Raises:
            StoreError: Numbers differ, the width is another than the store's, or a vector holds a NaN or infinity.
            OSError: The disk is full or not writable; the store is as before.
        """
        names, array = list(keys), np.asarray(vectors)
        if array.ndim != 2 or len(array) != len(names):
            raise StoreError(f"{len(names)} keys need ({len(names)}, D) vectors, got shape {array.shape}")
        self._check_width(array.shape[1])
        new = {key: row for row, key in enumerate(names) if key not in self._places}
        if not new:
            return
        self._write_meta(array.shape[1])
        shard = np.empty(len(new), dtype=self._row_dtype())
        shard["key"] = np.frombuffer(b"".join(new), dtype="V32")
        shard["vector"] = array[list(new.values())]
        if not np.isfinite(shard["vector"]).all():
            raise StoreError(f"a vector holds a NaN, or a value that does not fit {_DTYPE}; nothing was stored")
        self._attach(self._write_shard(shard))

    def _write_shard(self, shard: npt.NDArray[np.void]) -> Path:
        content = shard.tobytes()
        name = f"{len(shard)}-{zlib.crc32(content):08x}-{hashlib.sha256(content).hexdigest()[:16]}.npy"
        with replaced_file(self.folder / name) as draft, open(draft, "wb") as file:
            np.save(file, shard)
        return self.folder / name

    def _open_shards(self) -> None:
        if not self.folder.is_dir():
            return
        for draft in self.folder.glob("*.tmp"):
            if time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
                draft.unlink(missing_ok=True)
        for path in sorted(self.folder.glob("*.npy")):
            self._attach(path)

    def _attach(self, path: Path) -> None:
        shard = self._map(path)
        start = self._starts[-1] + len(self._shards[-1]) if self._shards else 0
        self._shards.append(shard)
        self._starts.append(start)
        content = shard["key"].tobytes()
        for row in range(len(shard)):
            self._places.setdefault(content[32 * row : 32 * row + 32], start + row)
        _release(shard)

    def _map(self, path: Path) -> npt.NDArray[np.void]:
        """Memory-maps a shard that is as it was written; a damaged one stays, since no kill leaves such a file."""
        match = _SHARD.fullmatch(path.name)
        damaged = StoreError(f"{path} is damaged; delete it, and its rows are embedded again")
        if not match:
            raise StoreError(f"{path} is no file of this store; remove it")
        count, checksum = int(match[1]), int(match[2], 16)
        header = io.BytesIO()
        np.save(header, np.empty(0, dtype=self._row_dtype()))  # NumPy keeps room for any row count: one size for all
        if path.stat().st_size < header.tell() + count * self._row_dtype().itemsize:
            raise damaged
        try:
            shard = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError, SyntaxError, tokenize.TokenError) as error:  # what a bad header raises
            raise damaged from error
        if shard.shape != (count,) or shard.dtype != self._row_dtype() or zlib.crc32(shard) != checksum:
            raise damaged
        return shard

    def _row_dtype(self) -> np.dtype[np.void]:
        if self.width is None:
            raise StoreError(f"{self.folder} has shards but no meta.json; remove the folder")
        return np.dtype([("key", "V32"), ("vector", _DTYPE, (self.width,))])

    def _check_width(self, width: int) -> None:
        if self.width is not None and width != self.width:
            raise StoreError(
                f"the store {self.folder} holds vectors of width {self.width}, the model gives {width}; "
                "use another folder, or another fingerprint for another setting"
            )

    def _read_meta(self) -> int | None:
        path = self.folder / META_FILE
        if not path.exists():
            return None
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            width, dtype, fingerprint = int(meta["width"]), str(meta["dtype"]), meta["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} is damaged; remove the folder {self.folder}") from error
        if (dtype, fingerprint) != (_DTYPE, self.fingerprint):
            raise StoreError(f"{path} is of {fingerprint!r} in {dtype}, asked for {self.fingerprint!r} in {_DTYPE}")
        with suppress(OSError):  # its time tells when the store was last used
            os.utime(path)
        return width

    def _write_meta(self, width: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.width is None:
            meta = {"fingerprint": self.fingerprint, "width": width, "dtype": _DTYPE, "model": self.model}
            write_json(self.folder / META_FILE, meta)
            self.width = width


def rows_of_shard(path: Path) -> int | None:
    """How many rows a shard holds, by its name; `None` for any other file."""
    match = _SHARD.fullmatch(path.name)
    return int(match[1]) if match else None


class StoredVectors:
    """Chosen rows of a store in a chosen order, read from the disk whenever they are asked for.

    Attributes:
        shape: `(rows, width)`.
    """

    def __init__(self, read: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
                 places: npt.NDArray[np.int64], width: int) -> None:  # fmt: skip
        self._read, self._places = read, places
        self.shape = (len(places), width)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        return self._read(self._places[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)

    def select(self, rows: npt.NDArray[np.integer]) -> StoredVectors:
        """Some of the rows, still on disk."""
        return StoredVectors(self._read, self._places[rows], self.shape[1])


def _release(shard: npt.NDArray[np.void]) -> None:
    """Hands back the pages that reading brought into memory; the system keeps them in its cache while there is room."""
    mapped = shard.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
