"""One interface to every model that embeds texts and images, and the embedding of distinct rows, each once."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from xvlm2vec.common.fingerprint import fingerprint, plain_config, saved_digest
from xvlm2vec.common.store import EmbeddingStore, StoredVectors, content_digest, row_key

from .abilities import EVERYTHING, IMAGE, PAIR, TEXT, row_kind, sentence_transformer_abilities
from .function_fingerprint import function_fingerprint
from .metrics import unit_rows
from .processes import ALONE, Processes, processes
from .ranking import RankingTask, Row

if TYPE_CHECKING:
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

CHUNK = 256  # rows handed to an encoder at a time
_SHARD, _SHARD_SECONDS = 1024, 20.0  # a shard is written when it has as many rows or is as old

Vectors = npt.NDArray[np.float32]
EmbedFunction = Callable[[list[str | None], list[Any]], Any]


@runtime_checkable
class Encoder(Protocol):
    """What the runner needs of a model.

    Attributes:
        name: Name in results.
        fingerprint: Changes whenever the vectors would; empty if that is not known, and then nothing is stored.

    It may have an attribute `embeds` with what it takes, of `abilities.EVERYTHING`; tasks that need more are then left
    out with the reason. An attribute `instructed` that is false says that it takes no instructions.
    """

    name: str
    fingerprint: str

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed rows as float32 `(N, D)`; `images` has an image or a path for each `row.image`."""
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
        settings = {"dim": dim, "config": plain_config(model.config), "processor": saved_digest(self.processor)}
        self.fingerprint = fingerprint(settings, model.state_dict())

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed through `model.encode`, which sorts and batches by length."""
        vectors = self.model.encode(
            text=[row.text for row in rows],
            images=row_images(rows, images),
            processor=self.processor,
            max_tokens_per_batch=self.max_tokens_per_batch,
            dim=self.dim,
            show_progress=False,
        )
        return np.asarray(vectors, dtype=np.float32)


class SentenceTransformerEncoder:
    """Any `SentenceTransformer`: of texts, of images, of both.

    A model of two towers, such as CLIP, has no vector for a text with an image: the sum of both unit vectors stands
    for it, as MMEB scores such models.

    Args:
        model: The model.
        name: Name in results.
        batch_size: Rows of one forward pass.
        dim: Shorten vectors to this many dimensions.

    Attributes:
        embeds: What the model takes (see `abilities`).
        joint: Whether a text with an image is one input to it.
        instructed: Whether it can be told what to do with an image, which takes a joint input.
    """

    def __init__(
        self, model: SentenceTransformer, *, name: str | None = None, batch_size: int = 32, dim: int | None = None
    ) -> None:
        self.model = model
        self.name = name or str(model.model_card_data.base_model or type(model[0]).__name__)
        self.batch_size = batch_size
        self.dim = dim
        self.embeds, self.joint = sentence_transformer_abilities(model)
        self.instructed = self.joint
        settings = {
            "dim": dim,
            "modules": [repr(module) for module in model],
            "prompts": model.prompts,
            "processor": saved_digest(model.tokenizer),
        }
        self.fingerprint = fingerprint(settings, model.state_dict())

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed texts, images and pairs in separate calls: most models refuse batches that mix them."""
        return encoded_by_kind(rows, images, self._encode_kind)

    def _encode_kind(self, kind: str, texts: list[str | None], images: list[Any]) -> Vectors:
        if kind == TEXT:
            return self._encode([self._text_input(text) for text in texts])
        if kind == IMAGE:
            return self._encode([{"image": p} if isinstance(p, list) else p for p in images])
        if kind == PAIR and not self.joint:
            return unit_rows(self._encode([self._text_input(text) for text in texts])) + unit_rows(self._encode(images))
        return self._encode([_joint_input(text, image) for text, image in zip(texts, images, strict=True)])

    def _encode(self, inputs: list[Any]) -> Vectors:
        return self.model.encode(
            inputs,
            batch_size=self.batch_size,
            truncate_dim=self.dim,
            convert_to_numpy=True,
            show_progress_bar=False,
        )

    def _text_input(self, text: str | None) -> Any:
        """A text as it is, or marked as one where the library would take it for the address of an image."""
        from sentence_transformers.base.modality import infer_modality

        return text if infer_modality(text, self.model.modalities) == "text" else {"text": text}


class CallableEncoder:
    """A Python function `function(texts, images) -> (N, D)`, with None in either list where a row has no such part.

    An entry of `images` is a `PIL.Image`, or a list of them where a row has several. The function may have attributes
    `embeds` and `instructed` (see `Encoder`).

    Args:
        function: The function.
        name: Name in results.
        fingerprint: Names the function with all its settings; change it whenever the vectors change (default: a digest
            of its code and of what that refers to; empty if it refers to what has no known contents, such as a model,
            and then nothing can be stored).
    """

    def __init__(self, function: EmbedFunction, *, name: str, fingerprint: str | None = None) -> None:
        self.function = function
        self.name = name
        self.fingerprint = fingerprint or function_fingerprint(function) or ""
        self.embeds = getattr(function, "embeds", EVERYTHING)
        self.instructed = getattr(function, "instructed", True)

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed rows by one call of the function."""
        return np.asarray(self.function([row.text for row in rows], row_images(rows, images)), dtype=np.float32)


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
        self._positions: dict[tuple[str | None, str | None], int] = {}
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
        place = self._positions.setdefault((row.text, digest), len(self.rows))
        if place == len(self.rows):
            if row.text is None and digest is None:
                raise ValueError("a row has neither text nor image")
            self.rows.append(Row(row.text, digest))
            self.keys.append(row_key(row.text, bytes.fromhex(digest) if digest else None))
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
            return _digest(images, name).hex()
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
        for some in share:
            rows = [distinct.rows[i] for i in some]
            yield some, checked_vectors(encoder.encode_rows(rows, distinct.images), rows, encoder.name)
            bar.update(len(rows))


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


def encoded_by_kind(
    rows: Sequence[Row], images: Mapping[str, Any], encode: Callable[[str, list[str | None], list[Any]], Vectors]
) -> Vectors:
    """Embed texts, images and pairs in a call each.

    Args:
        rows: The rows.
        images: Images by the names that rows give them.
        encode: Takes the kind, texts and images of rows of one kind; returns `(n, D)` float32.

    Returns:
        `(N, D)` float32 in the order of the rows; `(0, 0)` for no rows.
    """
    loaded = row_images(rows, images)
    kinds = np.array([row_kind(row) for row in rows])
    vectors: Vectors | None = None
    for kind in np.unique(kinds):
        chosen = np.flatnonzero(kinds == kind).tolist()
        part = encode(str(kind), [rows[i].text for i in chosen], [loaded[i] for i in chosen])
        if vectors is None:
            vectors = np.empty((len(rows), part.shape[1]), dtype=np.float32)
        vectors[chosen] = part
    return vectors if vectors is not None else np.zeros((0, 0), dtype=np.float32)


def open_image(image: Any) -> Image.Image:
    """The image of a path or of stored bytes, decoded and in RGB; a `PIL.Image` as it is.

    Raises:
        ValueError: It cannot be read; names the file, if it comes from one.
    """
    from xvlm2vec.modeling.images import load_image

    if not isinstance(image, str | Path | Mapping):
        return image
    file = image.get("path") if isinstance(image, Mapping) else image
    return load_image(image, name=str(file or "image"))


def _chunks(distinct: DistinctRows, positions: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows that cost alike side by side: by kind and length, and those of one image together."""
    rows = distinct.rows
    ordered = sorted(positions, key=lambda i: (rows[i].image or "", len(rows[i].text or "")))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def checked_vectors(vectors: Any, rows: Sequence[Row], name: str) -> Vectors:
    """What a model returned for some rows, as float32 `(N, D)`.

    Raises:
        ValueError: It has another shape, or a vector holds a NaN or an infinity; names the row.
    """
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(rows):
        raise ValueError(f"{name} returned shape {array.shape} for {len(rows)} rows; expected ({len(rows)}, D)")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} returned a vector with a NaN or an infinity for {rows[int(np.argmin(finite))]}")
    return array


def _digest(images: Mapping[str, Any], name: str) -> bytes:
    """Digest of an image, by the mapping's own `digest` if it knows a way that need not decode."""
    return images.digest(name) if hasattr(images, "digest") else content_digest(images[name])


def row_images(rows: Sequence[Row], images: Mapping[str, Any]) -> list[Any]:
    """The image of each row, the list of its images, or None.

    Each is opened once: rows of one image get the same object, so that its work can be shared.
    """
    opened = {key: _open_all(images, key) for key in {row.image for row in rows if row.image is not None}}
    return [opened[row.image] if row.image is not None else None for row in rows]


def _open_all(images: Mapping[str, Any], key: str | tuple[str, ...]) -> Any:
    found = images[key] if isinstance(key, str) else [images[name] for name in key]
    return [open_image(image) for image in found] if isinstance(found, list) else open_image(found)


def _joint_input(text: str | None, image: Any) -> dict[str, Any]:
    """An instruction that is empty is none."""
    return {"text": text, "image": image} if text else {"image": image}
