"""The before/after image: one row per language, from the teacher's mean P@1 to the student's, as an SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from xvlm2vec.common.languages import language
from xvlm2vec.common.tasks import MEAN_TASKS, TASK_TITLES

from .templates import environment

ModelScores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""``{task: {language: {"p_at_1": fraction, ...}}}`` of one model."""

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _GROUP = 860, 176, 56, 108, 27, 28  # pixels
_COLORS = {"orange": "#b4560f", "blue": "#1f5fbf", "ink": "#1c1f26", "muted": "#5b6270"}


def mean_over_tasks(scores: ModelScores, code: str, tasks: Sequence[str] = MEAN_TASKS) -> float:
    """Averages one language's P@1 over tasks, each task counting the same.

    Args:
        scores: Scores of one model.
        code: Language code.
        tasks: Tasks to average over; those without any score at all are left out.

    Returns:
        Mean P@1 as a fraction.

    Raises:
        ValueError: If none of the tasks was scored, or one that was scored lacks the language.
    """
    present = [task for task in tasks if scores.get(task)]
    if not present:
        raise ValueError(f"no scores for any of the tasks {list(tasks)}; scored are {sorted(scores)}")
    missing = [task for task in present if code not in scores[task]]
    if missing:
        raise ValueError(f"language {code!r} has no score in {missing}; a mean over fewer tasks would not compare")
    return sum(float(scores[task][code]["p_at_1"]) for task in present) / len(present)


def before_after_svg(
    scores: Mapping[str, ModelScores],
    languages: Sequence[str],
    taught: Sequence[str],
    controls: Sequence[str],
    english: str = "en",
) -> str:
    """Draws teacher and student per language as dumbbells on a percent axis.

    The image has a background of its own, so that it reads on white and on dark pages, and uses only the viewer's
    own sans-serif font.

    Args:
        scores: ``{"teacher"|"student": {task: {language: {"p_at_1": fraction}}}}``.
        languages: Codes in the order of their rows; of these, English, the taught and the control languages are drawn.
        taught: Codes that were taught by distillation.
        controls: Codes that were left out.
        english: The reference language.

    Returns:
        The SVG document.

    Raises:
        ValueError: If a language has no score, or a model is missing.
    """
    for model in ("teacher", "student"):
        if model not in scores:
            raise ValueError(f"scores of the {model!r} are missing; found {sorted(scores)}")
    means = {code: [mean_over_tasks(scores[model], code) for model in ("teacher", "student")] for code in languages}
    groups, y = [], float(_TOP)
    for heading, group in (("", [english]), ("Taught", taught), ("Control: never taught", controls)):
        if codes := [code for code in languages if code in group]:
            first = y + _GROUP if heading else y
            rows = [(language(code).name, *means[code], first + number * _ROW) for number, code in enumerate(codes)]
            groups.append((heading, y, rows))
            y = first + len(codes) * _ROW
    template = environment(x=lambda fraction: _LEFT + fraction * (_WIDTH - _LEFT - _RIGHT))
    tasks = ", ".join(TASK_TITLES[task].lower() for task in MEAN_TASKS if scores["student"].get(task))
    return template.get_template("before_after.svg").render(
        width=_WIDTH, height=round(y + 48), left=_LEFT, top=_TOP, bottom=y + 2, groups=groups,
        title=_title([means[code] for code in languages if code in taught]), reference=means[english][1], tasks=tasks,
        **_COLORS,
    )  # fmt: skip


def _title(taught: Sequence[Sequence[float]]) -> str:
    """The finding as one line, from the means before and after of each taught language."""
    if not taught:
        return "Mean P@1 per language, before and after distillation"
    before, after = (f"{100 * sum(values) / len(taught):.1f}" for values in zip(*taught, strict=True))
    plural = "" if len(taught) == 1 else "s"
    return f"{len(taught)} taught language{plural}: mean P@1 from {before}% to {after}%"
