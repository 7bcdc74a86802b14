"""One interface to every model that embeds texts and images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.fingerprint import fingerprint, plain_config, saved_digest

from .abilities import EVERYTHING, IMAGE, PAIR, TEXT, model_abilities, row_kind, sentence_transformer_abilities
from .function_fingerprint import function_fingerprint
from .metrics import unit_rows
from .pairs import sums_of_pairs
from .ranking import Row
from .row_images import file_of, opened_images, row_images
from .spoken import told_languages

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

BATCH_SIZE = 32  # rows with images of one call, whose images are decoded together

Vectors = npt.NDArray[np.float32]
EmbedFunction = Callable[[list[str | None], list[Any]], Any]


@runtime_checkable
class Encoder(Protocol):
    """What the runner needs of a model.

    Attributes:
        name: Name in results.
        fingerprint: Changes whenever the vectors would; empty if that is not known, and then nothing is stored.

    It may have an attribute `embeds`, a part of `abilities.EVERYTHING`, which says what it takes: tasks that need more
    are then left out with the reason. An attribute `instructed` that is false says that it takes no instructions. An
    attribute `tokenizer` lets the runner count the tokens of texts.
    """

    @property
    def name(self) -> str:
        """Name in results."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of weights and settings."""
        ...

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed rows as float32 `(N, D)`; `images` has an image, a path or encoded bytes for each `row.image`."""
        ...


@runtime_checkable
class ChunkEncoder(Protocol):
    """An encoder that takes many chunks at once, because it has others to give them to."""

    def encode_chunks(self, chunks: Sequence[Sequence[Row]], images: Mapping[str, Any]) -> Iterator[Vectors]:
        """The vectors of each chunk, in their order."""
        ...


def encode_chunks(encoder: Encoder, chunks: Sequence[Sequence[Row]], images: Mapping[str, Any]) -> Iterator[Vectors]:
    """The vectors of each chunk of rows, by any encoder, when they are asked for."""
    if isinstance(encoder, ChunkEncoder):
        yield from encoder.encode_chunks(chunks, images)
        return
    for rows in chunks:
        yield encoder.encode_rows(rows, images)


class ModelEncoder:
    """An `XVLM2VecModel`.

    Args:
        model: The model.
        processor: Its processor, if it was not saved beside the weights.
        name: Name in results (default: where the model came from).
        dim, instruction: See `XVLM2VecModel.encode`; the instruction is that of every row.
        max_tokens_per_batch: Rows times padded length of one forward pass.

    Attributes:
        embeds: What the model takes (see `abilities`); of two towers as of `SentenceTransformerEncoder`.
        instructed: Whether it can be told what to do with an image.
    """

    def __init__(
        self,
        model: XVLM2VecModel,
        processor: XVLM2VecProcessor | None = None,
        *,
        name: str | None = None,
        dim: int | None = None,
        max_tokens_per_batch: int = 16_384,
        instruction: str | None = None,
    ) -> None:
        self.model = model
        self.instruction = instruction
        self.processor = processor or model.processor
        self.name = name or model.config.name_or_path or type(model).__name__
        self.dim = dim
        self.max_tokens_per_batch = max_tokens_per_batch
        self.embeds, self.instructed = model_abilities(self.processor.recipe)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.processor.tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights and settings, computed when it is first asked for: all weights are read for it."""
        settings = {
            "dim": self.dim,
            "config": plain_config(self.model.config),
            "processor": saved_digest(self.processor),
            **({} if self.instruction is None else {"instruction": self.instruction}),
        }
        return fingerprint(settings, self.model.state_dict())

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed through `model.encode`, which sorts, batches by length, and decodes the images of one batch at a time.

        A pair of two towers is the sum of both unit vectors.

        Raises:
            BadRowsError: Rows cannot be embedded; names the files of their images.
        """
        if self.model.config.two_towers:
            return sums_of_pairs(rows, lambda parts: self._encode(parts, images))
        return self._encode(rows, images)

    def _encode(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        from xvlm2vec.modeling.rows import BadRowsError

        try:
            vectors = self.model.encode(
                text=[row.text for row in rows],
                images=row_images(rows, images),
                instruction=self.instruction,
                processor=self.processor,
                max_tokens_per_batch=self.max_tokens_per_batch,
                dim=self.dim,
                show_progress=False,
                **told_languages(rows),
            )
        except BadRowsError as error:
            raise BadRowsError(_with_files(error.problems, rows, images), error.count) from error
        return np.asarray(vectors, dtype=np.float32)


class SentenceTransformerEncoder:
    """Any `SentenceTransformer`, for texts, for images, or for both.

    A model of two towers, such as CLIP, has no vector for a text with an image: the sum of both unit vectors stands
    for it, as MMEB scores such models.

    Args:
        model: The model.
        name: Name in results.
        batch_size: Rows of one forward pass.
        dim: Shorten vectors to this many dimensions.
        instruction: Of every row, `encode`'s `prompt`.

    Attributes:
        embeds: What the model takes (see `abilities`).
        joint: Whether a text with an image is one input to it.
        instructed: Whether it can be told what to do with an image, which takes a joint input.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        name: str | None = None,
        batch_size: int = BATCH_SIZE,
        dim: int | None = None,
        instruction: str | None = None,
    ) -> None:
        self.model = model
        self.instruction = instruction
        self.name = name or str(model.model_card_data.base_model or type(model[0]).__name__)
        self.batch_size = batch_size
        self.dim = dim
        self.embeds, self.joint = sentence_transformer_abilities(model)
        self.instructed = self.joint

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, or the processor that has it; None where its first module has neither."""
        return getattr(self.model[0], "tokenizer", None)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights and settings, computed when it is first asked for."""
        settings = {
            "dim": self.dim,
            "modules": [repr(module) for module in self.model],
            "prompts": self.model.prompts,
            **({} if self.instruction is None else {"instruction": self.instruction}),
            "processor": saved_digest(self.model.tokenizer),
        }
        return fingerprint(settings, self.model.state_dict())

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed texts, images and pairs in separate calls: most models refuse batches that mix them."""
        return encoded_by_kind(rows, images, self._encode_kind, self.batch_size)

    def _encode_kind(self, kind: str, texts: list[str | None], images: list[Any]) -> Vectors:
        if kind == TEXT:
            return self._encode([self._text_input(text) for text in texts])
        if kind == IMAGE:
            return self._encode([{"image": p} if isinstance(p, list) else p for p in images])
        if kind == PAIR and not self.joint:
            return unit_rows(self._encode([self._text_input(text) for text in texts])) + unit_rows(self._encode(images))
        pairs = zip(texts, images, strict=True)  # an instruction that is empty is none
        return self._encode([{"text": text, "image": image} if text else {"image": image} for text, image in pairs])

    def _encode(self, inputs: list[Any]) -> Vectors:
        return self.model.encode(
            inputs,
            batch_size=self.batch_size,
            truncate_dim=self.dim,
            prompt=self.instruction,
            convert_to_numpy=True,
            show_progress_bar=False,
        )

    def _text_input(self, text: str | None) -> Any:
        """A text; marked as one where the library might take it for the address of an image."""
        return {"text": text} if IMAGE in self.embeds else text


class CallableEncoder:
    """A Python function `function(texts, images) -> (N, D)`, with None in either list where a row has no such part.

    An entry of `images` is a `PIL.Image`, or a list of them where a row has several; at most `batch_size` rows with
    images come in one call. The function may have attributes `embeds`, `instructed` and `tokenizer` (see `Encoder`).

    Args:
        function: The function.
        name: Name in results.
        fingerprint: Names the function with all its settings; change it whenever the vectors change (default: a digest
            of its code and of what that refers to; empty if it refers to what has no known contents, such as a model,
            and then nothing can be stored).
        batch_size: Rows with images of one call; their images are decoded together.
    """

    def __init__(
        self, function: EmbedFunction, *, name: str, fingerprint: str | None = None, batch_size: int = BATCH_SIZE
    ) -> None:
        self.function = function
        self.name = name
        self.batch_size = batch_size
        self.fingerprint = fingerprint or function_fingerprint(function) or ""
        self.embeds = getattr(function, "embeds", EVERYTHING)
        self.instructed = getattr(function, "instructed", True)
        self.tokenizer = getattr(function, "tokenizer", None)

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed rows by one call of the function, or by several where there are images."""
        parts = []
        step = self.batch_size if any(row.images for row in rows) else max(len(rows), 1)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            vectors = self.function([row.text for row in some], opened_images(some, images))
            parts.append(checked_vectors(vectors, some, self.name))
        return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class Deferred:
    """An encoder that `load` gives only when it is needed, so that two models need not share a device."""

    load: Callable[[], Encoder]


def is_encoder(model: Any) -> bool:
    """Whether an object is an `Encoder`, without computing its fingerprint, which may cost time."""
    return all(inspect.getattr_static(model, name, None) is not None for name in ("name", "fingerprint", "encode_rows"))


def as_encoder(model: Any, **kwargs: Any) -> Encoder:
    """Wrap a model: an `XVLM2VecModel`, a `SentenceTransformer`, a function; an `Encoder` stays as it is.

    Raises:
        TypeError: The object is none of these.
    """
    if isinstance(model, Deferred):
        return model.load()
    if is_encoder(model):
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
    rows: Sequence[Row],
    images: Mapping[str, Any],
    encode: Callable[[str, list[str | None], list[Any]], Vectors],
    batch_size: int,
) -> Vectors:
    """Embed texts, images and pairs in separate calls.

    Args:
        rows: The rows.
        images: Images by the names that rows give them.
        encode: Takes the kind, texts and opened images of rows of one kind; returns `(n, D)` float32.
        batch_size: Rows with images of one call; their images are decoded together.

    Returns:
        `(N, D)` float32 in the order of the rows; `(0, 0)` for no rows.
    """
    kinds = np.array([row_kind(row) for row in rows])
    vectors: Vectors | None = None
    for kind in np.unique(kinds):
        places = np.flatnonzero(kinds == kind)
        step = len(places) if kind == TEXT else batch_size
        for start in range(0, len(places), step):
            some = [rows[place] for place in places[start : start + step]]
            part = encode(str(kind), [row.text for row in some], opened_images(some, images))
            if vectors is None:
                vectors = np.empty((len(rows), part.shape[1]), dtype=np.float32)
            vectors[places[start : start + step]] = part
    return vectors if vectors is not None else np.zeros((0, 0), dtype=np.float32)


def release(encoder: Encoder) -> None:
    """Frees the memory of an encoder's weights, on whichever device they are; it cannot embed afterwards."""
    import torch

    from xvlm2vec.modeling.encoding import free_memory

    model = getattr(encoder, "model", None)
    for part in (model, getattr(model, "model", None)):  # mteb has its models in a wrapper
        if isinstance(part, torch.nn.Module):
            part.to("meta")
    free_memory()


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


def _with_files(problems: Mapping[int, str], rows: Sequence[Row], images: Mapping[str, Any]) -> dict[int, str]:
    """What is wrong with rows, with the files of their images."""
    messages = {}
    for number, problem in problems.items():
        key = rows[number].image
        shown = [] if key is None else [images[key]] if isinstance(key, str) else [images[name] for name in key]
        parts = [part for image in shown for part in (image if isinstance(image, list) else [image])]
        files = ", ".join(file for part in parts if (file := file_of(part)))
        rest = problem.removeprefix(f"row {number}").lstrip(":, ")
        messages[number] = f"row {number}: {files}: {rest}" if files else problem
    return messages
