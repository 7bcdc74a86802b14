"""The card of a release: what is known is said, what is not known is left out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .staging import ExportError

TEMPLATE = Path(__file__).with_name("model_card.md")
TASK_NAMES = {
    "c": "classification",
    "i2t": "picture to text",
    "t2i": "text to picture",
    "vqa": "visual question answering",
    "vg": "visual grounding",
}
TAGS = ("sentence-transformers", "transformers", "xvlm2vec", "feature-extraction", "multimodal", "multilingual")
PICTURE_SIZE = (224, 224)

LanguageScores = Mapping[str, Mapping[str, Any]]
"""`{language: {"p_at_1": fraction, "n": rows, "ci95": [low, high]}}`."""


class CardError(ExportError):
    """A field of a card has the wrong type or an impossible value; the message names it."""


@dataclass(frozen=True)
class LossNote:
    """A loss that the model was trained with, and the BibTeX entry to cite for it (may be empty)."""

    name: str
    citation: str = ""


@dataclass(frozen=True)
class ReleaseCard:
    """What the cards of a release say. Everything but the name may be left out.

    Args:
        name: Name of the model.
        repo_id: Hub id or folder that the snippets load; the name if `None`.
        description: A paragraph in Markdown.
        languages: Language codes that the model is meant for.
        base_model: Id of the model that training started from.
        base_model_relation: `"finetune"`, `"adapter"`, `"merge"` or `"quantized"`.
        method: How it was made, in a few words.
        licence: Identifier of the weights' licence as the Hub spells it, such as `"apache-2.0"`.
        datasets: Ids or names of the training data.
        tags: Further tags.
        losses: Losses of the training.
        hyperparameters: Settings of the training.
        versions: Library versions of the training.
        scores: `{model: {task: {language: {"p_at_1", "n", "ci95"}}}}`; `"student"` is the released model.
        english_drift: Student minus teacher on English in points, per task.
        limits: What the model cannot do, a sentence each.
        adapter_id: Id or folder of the adapter alone, if there is one.
        adapter_base: Id or folder of the model below the adapter.
        base_revision: Its revision.
        benchmark_id: Id of the benchmark that the scores are from.
    """

    name: str
    repo_id: str | None = None
    description: str = ""
    languages: Sequence[str] = ()
    base_model: str | None = None
    base_model_relation: str = "finetune"
    method: str = ""
    licence: str | None = None
    datasets: Sequence[str] = ()
    tags: Sequence[str] = ()
    losses: Sequence[LossNote] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, LanguageScores]] = field(default_factory=dict)
    english_drift: Mapping[str, float] = field(default_factory=dict)
    limits: Sequence[str] = ()
    adapter_id: str | None = None
    adapter_base: str | None = None
    base_revision: str | None = None
    benchmark_id: str | None = None

    def __post_init__(self) -> None:
        _check_types(self)


def write_card(
    folder: str | os.PathLike[str],
    card: ReleaseCard,
    *,
    prompts: Mapping[str, str] | None = None,
    picture_size: tuple[int, int] | None = None,
    dims: int | None = None,
    adapter_base: str | None = None,
    base_revision: str | None = None,
) -> Path:
    """Writes `README.md`.

    Args:
        folder: The folder of the release.
        card: What to say.
        prompts: The model's named instructions.
        picture_size: Width and height of the picture in the snippets.
        dims: Values of a vector.
        adapter_base: Given for the card of an adapter: the model below it.
        base_revision: Its revision.

    Returns:
        The file.
    """
    is_adapter = adapter_base is not None
    known = {item.name: getattr(card, item.name) for item in fields(card)}
    known |= {
        "is_adapter": is_adapter,
        "merged_id": card.repo_id if is_adapter else None,
        "repo_id": (card.adapter_id if is_adapter else card.repo_id) or card.name,
        "adapter_base": adapter_base or card.adapter_base,
        "base_revision": base_revision or card.base_revision,
        "prompts": prompts or {},
        "picture_size": picture_size or PICTURE_SIZE,
        "dims": dims,
        "score_tables": [] if is_adapter else score_tables(card.scores),
        "english_drift": {} if is_adapter else card.english_drift,
    }
    path = Path(folder) / "README.md"
    content = render(TEMPLATE.read_text(encoding="utf-8"), card_data(card, adapter_base), known)
    ModelCard(content).save(path)
    return path


def render(template: str, data: ModelCardData, known: Mapping[str, Any]) -> str:
    """Fills a card's template; a variable that is not there is an error, not an empty space."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters["cell"] = _cell
    return environment.from_string(template).render(card_data=data.to_yaml(), **known)


def card_data(card: ReleaseCard, adapter_base: str | None = None) -> ModelCardData:
    """The metadata of a card; `adapter_base` makes it that of an adapter."""
    is_adapter = adapter_base is not None
    results = [] if is_adapter else eval_results(card)
    base = adapter_base if is_adapter else card.base_model
    return ModelCardData(
        language=list(card.languages) or None,
        license=card.licence,
        library_name="peft" if is_adapter else "sentence-transformers",
        pipeline_tag="feature-extraction",
        base_model=base,
        base_model_relation=("adapter" if is_adapter else card.base_model_relation) if base else None,
        datasets=list(card.datasets) or None,
        tags=list(dict.fromkeys([*TAGS, *card.tags])),
        metrics=["precision_at_1"] if results else None,
        model_name=card.name if results else None,
        eval_results=results or None,
    )


def eval_results(card: ReleaseCard) -> list[EvalResult]:
    """The released model's scores, as a `model-index` holds them."""
    benchmark = card.benchmark_id or "multilingual multimodal embedding benchmark"
    return [
        EvalResult(
            task_type="retrieval",
            task_name=TASK_NAMES.get(task, task),
            dataset_type=benchmark,
            dataset_name=f"{benchmark} ({task}, {language})",
            dataset_config=task,
            dataset_split=language,
            metric_type="precision_at_1",
            metric_name="P@1",
            metric_value=round(float(score["p_at_1"]), 4),
        )
        for task, languages in card.scores.get("student", {}).items()
        for language, score in languages.items()
    ]


def score_tables(scores: Mapping[str, Mapping[str, LanguageScores]]) -> list[dict[str, Any]]:
    """One table per model, the released one first: a row per language, a column per task."""
    titles = {"student": "This model:", "teacher": "Before training in these languages (the teacher):"}
    names = [name for name in titles if scores.get(name)] + [name for name in scores if name not in titles]
    return [_score_table(titles.get(name, f"{name}:"), scores[name]) for name in names]


def write_licence_note(folder: str | os.PathLike[str], card: ReleaseCard) -> Path:
    """Writes `LICENSE`: under which terms the code and the weights are."""
    lines = [
        "Code (*.py): part of xVLM2Vec, licensed under the Apache License, Version 2.0.",
        "A copy of that licence: http://www.apache.org/licenses/LICENSE-2.0",
    ]
    if card.licence:
        lines += ["", f"Weights and all other files: {card.licence}."]
    if card.base_model:
        lines += ["", f"The weights are derived from {card.base_model}, whose terms apply to them as well."]
    path = Path(folder) / "LICENSE"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The YAML block at the head of a card."""
    _, block, _ = Path(path).read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(block)


def _score_table(title: str, tasks: Mapping[str, LanguageScores]) -> dict[str, Any]:
    languages = list(dict.fromkeys(language for scores in tasks.values() for language in scores))
    heads = [f"{TASK_NAMES.get(task, task)}{_size(scores)}" for task, scores in tasks.items()]
    rows = [{"language": code, "cells": [_score(tasks[task].get(code)) for task in tasks]} for code in languages]
    return {"title": title, "tasks": heads, "rows": rows}


def _size(scores: LanguageScores) -> str:
    counts = sorted({int(score["n"]) for score in scores.values() if "n" in score})
    if not counts:
        return ""
    return f" (n = {counts[0]})" if len(counts) == 1 else f" (n = {counts[0]} to {counts[-1]})"


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    text = f"{100 * score['p_at_1']:.1f}"
    if score.get("ci95"):
        low, high = score["ci95"]
        text += f" ({100 * low:.1f} to {100 * high:.1f})"
    return text


def _cell(value: Any) -> str:
    """A value that does not break out of its table cell."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def _check_types(card: ReleaseCard) -> None:
    for item in fields(card):
        value = getattr(card, item.name)
        annotation = str(item.type)
        if annotation.startswith("str"):
            expected: Any = (str, type(None)) if "None" in annotation else str
            fits = isinstance(value, expected)
        elif annotation.startswith("Sequence"):
            fits = isinstance(value, Sequence) and not isinstance(value, str)
        else:
            fits = isinstance(value, Mapping)
        if not fits:
            raise CardError(f"card field {item.name!r} is a {type(value).__name__}; expected {annotation}.")
    if not card.name:
        raise CardError("card field 'name' is empty; name the model.")
    for model, tasks in card.scores.items():
        _check_scores(model, tasks)


def _check_scores(model: str, tasks: Mapping[str, LanguageScores]) -> None:
    for task, languages in tasks.items():
        for language, score in languages.items():
            value = score.get("p_at_1")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                where = f"score of {model}, task {task}, language {language}"
                raise CardError(f"{where}: p_at_1 is {value!r}, which is no fraction.")
