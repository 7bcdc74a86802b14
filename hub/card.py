"""The card of a release: what is known is said, what is not known is left out."""

import functools
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassFieldValidationError

from xvlm2vec.common.files import write_json, write_text
from xvlm2vec.common.languages import hub_languages, normal_or_same
from xvlm2vec.common.renamed import renamed_keywords
from xvlm2vec.common.tasks import TASK_TITLES
from xvlm2vec.common.templates import render_template
from xvlm2vec.modeling.hub_ids import is_hub_id

from .staging import ExportError

SCORES_FILE = "scores.json"
TAGS = ("sentence-transformers", "transformers", "xvlm2vec", "feature-extraction", "multimodal", "multilingual")
IMAGE_SIZE = (224, 224)
_SIZE_FIELDS = ("dim", "precision", "bytes", "p_at_1", "loss", "worst_language", "worst_loss")

T = TypeVar("T")
LanguageScores = Mapping[str, Mapping[str, Any]]
"""`{language: {"p_at_1": fraction, "n": rows, "ci95": [low, high]}}`."""


class CardError(ExportError):
    """A field of a card has the wrong type or an impossible value; the message names it."""


@dataclass(frozen=True)
class LossNote:
    """A loss that the model was trained with, and the BibTeX entry to cite for it (may be empty)."""

    name: str
    citation: str = ""


def _checked(cls: type[T]) -> type[T]:
    """Lets the constructor of a strict dataclass raise what a release raises."""
    initial = cls.__init__

    @functools.wraps(initial)
    def checked(self: Any, *arguments: Any, **values: Any) -> None:
        try:
            initial(self, *arguments, **values)
        except StrictDataclassFieldValidationError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # the innermost names the entry
                cause = cause.__cause__
            raise CardError(f"a card does not take this: {cause}.") from error

    cls.__init__ = checked  # type: ignore[method-assign]
    return cls


# Its annotations are read when the program runs, so this module cannot have them as strings.
@renamed_keywords(licence="license", english_drift="english_change_points")
@_checked
@strict
@dataclass
class ReleaseCard:
    """What the cards of a release say. Everything but the name may be left out.

    Args:
        name: Name of the model.
        repo_id: Hub id or folder that the snippets load; the name if `None`.
        description: A paragraph in Markdown.
        languages: Language codes that the model is meant for.
        base_model: Id of the model that training started from.
        base_model_relation: `"finetune"`, `"adapter"`, `"merge"` or `"quantized"`.
        method: The method of training, in a few words.
        license: Identifier of the weights' license as the Hub spells it, such as `"apache-2.0"`.
        datasets: Ids or names of the training data.
        tags: Further tags.
        losses: Losses of the training.
        hyperparameters: Settings of the training.
        versions: Library versions of the training.
        scores: `{model: {task: {language: {"p_at_1", "n", "ci95"}}}}`; `"student"` is the released model.
        english_change_points: What English gained or lost by distillation, in points of P@1, per task.
        sizes: What smaller vectors cost, one entry per size as `results.json` has it under `sizes.summary`: `dim`,
            `precision`, `bytes`, `p_at_1`, `loss`, `worst_language` and `worst_loss`.
        limits: What the model cannot do, a sentence each.
        adapter_id: Id or folder of the adapter alone, if there is one.
        adapter_base: Id or folder of the model below the adapter.
        base_revision: Its revision.
        benchmark_id: Id of the benchmark that the scores are from.
        native_id: Id of the same model without remote code, if there is one.
        on_hub: Whether the ids are those of repositories on the Hub, to which cards may link.
        emissions: What the training emitted, if it was measured: `"emissions"` in grams of CO2 equivalents, and as the
            Hub names them `"source"`, `"hardware_used"`, `"geographical_location"`, `"training_type"`.
        drift: Of an activated adapter that was merged, how far it moved rows of each `"kind"`: the number of `"rows"`
            that were measured, the largest `"distance"` (1 - cosine) and the largest `"difference"` of a value.
    """

    name: str
    repo_id: str | None = None
    description: str = ""
    languages: list[str] | tuple[str, ...] = ()
    base_model: str | None = None
    base_model_relation: str = "finetune"
    method: str = ""
    license: str | None = None
    datasets: list[str] | tuple[str, ...] = ()
    tags: list[str] | tuple[str, ...] = ()
    losses: list[LossNote] | tuple[LossNote, ...] = ()
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)
    english_change_points: dict[str, float | int] = field(default_factory=dict)
    sizes: list[dict[str, Any]] | tuple[dict[str, Any], ...] = ()
    limits: list[str] | tuple[str, ...] = ()
    adapter_id: str | None = None
    adapter_base: str | None = None
    base_revision: str | None = None
    benchmark_id: str | None = None
    native_id: str | None = None
    on_hub: bool = False
    emissions: dict[str, Any] = field(default_factory=dict)
    drift: list[dict[str, Any]] | tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise CardError("card field 'name' is empty; name the model.")
        for task, points in self.english_change_points.items():
            if not math.isfinite(points):
                raise CardError(f"card field 'english_change_points': {points!r} of task {task} is no number.")
        grams = self.emissions.get("emissions", 0)
        if not _is_number(grams) or grams < 0:
            raise CardError(f"card field 'emissions': {grams!r} is no weight in grams.")
        _check_scores(self.scores)
        _check_sizes(self.sizes)


def write_card(
    folder: str | os.PathLike[str],
    card: ReleaseCard,
    *,
    prompts: Mapping[str, str] | None = None,
    image_size: tuple[int, int] | None = None,
    dims: int | None = None,
    weights: str | None = None,
    adapter_base: str | None = None,
    base_revision: str | None = None,
    own_form: Collection[str] = (),
    own_code: bool = False,
    original_diff: Sequence[str] = (),
    taught: Sequence[str] = (),
    zero_drift: str = "",
    with_alora: bool = False,
    base_place: str | None = None,
) -> Path:
    """Writes `README.md`, and returns its path.

    Args:
        folder: The folder of the release.
        card: What to say.
        prompts: The model's named instructions.
        image_size: Width and height of the image in the snippets.
        dims: Values of a vector.
        weights: How many weights there are, and in which precision.
        adapter_base: Given for the card of an adapter: the model below it.
        base_revision: Its revision.
        own_form: Given for an embedder in the form in which it came: the kinds of rows that it takes.
        own_code: Whether such an embedder runs code of its folder.
        original_diff: How its files differ from the original's.
        taught: The languages of adapters beside the model.
        zero_drift: What was measured of them: that they move no vector of their base.
        with_alora: Whether they are there in PEFT's own form, too.
        base_place: Where that stays, if its weights are no part of the release.
    """
    is_adapter = adapter_base is not None
    if is_adapter:
        card = replace(card, scores={}, english_change_points={}, sizes=())
    values = {item.name: getattr(card, item.name) for item in fields(card)}
    values |= {
        "is_adapter": is_adapter,
        "merged_id": card.repo_id if is_adapter else None,
        "repo_id": (card.adapter_id if is_adapter else card.repo_id) or card.name,
        "adapter_base": adapter_base or card.adapter_base,
        "base_revision": base_revision or card.base_revision,
        "languages": list(map(normal_or_same, card.languages)),
        "prompts": prompts or {},
        "image_size": image_size or IMAGE_SIZE,
        "dims": dims,
        "weights": weights,
        "score_tables": score_tables(card.scores),
        "task_titles": TASK_TITLES,
        "own_form": own_form,
        "own_code": own_code,
        "original_diff": original_diff,
        "taught": taught,
        "zero_drift": zero_drift,
        "with_alora": with_alora,
        "base_place": base_place,
    }
    path = Path(folder) / "README.md"
    content = render_template("model_card.md", card_data=card_data(card, adapter_base).to_yaml(), **values)
    ModelCard(content).save(path)
    return path


def card_data(card: ReleaseCard, adapter_base: str | None = None) -> ModelCardData:
    """The metadata of a card; `adapter_base` makes it that of an adapter."""
    is_adapter = adapter_base is not None
    results = eval_results(card)
    base = adapter_base if is_adapter else card.base_model
    languages: dict[str, Any] = {**hub_languages(card.languages)} if card.languages else {}
    return ModelCardData(
        **languages,
        license=card.license,
        library_name="peft" if is_adapter else "sentence-transformers",
        pipeline_tag="feature-extraction",
        base_model=base,
        base_model_relation=("adapter" if is_adapter else card.base_model_relation) if base else None,
        datasets=[name for name in card.datasets if is_hub_id(name)] or None,  # others are told in the text
        tags=list(dict.fromkeys([*TAGS, *card.tags])),
        metrics=["precision_at_1"] if results else None,
        model_name=card.name if results else None,
        eval_results=results or None,
        co2_eq_emissions=dict(card.emissions) or None,
    )


def eval_results(card: ReleaseCard) -> list[EvalResult]:
    """The released model's scores, as a `model-index` holds them: P@1 in percent."""
    benchmark = card.benchmark_id or "multilingual multimodal embedding benchmark"
    return [
        EvalResult(
            task_type="retrieval",
            task_name=TASK_TITLES.get(task, task),
            dataset_type=benchmark,
            dataset_name=f"{benchmark} ({task}, {language})",
            dataset_config=task,
            dataset_split=language,
            metric_type="precision_at_1",
            metric_name="P@1",
            metric_value=round(100 * float(score["p_at_1"]), 2),
        )
        for task, languages in card.scores.get("student", {}).items()
        for language, score in languages.items()
    ]


def score_tables(scores: Mapping[str, Mapping[str, LanguageScores]]) -> list[dict[str, Any]]:
    """One table per model, the released one first: a row per language, a column per task."""
    titles = {"student": "This model:", "teacher": "Before training in these languages (the teacher):"}
    names = [name for name in titles if scores.get(name)] + [name for name in scores if name not in titles]
    return [_score_table(titles.get(name, f"{name}:"), scores[name]) for name in names]


def write_license_note(folder: str | os.PathLike[str], card: ReleaseCard) -> Path:
    """Writes `LICENSE`: under which terms the code and the weights are."""
    path = Path(folder) / "LICENSE"
    write_text(path, render_template("license.txt", license=card.license, base_model=card.base_model))
    return path


def write_scores(folder: str | os.PathLike[str], card: ReleaseCard) -> Path | None:
    """Writes the card's scores, before and after, as `scores.json` for programs to read; nothing if it has none."""
    if not card.scores:
        return None
    path = Path(folder) / SCORES_FILE
    write_json(path, {"scores": card.scores, "english_change_points": card.english_change_points})
    return path


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The YAML block at the head of a card."""
    _, block, _ = Path(path).read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(block)


def _score_table(title: str, tasks: Mapping[str, LanguageScores]) -> dict[str, Any]:
    languages = list(dict.fromkeys(language for scores in tasks.values() for language in scores))
    heads = [f"{TASK_TITLES.get(task, task)}{_size(scores)}" for task, scores in tasks.items()]
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_sizes(sizes: Sequence[Mapping[str, Any]]) -> None:
    for number, size in enumerate(sizes):
        missing = sorted(set(_SIZE_FIELDS) - set(size))
        if missing:
            raise CardError(f"card field 'sizes': entry {number} lacks {', '.join(missing)}.")


def _check_scores(scores: Mapping[str, Mapping[str, LanguageScores]]) -> None:
    leaves = [
        (f"score of {model}, task {task}, language {language}", score)
        for model, tasks in scores.items()
        for task, languages in tasks.items()
        for language, score in languages.items()
    ]
    for where, score in leaves:
        value, interval = score.get("p_at_1"), score.get("ci95")
        if not _is_fraction(value):
            raise CardError(f"{where}: p_at_1 is {value!r}, which is no fraction.")
        is_pair = isinstance(interval, list | tuple) and len(interval) == 2 and all(map(_is_fraction, interval))
        if interval is not None and not is_pair:
            raise CardError(f"{where}: ci95 is {interval!r}; expected the lower and the upper end, as fractions.")
        if not isinstance(score.get("n", 0), int):
            raise CardError(f"{where}: n is {score['n']!r}; expected the number of rows.")


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1
