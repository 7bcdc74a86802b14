"""The golden fingerprint: a dozen fixed rows and the vectors that a model must give for them, on every machine."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from xvlm2vec import __version__
from xvlm2vec.common.files import replaced_file, write_json
from xvlm2vec.common.renamed import warn_renamed
from xvlm2vec.modeling.concurrency import evaluation_mode
from xvlm2vec.modeling.language_adapters import adapter_for, languages_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.processor_checks import fixed_padding_side

from .saved_weights import GOLDEN_VECTORS, GoldenError, weights_fingerprint

GOLDEN_JSON = "golden.json"
VECTORS_KEY, SPOKEN = "embeddings", "embeddings."
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy", "pillow")
IMAGE_SIZE = (96, 64)
_OLD_KEYS = {"pictures": "images", "picture_size": "image_size", "picture_sha256": "image_sha256"}


@dataclass(frozen=True)
class GoldenRow:
    """One fixed input.

    Args:
        name: What reports call the row.
        text: Its text, or `None`.
        images: Names of its images, see `draw_image`.
    """

    name: str
    text: str | None
    images: tuple[str, ...] = ()


ROWS = (
    GoldenRow("text en", "A red kite in the sky"),
    GoldenRow("text de", "Drei Äpfel liegen auf dem Küchentisch."),
    GoldenRow("text ja", "雨の日に傘をさす猫"),
    GoldenRow("text ar", "قارب صغير في البحر"),
    GoldenRow("text hi", "पेड़ के नीचे एक घोड़ा"),
    GoldenRow("text ru, one word", "снег"),
    GoldenRow(
        "text long",
        "Find the image that shows what this sentence says: two dogs run, 12.5 m apart, to a ball.",
    ),
    GoldenRow("image disc", None, ("disc",)),
    GoldenRow("image stripes", None, ("stripes",)),
    GoldenRow("image and text en", "Which colour is the disc?", ("disc",)),
    GoldenRow("image and text zh", "这张图片里有什么？", ("checks",)),
    GoldenRow("two images and text ko", "두 그림의 차이", ("checks", "stripes")),
)


@dataclass(frozen=True)
class Golden:
    """What `golden.json` and `golden.safetensors` hold.

    Args:
        rows: The inputs.
        vectors: `(N, D)` float32, one row each.
        image_size: Width and height of the images, in pixels.
        image_sha256: Checksum of each image's RGB bytes.
        prompts: The model's named instructions.
        weights: Fingerprint of the weights, see `weights_fingerprint`.
        made_with: Library versions, dtype, attention implementation, image backend and device.
        languages: For each language that adapters beside the model were taught, the vectors of the rows with text.
    """

    rows: tuple[GoldenRow, ...]
    vectors: torch.Tensor
    image_size: tuple[int, int]
    image_sha256: dict[str, str]
    prompts: dict[str, str]
    weights: str
    made_with: dict[str, Any]
    languages: dict[str, torch.Tensor] = field(default_factory=dict)

    def spoken(self, language: str) -> Golden:
        """The rows with text, and their vectors in a language that an adapter was taught."""
        rows = tuple(row for row in self.rows if row.text is not None)
        return replace(self, rows=rows, vectors=self.languages[language])

    @property
    def checked_languages(self) -> list[str]:
        """Of languages whose vectors are the same, as they have one adapter, the first: what is compared of each."""
        first: dict[bytes, str] = {}
        for language in sorted(self.languages):
            first.setdefault(self.languages[language].contiguous().numpy().tobytes(), language)
        return sorted(first.values())


def draw_image(name: str, size: tuple[int, int]) -> Image.Image:
    """Draws one of the fixed images with integer arithmetic, so that each machine gets the same bytes.

    Args:
        name: `"disc"` (on a gradient), `"stripes"` (diagonal) or `"checks"` (with one odd corner).
        size: Width and height in pixels.

    Returns:
        An RGB image.

    Raises:
        ValueError: No image has this name.
    """
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    if name == "disc":
        pixels = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), np.full_like(x, 96)], axis=-1)
        inside = (2 * x - width) ** 2 + (2 * y - height) ** 2 < (min(size) * 6 // 10) ** 2
        pixels[inside] = (214, 39, 40)
    elif name == "stripes":
        band = ((x + 2 * y) // 6 % 3)[..., None]
        pixels = np.where(band == 0, (31, 119, 180), np.where(band == 1, (255, 221, 87), (250, 250, 250)))
    elif name == "checks":
        pixels = np.where(((x // 8 + y // 8) % 2)[..., None] == 0, (20, 20, 20), (120, 200, 90))
        pixels[: height // 3, : width // 3] = (148, 54, 180)
    else:
        raise ValueError(f"no golden image is called {name!r}.")
    return Image.fromarray(pixels.astype(np.uint8))


def image_size(processor: XVLM2VecProcessor) -> tuple[int, int]:
    """Size of the images: oblong, unless the backbone takes only images of its own size."""
    image_processor = processor.image_processor
    if image_processor is None or getattr(image_processor, "do_resize", True):
        return IMAGE_SIZE
    sizes = dict(image_processor.size)
    side = int(sizes.get("longest_edge") or sizes.get("shortest_edge") or sizes["height"])
    return side, int(sizes.get("width") or side)


def rows_for(processor: XVLM2VecProcessor) -> tuple[GoldenRow, ...]:
    """The rows of the kinds that a model takes: a text-only one no image, one of two towers no more than one."""
    kinds, towers = processor.recipe.forms, processor.recipe.two_towers
    return tuple(row for row in ROWS if _kind(row) in kinds and not (towers and len(row.images) > 1))


def _kind(row: GoldenRow) -> str:
    return "text" if not row.images else "image" if row.text is None else "image+text"


def golden_inputs(
    size: tuple[int, int], rows: tuple[GoldenRow, ...] = ROWS
) -> tuple[list[str | None], list[list[Image.Image]]]:
    """Texts and images of rows, as `XVLM2VecProcessor` takes them."""
    return [row.text for row in rows], [[draw_image(name, size) for name in row.images] for row in rows]


def golden_vectors(model: Any, processor: XVLM2VecProcessor, size: tuple[int, int]) -> torch.Tensor:
    """Embeds the rows one by one in float32.

    Args:
        model: An `XVLM2VecModel`, with or without adapter layers inside. Its mode and dtype are left as they are.
        processor: Its processor.
        size: Width and height of the images.

    Returns:
        `(N, D)` float32 on the CPU.
    """
    exact = _in_float32(model)
    texts, image_rows = golden_inputs(size, rows_for(processor))
    rows = []
    with evaluation_mode(exact), torch.inference_mode(), _no_tf32():
        for text, images in zip(texts, image_rows, strict=True):
            inputs = processor(text=[text], images=[images]).to(exact.device)
            rows.append(exact(**inputs).embeddings[0].float().cpu())
    return torch.stack(rows)


def spoken_vectors(model: XVLM2VecModel, processor: XVLM2VecProcessor) -> dict[str, torch.Tensor]:
    """For each language that adapters beside a model were taught, the rows with text one by one, `(N, D)` float32.

    Languages of one adapter have the same vectors, which are computed once.
    """
    exact = _in_float32(model)
    rows = tuple(row for row in rows_for(processor) if row.text is not None)
    texts, images = golden_inputs(image_size(processor), rows)

    def speak(language: str) -> torch.Tensor:
        vectors = [
            exact.encode([text], images=[shown], language=language, processor=processor, convert_to_tensor=True)
            for text, shown in zip(texts, images, strict=True)
        ]
        return torch.cat([torch.as_tensor(vector) for vector in vectors])

    with _no_tf32():
        spoken = {adapter: speak(language) for adapter, language in one_language_each(model).items()}
    return {language: spoken[adapter_for(model, language)] for language in languages_of(model)}


def one_language_each(model: XVLM2VecModel) -> dict[str | None, str]:
    """For each adapter beside a model, the first of the languages that it was taught."""
    return {adapter_for(model, language): language for language in reversed(languages_of(model))}


def _in_float32(model: Any) -> Any:
    return model if model.dtype == torch.float32 else copy.deepcopy(model).float()


def write_golden(
    folder: str | os.PathLike[str],
    model: Any = None,
    processor: XVLM2VecProcessor | None = None,
    speaker: XVLM2VecModel | None = None,
) -> Golden:
    """Writes `golden.json` and `golden.safetensors` beside a saved model.

    Args:
        folder: A folder with the saved weights.
        model: The model in memory whose vectors the saved one must give; loaded from `folder` if `None`.
        processor: Its processor; loaded from `folder` if `None`.
        speaker: The model with adapters beside it, whose vectors in their languages are written, too.

    Returns:
        What was written.

    Raises:
        GoldenError: The folder holds no weights, or the model gives values that are not finite.
    """
    folder = Path(folder)
    weights = weights_fingerprint(folder)
    model = XVLM2VecModel.from_pretrained(folder, dtype=torch.float32) if model is None else model
    processor = XVLM2VecProcessor.from_pretrained(folder) if processor is None else processor
    size = image_size(processor)
    vectors = golden_vectors(model, processor, size)
    golden_rows = rows_for(processor)
    broken = [row.name for row, vector in zip(golden_rows, vectors, strict=True) if not torch.isfinite(vector).all()]
    if broken:
        raise GoldenError(f"the model gives infinite or undefined values for the rows {', '.join(broken)}.")
    golden = Golden(
        rows=golden_rows,
        vectors=vectors,
        image_size=size,
        image_sha256={name: _sha256(draw_image(name, size)) for name in _image_names(golden_rows)},
        prompts=dict(sorted(model.config.prompts.items())),
        weights=weights,
        made_with=_circumstances(model, processor),
        languages={} if speaker is None else spoken_vectors(speaker, processor),
    )
    _write(folder, golden)
    return golden


def limit_dtypes(folder: str | os.PathLike[str], dtypes: Sequence[str]) -> None:
    """Writes into the golden files of a folder, if it has any, that they are to be compared in these dtypes alone."""
    path = Path(folder) / GOLDEN_JSON
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        content["made_with"]["dtypes"] = list(dtypes)
        write_json(path, content)


def read_golden(folder: str | os.PathLike[str]) -> Golden:
    """Reads the golden files of a folder.

    Raises:
        GoldenError: A file is missing or damaged.
    """
    folder = Path(folder)
    for name in (GOLDEN_JSON, GOLDEN_VECTORS):
        if not (folder / name).is_file():
            raise GoldenError(f"{folder} has no {name}; `xvlm2vec verify --write {folder}` makes it.")
    try:
        content = _current(json.loads((folder / GOLDEN_JSON).read_text(encoding="utf-8")))
        with safe_open(folder / GOLDEN_VECTORS, framework="pt") as file:
            vectors = file.get_tensor(VECTORS_KEY)
            languages = {code: file.get_tensor(f"{SPOKEN}{code}") for code in content.get("languages", ())}
        rows = tuple(GoldenRow(row["name"], row["text"], tuple(_current(row)["images"])) for row in content["rows"])
        width, height = content["image_size"]
        golden = Golden(
            rows=rows,
            vectors=vectors,
            image_size=(int(width), int(height)),
            image_sha256=content["image_sha256"],
            prompts=content["prompts"],
            weights=content["weights_sha256"],
            made_with=content["made_with"],
            languages=languages,
        )
    except Exception as error:  # any damage ends here: JSON, keys, safetensors
        raise GoldenError(f"the golden files of {folder} are damaged ({type(error).__name__}: {error}).") from error
    if len(rows) != len(vectors):
        raise GoldenError(f"{folder}: {GOLDEN_JSON} names {len(rows)} rows, {GOLDEN_VECTORS} holds {len(vectors)}.")
    return golden


def _current(content: dict[str, Any]) -> dict[str, Any]:
    """What a golden file or a row of it says, by the keys of today; earlier releases called images pictures."""
    if "picture_size" in content:
        warn_renamed(f"picture_size in {GOLDEN_JSON}", "image_size; release the model again", stacklevel=4)
    return {_OLD_KEYS.get(key, key): value for key, value in content.items()}


def draw_checked(golden: Golden) -> dict[str, Image.Image]:
    """Draws the images of a fingerprint again.

    Raises:
        GoldenError: This version draws other bytes than the one that wrote the fingerprint.
    """
    images = {name: draw_image(name, golden.image_size) for name in _image_names(golden.rows)}
    for name, image in images.items():
        if _sha256(image) != golden.image_sha256.get(name):
            raise GoldenError(
                f"image {name!r} is not drawn as when the golden files were made (by xvlm2vec "
                f"{golden.made_with.get('xvlm2vec')}): use that version, or write the golden files again."
            )
    return images


def _circumstances(model: Any, processor: XVLM2VecProcessor) -> dict[str, Any]:
    return {
        "xvlm2vec": __version__,
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "weights_dtype": str(model.dtype).removeprefix("torch."),
        "dtype": "float32",
        "attn_implementation": model.config.get_text_config()._attn_implementation,
        "image_processor": type(processor.image_processor).__name__,
        "image_backend": image_backend(processor.image_processor),
        "device": model.device.type,
        # Which rows stand in one batch, other own code than ours may want to know.
        "two_towers": processor.recipe.two_towers or (model.is_black_box and len(processor.recipe.forms) > 1),
        # Own code is not known to run in other number formats than that in which it was taken over.
        **({"dtypes": ["float32"]} if model.is_black_box else {}),
        "padding_side": fixed_padding_side(processor),
        "text_first": not processor.recipe.shares_images,
    }


def image_backend(image_processor: Any) -> str:
    """`"pil"` or `"torchvision"`: the two scale images a little differently."""
    name = getattr(image_processor, "backend", None)
    if isinstance(name, str):
        return name
    return "pil" if type(image_processor).__name__.endswith("Pil") else "torchvision"


def _write(folder: Path, golden: Golden) -> None:
    content = {
        "rows": [{"name": row.name, "text": row.text, "images": list(row.images)} for row in golden.rows],
        "image_size": list(golden.image_size),
        "image_sha256": golden.image_sha256,
        "prompts": golden.prompts,
        "weights_sha256": golden.weights,
        "made_with": golden.made_with,
        **({"languages": list(golden.languages)} if golden.languages else {}),
    }
    vectors = {VECTORS_KEY: golden.vectors, **{f"{SPOKEN}{code}": part for code, part in golden.languages.items()}}
    with replaced_file(folder / GOLDEN_VECTORS) as draft:
        save_file({name: part.contiguous().clone() for name, part in vectors.items()}, draft, metadata={"format": "pt"})
    write_json(folder / GOLDEN_JSON, content)


def _image_names(rows: tuple[GoldenRow, ...]) -> list[str]:
    return sorted({name for row in rows for name in row.images})


def _sha256(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


@contextmanager
def _no_tf32() -> Iterator[None]:
    """TF32 rounds to ten bits, far above the bounds of a fingerprint."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
