"""Runs in a process of its own: loads a release in one way, without this package, and embeds the golden rows.

`verify` starts this file by its path with `python -I` and the folder of a job as its only argument. It reads
`job.json` and the images there, and writes `<dtype>.safetensors` (one `(N, D)` float32 tensor per arrangement) and
`result.json`. It imports nothing of xVLM2Vec, and keeps the code of the release from doing so.
"""

from __future__ import annotations

import functools
import gc
import importlib.abc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEPT_OUT = "xvlm2vec"
BASE, LANGUAGE = "base: ", "language "
"""What ways to embed begin with: of the base below adapters, and in a language that one of these was taught."""


class _KeepOut(importlib.abc.MetaPathFinder):
    """Makes the package look as if it were not installed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Refuses the package and leaves all else to the other finders."""
        if fullname.partition(".")[0] == KEPT_OUT:
            raise ModuleNotFoundError(f"No module named {fullname!r}: a release must load without it", name=fullname)


def arrangements(count: int) -> dict[str, tuple[list[list[int]], str | None]]:
    """Ways to batch the rows: the batches (row numbers) and the padding side, if it is to be set."""
    order = list(range(count))
    return {
        "alone": ([[index] for index in order], None),
        "one batch": ([order], None),
        "reversed": ([order[::-1]], None),
        "padded left": ([order], "left"),
        "padded right": ([order], "right"),
    }


def through_automodel(job: dict[str, Any], rows: list[dict[str, Any]], dtype: Any) -> tuple[dict[str, Any], dict]:
    """Embeds through `AutoModel` and `AutoProcessor`."""
    from transformers import AutoModel, AutoProcessor

    where = {"revision": job["revision"], "trust_remote_code": True}
    model = AutoModel.from_pretrained(job["source"], dtype=dtype, **where)
    processor = AutoProcessor.from_pretrained(job["source"], **where)
    vectors, facts = _through_forward(job, rows, model, processor)
    return vectors | _in_languages(job["languages"], rows, model), facts


def through_adapters(job: dict[str, Any], rows: list[dict[str, Any]], dtype: Any) -> tuple[dict[str, Any], dict]:
    """Embeds by the model with its adapters and by its base alone, both without a language: the same bits, or not."""
    from transformers import AutoModel

    where = {"revision": job["revision"], "dtype": dtype}
    model = AutoModel.from_pretrained(job["source"], trust_remote_code=True, **where).to(job["device"])
    base = type(model).base_of(job["source"], **where).to(job["device"])
    alone = encode_in_all_ways(base, base.processor, rows, dict.fromkeys(job["languages"]))
    beside = encode_in_all_ways(model, model.processor, rows, {language: language for language in job["languages"]})
    return {**{f"{BASE}{way}": vectors for way, vectors in alone.items()}, **beside}, {}


def encode_in_all_ways(
    model: Any, processor: Any, rows: list[dict[str, Any]], languages: dict[str, str | None]
) -> dict[str, Any]:
    """Embeds rows by `encode`, one by one and in one batch, and images told to be in a language, in float32.

    Args:
        model: The model.
        processor: Its processor.
        rows: The rows, with images.
        languages: For each language what the model is told for it; `None` for a base.
    """
    import torch

    def encode(some: list[dict[str, Any]], language: str | None) -> Any:
        told = {} if language is None else {"language": language}
        texts, images = [row["text"] for row in some], [row["images"] for row in some]
        options = {"processor": processor, "show_progress": False, "convert_to_tensor": True}
        return model.encode(texts, images=images, **told, **options)

    shown = [row for row in rows if row["text"] is None]
    with same_bits():
        result = {"alone": torch.cat([encode([row], None) for row in rows]), "one batch": encode(rows, None)}
        return result | {f"images in {name}": encode(shown, told) for name, told in languages.items() if shown}


@contextmanager
def same_bits() -> Iterator[None]:
    """The same computation gives the same bits in every call: no operation and no number of threads is chosen anew."""
    import torch

    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def _in_languages(languages: list[str], rows: list[dict[str, Any]], model: Any) -> dict[str, Any]:
    """The rows with text in each language that adapters beside a model were taught."""
    spoken = [row for row in rows if row["text"] is not None]
    texts, images = [row["text"] for row in spoken], [row["images"] for row in spoken]
    return {
        f"{LANGUAGE}{name}": model.encode(texts, images=images, language=name, convert_to_tensor=True)
        for name in languages
    }


def through_peft(job: dict[str, Any], rows: list[dict[str, Any]], dtype: Any) -> tuple[dict[str, Any], dict]:
    """Embeds through `PeftModel`, over the base that the adapter names, or a folder in its place."""
    from peft import PeftConfig, PeftModel
    from transformers import AutoModel, AutoProcessor

    config = PeftConfig.from_pretrained(job["source"], revision=job["revision"])
    base = job["base"] or config.base_model_name_or_path
    where = {"revision": None if job["base"] else config.revision, "trust_remote_code": True}
    bare = AutoModel.from_pretrained(base, dtype=dtype, **where)
    model = PeftModel.from_pretrained(bare, job["source"], revision=job["revision"]).get_base_model().to(dtype)
    return _through_forward(job, rows, model, AutoProcessor.from_pretrained(base, **where))


def _through_forward(
    job: dict[str, Any], rows: list[dict[str, Any]], model: Any, processor: Any
) -> tuple[dict[str, Any], dict]:
    """Embeds by calling processor and model, in all arrangements."""
    import torch

    model = model.to(job["device"]).eval()

    def embed(indices: list[int], side: str | None) -> torch.Tensor:
        texts, images = [rows[i]["text"] for i in indices], [rows[i]["images"] for i in indices]
        inputs = processor(text=texts, images=images, **({"padding_side": side} if side else {})).to(job["device"])
        return model(**inputs).embeddings

    facts = {
        "prompts": dict(model.config.prompts),
        "image_processor": type(processor.image_processor).__name__,
        "attn_implementation": model.config.get_text_config()._attn_implementation,
    }
    fixed = job.get("padding_side")  # of models that are padded on one side only
    ways = {name: way for name, way in arrangements(len(rows)).items() if fixed is None or way[1] in (None, fixed)}
    return _arrange(embed, ways), facts


def through_sentence_transformers(
    job: dict[str, Any], rows: list[dict[str, Any]], dtype: Any, trust_remote_code: bool = True
) -> tuple[dict[str, Any], dict]:
    """Embeds through `SentenceTransformer`, which chooses the padding itself."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        job["source"],
        revision=job["revision"],
        trust_remote_code=trust_remote_code,
        device=job["device"],
        model_kwargs={"dtype": dtype},
    )

    model.truncate_dim = None  # golden vectors are whole

    def embed(indices: list[int], side: str | None, **more: Any) -> torch.Tensor:
        inputs = [_as_sentence_transformers_row(rows[i], job.get("text_first", False)) for i in indices]
        return model.encode(inputs, batch_size=len(inputs), convert_to_tensor=True, show_progress_bar=False, **more)

    # Two towers take a batch of texts, or one of images.
    ways = {name: way for name, way in arrangements(len(rows)).items() if way[1] is None}
    if job.get("two_towers"):
        ways = {"alone": ways["alone"]}
    spoken = [number for number, row in enumerate(rows) if row["text"] is not None]
    vectors = {f"{LANGUAGE}{name}": embed(spoken, None, language=name).float().cpu() for name in job["languages"]}
    return _arrange(embed, ways) | vectors, {"prompts": dict(model.prompts)}


LOADERS: dict[str, Callable[..., tuple[dict[str, Any], dict]]] = {
    "automodel": through_automodel,
    "sentence-transformers": through_sentence_transformers,
    "peft": through_peft,
    "adapters": through_adapters,
    "native": functools.partial(through_sentence_transformers, trust_remote_code=False),
}


def _as_sentence_transformers_row(row: dict[str, Any], text_first: bool) -> Any:
    images = row["images"]
    if not images:
        return row["text"]
    image = images[0] if len(images) == 1 else images
    if row["text"] is None:
        return {"image": image}
    # The order of a row's parts is that of its prompt, for most chat templates.
    return {"text": row["text"], "image": image} if text_first else {"image": image, "text": row["text"]}


def _arrange(embed: Callable[..., Any], ways: dict[str, tuple[list[list[int]], str | None]]) -> dict[str, Any]:
    """Embeds the rows in each arrangement; vectors come back in the order of the rows."""
    import torch

    vectors_by_way = {}
    with torch.inference_mode():
        for name, (batches, side) in ways.items():
            vectors: dict[int, torch.Tensor] = {}
            for batch in batches:
                vectors.update(zip(batch, embed(batch, side).float().cpu(), strict=True))
            vectors_by_way[name] = torch.stack([vectors[index] for index in sorted(vectors)])
    return vectors_by_way


def main(folder: Path) -> None:
    """Does the job in `folder`."""
    sys.meta_path.insert(0, _KeepOut())
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    images = {name: Image.open(folder / f"{name}.png").convert("RGB") for name in job["images"]}
    rows = [{**row, "images": [images[name] for name in row["images"]]} for row in job["rows"]]
    facts: dict[str, Any] = {}
    for dtype in job["dtypes"]:
        vectors, facts = LOADERS[job["loader"]](job, rows, getattr(torch, dtype))
        save_file(vectors, folder / f"{dtype}.safetensors")
        gc.collect()
    stray = sorted(name for name in sys.modules if name.partition(".")[0] == KEPT_OUT)
    if stray:
        raise RuntimeError(f"the release brought in {', '.join(stray)}")
    (folder / "result.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
