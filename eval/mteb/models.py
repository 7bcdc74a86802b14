"""The two directions between models here and models of mteb."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from typing import Any
from uuid import uuid4

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.languages import ISO_TO_LANGUAGE
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType

from xvlm2vec.eval.abilities import EVERYTHING, IMAGE, PAIR, TEXT
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS, Templates, instructions, sides_for
from xvlm2vec.eval.encoders import BATCH_SIZE, Encoder, Vectors, as_encoder, checked_vectors, encoded_by_kind
from xvlm2vec.eval.ranking import Row
from xvlm2vec.modeling.hub_ids import is_path

_ROWS = 256  # handed to an encoder at a time
OURS = "xvlm2vec"  # marks our own tasks, whose texts have their instructions already
NEWLINE = "-newline"  # how the names of those end whose texts do so with a line break
_CATEGORIES = {TEXT: ("t2t", ["text"]), IMAGE: ("i2i", ["image"]), PAIR: ("it2it", ["image", "text"])}


class MtebModelEncoder:
    """A model of mteb as the runner takes it.

    Rows are given to it without saying which are queries: the instruction, if the model takes any, is in the text.
    To use the prompts of the model, run our tasks in mteb (`tasks_for_mteb`).

    Args:
        model: What `mteb.get_model` returns, or any other object with mteb's `encode` and `mteb_model_meta`.
        name: Name in results (default: its name in mteb).
        batch_size: Rows of one forward pass.

    Attributes:
        embeds: What the model takes, from its metadata.
        instructed: Whether its metadata say that it takes instructions.

    Raises:
        ValueError: The model does not embed: it is a cross-encoder or a search engine.
    """

    def __init__(self, model: Any, *, name: str | None = None, batch_size: int = BATCH_SIZE) -> None:
        meta = model.mteb_model_meta
        if not hasattr(model, "encode"):
            raise ValueError(f"{meta.name} does not embed; mteb has it as {', '.join(meta.model_type)}")
        self.model = model
        self.name = name or str(meta.name)
        self.batch_size = batch_size
        self.fingerprint = f"mteb {metadata.version('mteb')}: {meta.name}@{meta.revision}"
        parts = {kind for kind, modality in ((TEXT, "text"), (IMAGE, "image")) if modality in meta.modalities}
        self.embeds = frozenset(parts | ({PAIR} if len(parts) == 2 else set()))
        self.instructed = bool(meta.use_instructions)

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> Vectors:
        """Embed texts, images and pairs in separate calls."""
        return encoded_by_kind(rows, images, self._encode, self.batch_size)

    def _encode(self, kind: str, texts: list[str | None], images: list[Any]) -> Vectors:
        from datasets import Dataset
        from torch.utils.data import DataLoader

        category, modalities = _CATEGORIES[kind]
        columns: dict[str, list[Any]] = {"text": texts, "image": images}
        dataset = Dataset.from_dict({name: columns[name] for name in modalities})
        # mteb's own models look at the features of the loader's data set to see what there is to embed.
        loader = DataLoader(dataset, batch_size=self.batch_size, collate_fn=_as_lists)
        vectors = self.model.encode(
            loader,
            task_metadata=_plain_metadata(category, tuple(modalities)),
            hf_split="test",
            hf_subset="default",
            prompt_type=None,
            batch_size=self.batch_size,
            show_progress_bar=False,
        )
        return np.asarray(vectors.cpu() if hasattr(vectors, "cpu") else vectors, dtype=np.float32)


class EncoderForMteb(AbsEncoder):
    """A model of the runner as mteb takes it.

    Args:
        encoder: The model.
        templates: Instructions for mteb's tasks, in the language of each subset (default: ours for models that take
            instructions, otherwise none). Our own tasks have theirs already.
    """

    def __init__(self, encoder: Encoder, templates: Templates | None = None) -> None:
        self.model = encoder
        instructed = getattr(encoder, "instructed", True)
        self.templates = templates if templates is not None else instructions() if instructed else NO_INSTRUCTIONS
        embeds = getattr(encoder, "embeds", EVERYTHING)
        name = encoder.name.strip("/").replace(" ", "_")
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": name if "/" in name and not is_path(name) else f"local/{name.rsplit('/', 1)[-1]}",
                # mteb keeps scores by revision: those of a model without a fingerprint are nobody else's
                "revision": (encoder.fingerprint[:40] or uuid4().hex).replace(" ", "_").replace("/", "_"),
                "modalities": [part for kind, part in ((TEXT, "text"), (IMAGE, "image")) if kind in embeds],
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Embed batches of texts and images as float32 `(N, D)`.

        Raises:
            ValueError: A vector holds a NaN or an infinity.
        """
        wrap = wrapper(self.templates, task_metadata, subset_language(task_metadata, hf_subset), prompt_type)
        parts: list[Vectors] = []
        rows: list[Row] = []
        images: dict[str, Any] = {}
        for text, image in _rows(inputs):
            key = str(len(rows)) if image is not None else None
            if key is not None:
                images[key] = image
            rows.append(Row(wrap(text, image is not None), key))
            if len(rows) == _ROWS or len(images) == BATCH_SIZE:  # mteb hands over decoded images
                parts.append(checked_vectors(self.model.encode_rows(rows, images), rows, self.model.name))
                rows, images = [], {}
        if rows:
            parts.append(checked_vectors(self.model.encode_rows(rows, images), rows, self.model.name))
        return np.concatenate(parts)


def wrapper(
    templates: Templates, task: TaskMetadata, language: str, side: PromptType | None
) -> Callable[[str | None, bool], str | None]:
    """How a text, or none beside an image, becomes one with its instruction, by what the task's two sides are.

    Args:
        templates: The instructions; those of our own tasks are in place.
        task: The task.
        language: The language that the instruction is in.
        side: Queries or documents.
    """
    if task.contributed_by == OURS:
        return _with_line_break if ends_in_line_breaks(task, side) else lambda text, _: text
    name = "page" if task.type == "DocumentUnderstanding" else _task_name(task.category or "")
    sides = sides_for(templates, name, language) if name else {}
    template = sides.get("target" if side == PromptType.document else "query", "{text}")

    def wrap(text: str | None, has_image: bool) -> str | None:
        if (text and "{text}" not in template) or not (text or has_image):
            return text
        return template.replace("{text}", text or "")

    return wrap


def ends_in_line_breaks(task: TaskMetadata, side: PromptType | None) -> bool:
    """Whether one of our tasks is in the style `newline` on a side; text documents are in no style."""
    styled = side != PromptType.document or "i" in str(task.category).partition("2")[2]
    return styled and task.name.endswith(NEWLINE)


def _with_line_break(text: str | None, _: bool) -> str | None:
    """The text with the line break that mteb strips from documents."""
    return f"{text.rstrip()}\n" if text else text


def subset_language(task: TaskMetadata, subset: str) -> str:
    """ISO 639-1 code of a subset's language, or its 639-3 code where it has none."""
    scripts = task.hf_subsets_to_langscripts.get(subset) or [subset]
    code = scripts[0].split("-")[0]
    return {long: short for short, long in _language_data("iso_639_1_to_3").items()}.get(code, code)


def language_script(code: str) -> str | None:
    """The name that mteb has for a language, such as `deu-Latn` for `de`; None if it knows none."""
    base, *parts = code.split("-")
    base, named = base.lower(), next((part for part in parts if len(part) == 4 and part.istitle()), None)
    long = _language_data("iso_639_1_to_3").get(base, base)
    script = named or _language_data("iso_639_3_to_default_script").get(long)
    return f"{long}-{script}" if script and long in ISO_TO_LANGUAGE else None


@cache
def _language_data(name: str) -> dict[str, str]:
    return json.loads(resources.files("mteb.languages").joinpath(f"{name}.json").read_text(encoding="utf-8"))


def _task_name(category: str) -> str | None:
    """Which instructions fit a task whose sides are of these kinds."""
    queries, _, documents = category.partition("2")
    if queries == "t" and "i" in documents:
        return "t2i"
    if queries == "i" and documents == "t":
        return "i2t"
    return "vqa" if queries == "it" and documents == "t" else None


def _rows(inputs: Any) -> Iterator[tuple[str | None, Any]]:
    for batch in inputs:
        texts, images = batch.get("text"), batch.get("image")
        count = len(texts if texts is not None else images)
        yield from zip(texts or [None] * count, images or [None] * count, strict=True)


def _as_lists(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@cache
def _plain_metadata(category: str, modalities: tuple[str, ...]) -> TaskMetadata:
    fields: dict[str, Any] = {  # checked by pydantic
        "name": "Rows",
        "description": "Rows with their instructions in place.",
        "dataset": {"path": "local", "revision": "1"},
        "type": "Any2AnyRetrieval",
        "category": category,
        "modalities": list(modalities),
        "eval_langs": ["eng-Latn"],
        "main_score": "ndcg_at_10",
        "prompt": {"query": "", "document": ""},
    }
    return TaskMetadata(**fields)


def mteb_model(model: Any, templates: Templates | None = None, **options: Any) -> EncoderForMteb:
    """Any model that `embedding.as_encoder` takes, as `mteb.evaluate` takes it.

    Args:
        model: An `XVLM2VecModel`, a `SentenceTransformer`, a function, or an encoder.
        templates: Instructions for mteb's own tasks (see `EncoderForMteb`).
        **options: For `embedding.as_encoder`.
    """
    return EncoderForMteb(as_encoder(model, **options), templates)
