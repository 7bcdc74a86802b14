"""One interface to every model that embeds texts and pictures, and the embedding of distinct rows, each once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from xvlm2vec.common.store import EmbeddingStore, content_digest, row_key

from .ranking import RankingTask, Row

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

Vectors = npt.NDArray[np.float32]
EmbedFunction = Callable[[list[str | None], "list[Image.Image | None]"], Any]


@runtime_checkable
class Encoder(Protocol):
    """What the runner needs of a model.

    Attributes:
        name: Name in results.
        fingerprint: Changes whenever the vectors would.
    """

    name: str
    fingerprint: str

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed rows as float32 `(N, D)`; `images` has a picture or a path for each `row.image`."""
        ...


class ModelEncoder:
    """An `XVLM2VecModel`.

    Args:
        model: The model.
        processor: Its processor, if it was not saved beside the weights.
        name: Name in results (default: where the model came from).
        dim: Shorten vectors to this many dimensions.
        max_tokens_per_batch: Rows times padded length of one forward pass.
    """

    def __init__(
        self,
        model: XVLM2VecModel,
        processor: XVLM2VecProcessor | None = None,
        *,
        name: str | None = None,
        dim: int | None = None,
        max_tokens_per_batch: int = 16_384,
    ) -> None:
        self.model = model
        self.processor = processor or model.processor
        self.name = name or model.config.name_or_path or type(model).__name__
        self.dim = dim
        self.max_tokens_per_batch = max_tokens_per_batch
        settings = {"dim": dim, "config": _plain_config(model.config), "processor": _saved_digest(self.processor)}
        self.fingerprint = _fingerprint(settings, model.state_dict())

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed through `model.encode`, which sorts and batches by length."""
        vectors = self.model.encode(
            text=[row.text for row in rows],
            images=_pictures(rows, images),
            processor=self.processor,
            max_tokens_per_batch=self.max_tokens_per_batch,
            dim=self.dim,
            show_progress=False,
        )
        return np.asarray(vectors, dtype=np.float32)


class SentenceTransformerEncoder:
    """Any `SentenceTransformer`: of texts, of pictures, of both.

    Args:
        model: The model.
        name: Name in results.
        batch_size: Rows of one forward pass.
        dim: Shorten vectors to this many dimensions.
    """

    def __init__(
        self, model: SentenceTransformer, *, name: str | None = None, batch_size: int = 32, dim: int | None = None
    ) -> None:
        self.model = model
        self.name = name or str(model.model_card_data.base_model or type(model[0]).__name__)
        self.batch_size = batch_size
        self.dim = dim
        settings = {
            "dim": dim,
            "modules": [repr(module) for module in model],
            "prompts": model.prompts,
            "processor": _saved_digest(model.tokenizer),
        }
        self.fingerprint = _fingerprint(settings, model.state_dict())

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed texts, pictures and pairs in separate calls: most models refuse batches that mix them."""
        pictures = _pictures(rows, images)
        kinds = np.array([2 * (row.text is not None) + (row.image is not None) for row in rows])
        vectors: Vectors | None = None
        for kind in np.unique(kinds):
            chosen = np.flatnonzero(kinds == kind).tolist()
            part = self.model.encode(
                [_st_input(rows[i].text, pictures[i]) for i in chosen],
                batch_size=self.batch_size,
                truncate_dim=self.dim,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
            if vectors is None:
                vectors = np.empty((len(rows), part.shape[1]), dtype=np.float32)
            vectors[chosen] = part
        return vectors if vectors is not None else np.zeros((0, 0), dtype=np.float32)


class CallableEncoder:
    """A Python function `function(texts, images) -> (N, D)`, with None in either list where a row has no such part.

    Args:
        function: The function.
        name: Name in results.
        fingerprint: Names the function with all its settings; change it whenever the vectors change.
    """

    def __init__(self, function: EmbedFunction, *, name: str, fingerprint: str | None = None) -> None:
        self.function = function
        self.name = name
        self.fingerprint = fingerprint or f"callable:{name}"

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed rows by one call of the function."""
        return np.asarray(self.function([row.text for row in rows], _pictures(rows, images)), dtype=np.float32)


class _SourcedImages(Mapping[str, Any]):
    """Pictures by digest, fetched from the mapping that has them: none is held in memory here."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[Mapping[str, Any], str]] = {}

    def __getitem__(self, digest: str) -> Any:
        source, name = self.places[digest]
        return source[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class DistinctRows:
    """The distinct rows of many tasks: equal text and equal picture (by content) are one row, whatever the task.

    Attributes:
        keys: SHA-256 of each distinct row, in order of first use.
        rows: The rows; their `image` is the hex digest of the picture.
        images: Pictures, or paths to them, by that digest; read from their source each time.
    """

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.rows: list[Row] = []
        self.images = _SourcedImages()
        self._positions: dict[tuple[str | None, str | None], int] = {}
        self._digests: dict[tuple[int, str], str] = {}
        self._sources: dict[int, Mapping[str, Any]] = {}

    def add(self, rows: Sequence[Row], images: Mapping[str, Any]) -> npt.NDArray[np.int64]:
        """Add rows and return the position of each among the distinct ones.

        Raises:
            KeyError: `images` lacks a picture; names the row.
            ValueError: A row has neither text nor picture.
        """
        self._sources[id(images)] = images  # kept, so that the id is not given to another mapping
        return np.array([self._position(row, images) for row in rows], dtype=np.int64)

    def _position(self, row: Row, images: Mapping[str, Any]) -> int:
        digest = self._digest(row, images) if row.image is not None else None
        place = self._positions.setdefault((row.text, digest), len(self.rows))
        if place == len(self.rows):
            if row.text is None and digest is None:
                raise ValueError("a row has neither text nor picture")
            self.rows.append(Row(row.text, digest))
            self.keys.append(row_key(row.text, bytes.fromhex(digest) if digest else None))
        return place

    def _digest(self, row: Row, images: Mapping[str, Any]) -> str:
        name = (id(images), str(row.image))
        if name not in self._digests:
            try:
                digest = _digest(images, str(row.image)).hex()
            except KeyError:
                raise KeyError(f"there is no picture {row.image!r} for {row}") from None
            self.images.places.setdefault(digest, (images, str(row.image)))
            self._digests[name] = digest
        return self._digests[name]


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
    encoder: Encoder, distinct: DistinctRows, store: str | Path | None = None, chunk: int = 1024, progress: bool = True
) -> Vectors:
    """Embed each distinct row once, and none that the store has already.

    Args:
        encoder: The model.
        distinct: The rows.
        store: Folder of an `EmbeddingStore`; what was embedded before an interruption is read from it.
        chunk: Rows handed to the encoder, and written to the store, at a time.
        progress: Whether to show a bar.

    Returns:
        `(len(distinct.rows), D)` float32.

    Raises:
        ValueError: The encoder returned another number of rows, or a vector with a NaN; names the row.
    """
    cache = EmbeddingStore(store, encoder.fingerprint) if store is not None else None
    vectors: Vectors | None = None
    missing = [i for i, key in enumerate(distinct.keys) if cache is None or key not in cache]
    with tqdm(total=len(missing), desc=f"Embedding with {encoder.name}", unit="row", disable=not progress) as bar:
        for positions in _chunks(distinct, missing, chunk):
            rows = [distinct.rows[i] for i in positions]
            part = _checked(encoder.encode_rows(rows, distinct.images), rows, encoder.name)
            if cache is not None:
                cache.add([distinct.keys[i] for i in positions], part)
            else:
                if vectors is None:
                    vectors = np.empty((len(distinct.rows), part.shape[1]), dtype=np.float32)
                vectors[positions] = part
            bar.update(len(rows))
    if cache is not None:
        return cache.get(distinct.keys)
    return vectors if vectors is not None else np.zeros((0, 0), dtype=np.float32)


def as_encoder(model: Any, **kwargs: Any) -> Encoder:
    """Wrap a model: an `XVLM2VecModel`, a `SentenceTransformer`, a function; an `Encoder` stays as it is.

    Raises:
        TypeError: The object is none of these.
    """
    if isinstance(model, Encoder):
        return model
    classes = {cls.__name__ for cls in type(model).__mro__}
    if "XVLM2VecModel" in classes:  # by name: a model loaded through remote code has a class of its own
        return ModelEncoder(model, **kwargs)
    if "SentenceTransformer" in classes:
        return SentenceTransformerEncoder(model, **kwargs)
    if callable(model):
        return CallableEncoder(model, **{"name": getattr(model, "__name__", "callable"), **kwargs})
    raise TypeError(
        f"cannot embed with a {type(model).__name__}; pass an XVLM2VecModel, a SentenceTransformer, a function "
        "(texts, images) -> vectors, or an object with name, fingerprint and encode_rows"
    )


def open_picture(picture: Any) -> Image.Image:
    """A path's picture, decoded and in RGB; a `PIL.Image` as it is."""
    from xvlm2vec.modeling.pictures import load_picture

    return load_picture(picture) if isinstance(picture, str | Path) else picture


def _chunks(distinct: DistinctRows, positions: list[int], size: int) -> Iterator[list[int]]:
    """Rows that cost alike side by side: by kind and length, and those of one picture together."""
    rows = distinct.rows
    ordered = sorted(positions, key=lambda i: (rows[i].image or "", len(rows[i].text or "")))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _checked(vectors: Any, rows: Sequence[Row], name: str) -> Vectors:
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(rows):
        raise ValueError(f"{name} returned shape {array.shape} for {len(rows)} rows; expected ({len(rows)}, D)")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} returned a vector with a NaN or an infinity for {rows[int(np.argmin(finite))]}")
    return array


def _digest(images: Mapping[str, Any], name: str) -> bytes:
    """Digest of a picture, by the mapping's own `digest` if it knows a way that need not decode."""
    return images.digest(name) if hasattr(images, "digest") else content_digest(images[name])


def _pictures(rows: Sequence[Row], images: Mapping[str, Any]) -> list[Image.Image | None]:
    """The picture of each row, opened once: rows of one picture get the same object, so that its work can be shared."""
    keys = {row.image for row in rows if row.image is not None}
    opened = {key: open_picture(images[key]) for key in keys}
    return [opened[row.image] if row.image is not None else None for row in rows]


def _st_input(text: str | None, picture: Image.Image | None) -> Any:
    if not text or picture is None:  # an empty instruction beside a picture is none
        return text if picture is None else picture
    return {"text": text, "image": picture}


def _plain_config(config: Any) -> dict[str, Any]:
    """A model's settings without where it was loaded from."""
    values = config.to_diff_dict()
    return {name: value for name, value in values.items() if name not in {"_name_or_path", "transformers_version"}}


def _saved_digest(processor: Any) -> str:
    """SHA-256 of the files that a tokenizer or processor saves; empty for one that cannot be saved."""
    if not hasattr(processor, "save_pretrained"):
        return ""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _fingerprint(settings: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of settings and weights."""
    import torch

    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
