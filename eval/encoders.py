"""One interface to every model that embeds texts and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.fingerprint import fingerprint, plain_config, saved_digest

from .abilities import EVERYTHING, IMAGE, PAIR, TEXT, row_kind, sentence_transformer_abilities
from .function_fingerprint import function_fingerprint
from .metrics import unit_rows
from .ranking import Row

if TYPE_CHECKING:
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

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
        """A text; marked as one where the library might take it for the address of an image."""
        return {"text": text} if IMAGE in self.embeds else text


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
