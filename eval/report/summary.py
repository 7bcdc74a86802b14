"""What the scores of a report say, of one model or two: means, the gap to English, key figures and one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xvlm2vec.common.tasks import MEAN_TASKS

from .before_after import mean_over_tasks
from .data import LanguageInfo, Model, ReportData, Role
from .templates import percent


@dataclass(frozen=True)
class Gap:
    """How far a language stays behind English as fractions, for each model; negative where it is ahead."""

    lang: LanguageInfo
    values: list[float]


@dataclass(frozen=True)
class Parity:
    """The gaps of all languages, and the axis that holds their bars."""

    gaps: list[Gap]
    low: float
    span: float


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


def mean_tasks(data: ReportData) -> list[str]:
    """The tasks of the means: those of the before/after image, or all where none of them was run."""
    return [task for task in data.tasks if task in MEAN_TASKS] or list(data.tasks)


def headline(data: ReportData) -> str:
    """What happened, in one sentence that holds whatever the numbers are."""
    taught, english, controls = (_means(data, role) for role in ("taught", "english", "control"))
    counted = _count(len(data.codes("taught")), f"{data.taught_word} language")
    parts = []
    if taught:
        verb = "rose" if taught[-1] >= taught[0] else "fell"
        moved = f"{verb} from {percent(taught[0])}% to" if len(taught) > 1 else "is"
        parts.append(f"The mean P@1 of {counted} {moved} {percent(taught[-1])}%")
    if english:
        parts.append(f"English {_went(english)}")
    if controls:
        counted = _count(len(data.codes("control")), "language")
        parts.append(f"{counted} left out as a control {_went(controls).removeprefix('went ')}")
    return (", ".join(parts[:-1]) + ", and " + parts[-1] if len(parts) > 1 else parts[0]) + "."


def cards(data: ReportData) -> list[dict[str, Any]]:
    """The key figures: means of each model, then single values."""
    figures: list[dict[str, Any]] = []
    labels: dict[Role, str] = {"taught": data.taught_word.capitalize(), "english": "English", "control": "Controls"}
    for role, label in labels.items():
        if means := _means(data, role):
            counted = label if role == "english" else f"{label} ({len(data.codes(role))})"
            figures.append({"label": counted, "means": means})
    gaps = [gap for gap in parity(data).gaps if gap.lang.role == "taught"]
    if gaps:
        widest = max(gaps, key=lambda gap: gap.values[-1])
        points = f"{100 * widest.values[-1]:.1f}"
        figures.append({"label": "Widest gap", "value": points, "unit": "points", "note": widest.lang.name})
    return figures + _costs(data)


def parity(data: ReportData) -> Parity:
    """Measures each language's gap to the same model's English, over the tasks that both were scored on."""
    english = data.codes("english")
    gaps = []
    for lang in data.languages:
        tasks = [task for task in mean_tasks(data) if english and {english[0], lang.code} <= set(_scored(data, task))]
        if lang.role != "english" and tasks:
            gaps.append(Gap(lang, [_gap(data, model, english[0], lang.code, tasks) for model in data.scored_models]))
    values = [0.0, *(value for gap in gaps for value in gap.values)]
    return Parity(gaps, min(values), max(max(values) - min(values), 0.01))


def _costs(data: ReportData) -> list[dict[str, Any]]:
    figures = []
    if data.seconds:
        total = sum(data.seconds.values())
        training = sum(
            s for stage, s in data.seconds.items() if not data.training_stages or stage in data.training_stages
        )
        value, unit = duration(training).split(" ")
        note = f"of {duration(total)} in all" if training < total else "all stages"
        figures.append(
            {"label": "Training" if training < total else "Time", "value": value, "unit": unit, "note": note}
        )
    if data.parameters:
        figures.append(
            {"label": "Model size", "value": f"{data.parameters / 1e6:.1f}", "unit": "million", "note": "parameters"}
        )
    return figures


def _scored(data: ReportData, task: str) -> Sequence[str]:
    """Languages that a task was scored in."""
    return list(data.scores["student"].get(task, {}))


def _gap(data: ReportData, model: Model, english: str, code: str, tasks: Sequence[str]) -> float:
    scores = data.scores[model]
    return sum(scores[task][english]["p_at_1"] - scores[task][code]["p_at_1"] for task in tasks) / len(tasks)


def _means(data: ReportData, role: Role) -> list[float]:
    """Each model's mean over the languages of a role, each language counting the same; empty if there are none."""
    tasks_of = {code: [task for task in mean_tasks(data) if code in _scored(data, task)] for code in data.codes(role)}
    chosen = [(code, tasks) for code, tasks in tasks_of.items() if tasks]
    if not chosen:
        return []
    return [
        sum(mean_over_tasks(data.scores[model], code, tasks) for code, tasks in chosen) / len(chosen)
        for model in data.scored_models
    ]


def _went(means: Sequence[float]) -> str:
    way = f"went from {percent(means[0])}% to" if len(means) > 1 else "is at"
    return f"{way} {percent(means[-1])}%"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
