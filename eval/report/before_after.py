"""The before/after image: one row per language, from the teacher's mean P@1 to the student's, as an SVG."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from xvlm2vec.common.languages import language

ModelScores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""``{task: {language: {"p_at_1": fraction, ...}}}`` of one model."""

_TASK_NAMES = {"c": "classification", "i2t": "image to text", "t2i": "text to image", "vg": "grounding"}

MEAN_TASKS = tuple(_TASK_NAMES)
"""Tasks whose mean stands for a language."""

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _GROUP = 860, 176, 56, 108, 27, 28
_BEFORE, _AFTER, _INK, _MUTED, _GRID = "#b4560f", "#1f5fbf", "#1c1f26", "#5b6270", "#e7e4dd"
_HALO = 'paint-order="stroke" stroke="#fdfcfa" stroke-width="4" stroke-linejoin="round"'


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
    groups = [
        ("", [code for code in languages if code == english]),
        ("Taught", [code for code in languages if code in taught]),
        ("Control: never taught", [code for code in languages if code in controls]),
    ]
    groups = [(title, codes) for title, codes in groups if codes]
    reference = mean_over_tasks(scores["student"], english)

    rows: list[str] = []
    y = float(_TOP)
    for title, codes in groups:
        if title:
            rows.append(_group_title(title, y))
            y += _GROUP
        for code in codes:
            before, after = (mean_over_tasks(scores[model], code) for model in ("teacher", "student"))
            rows.append(_row(language(code).name, before, after, y))
            y += _ROW
    bottom = y + 2
    height = round(bottom + 46)
    tasks = [task for task in MEAN_TASKS if scores["student"].get(task)]
    parts = [
        _head(height, _title(scores, [code for code in languages if code in taught])),
        _axis(bottom, reference, tasks),
    ]
    return "\n".join([*parts, *rows, "</svg>"]) + "\n"


def _title(scores: Mapping[str, ModelScores], taught: Sequence[str]) -> str:
    """The finding as one line, from the data alone."""
    if not taught:
        return "Mean P@1 per language, before and after distillation"
    before, after = (
        sum(mean_over_tasks(scores[m], code) for code in taught) / len(taught) for m in ("teacher", "student")
    )
    plural = "" if len(taught) == 1 else "s"
    return f"{len(taught)} taught language{plural}: mean P@1 from {_percent(before)}% to {_percent(after)}%"


def _x(fraction: float) -> float:
    """Horizontal position of a P@1 in pixels."""
    return _LEFT + fraction * (_WIDTH - _LEFT - _RIGHT)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 13,
    fill: str = _INK,
    anchor: str = "start",
    weight: int = 400,
    halo: bool = False,
) -> str:
    """One line of text; a halo of the background's colour keeps it readable across grid lines."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}"{" " + _HALO if halo else ""}>{escape(text)}</text>'
    )


def _head(height: int, title: str) -> str:
    """Opening tag, background, title and legend."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" '
            'role="img" aria-labelledby="before-after-title" '
            "font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\">",
            f'<title id="before-after-title">{escape(title)}</title>',
            f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="14" '
            'fill="#fdfcfa" stroke="#dcd8cf"/>',
            _text(28, 42, title, size=21, weight=650),
            f'<circle cx="34" cy="66" r="5" fill="#fdfcfa" stroke="{_BEFORE}" stroke-width="2.5"/>',
            _text(46, 70.5, "before: English-only teacher", fill=_BEFORE, weight=600),
            f'<circle cx="286" cy="66" r="6" fill="{_AFTER}"/>',
            _text(298, 70.5, "after: multilingual student", fill=_AFTER, weight=600),
        ]
    )


def _axis(bottom: float, reference: float, tasks: Sequence[str]) -> str:
    """Grid lines with percentages, and the dashed line of the student's English."""
    parts = []
    for percent in (0, 25, 50, 75, 100):
        x = _x(percent / 100)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 16}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(x, bottom + 16, f"{percent}%" if percent else "0", size=12, fill=_MUTED, anchor="middle"))
    x = _x(reference)
    parts.append(
        f'<line x1="{x:.1f}" y1="{_TOP - 16}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{_AFTER}" '
        'stroke-dasharray="4 4" stroke-opacity="0.65"/>'
    )
    parts.append(_text(x, _TOP - 22, "English after", size=12, fill=_AFTER, anchor="middle"))
    parts.append(
        _text(
            _x(0.5),
            bottom + 34,
            f"P@1, mean over {', '.join(_TASK_NAMES[task] for task in tasks)}",
            size=12,
            fill=_MUTED,
            anchor="middle",
        )
    )
    return "\n".join(parts)


def _group_title(title: str, y: float) -> str:
    """A small heading with a rule, which sets a group of languages apart."""
    return "\n".join(
        [
            f'<line x1="28" y1="{y - 4:.1f}" x2="{_WIDTH - 28}" y2="{y - 4:.1f}" stroke="#cfcabf"/>',
            _text(28, y + 13, title, size=12, fill=_MUTED, weight=600),
        ]
    )


def _row(name: str, before: float, after: float, y: float) -> str:
    """One dumbbell with its language and both values."""
    x0, x1, cy = _x(before), _x(after), y + 8
    parts = [_text(_LEFT - 48, cy + 4.5, name, anchor="end", weight=500)]
    if abs(x1 - x0) > 60:
        side, outer, inner = (1, "start", "end") if x1 > x0 else (-1, "end", "start")
        parts.append(
            f'<line x1="{x0:.1f}" y1="{cy:.1f}" x2="{x1:.1f}" y2="{cy:.1f}" stroke="{_AFTER}" stroke-width="4" '
            'stroke-opacity="0.28" stroke-linecap="round"/>'
        )
        parts.append(_text(x0 - side * 11, cy + 4.5, _percent(before), fill=_BEFORE, anchor=inner, halo=True))
        parts.append(_text(x1 + side * 11, cy + 4.5, _percent(after), fill=_AFTER, anchor=outer, weight=650, halo=True))
    else:
        right = max(x0, x1) < _x(0.9)
        x, anchor = (max(x0, x1) + 12, "start") if right else (min(x0, x1) - 12, "end")
        parts.append(
            f'<text x="{x:.1f}" y="{cy + 4.5:.1f}" font-size="12" text-anchor="{anchor}" {_HALO}>'
            f'<tspan fill="{_BEFORE}">{_percent(before)}</tspan><tspan fill="{_MUTED}"> → </tspan>'
            f'<tspan fill="{_AFTER}" font-weight="650">{_percent(after)}</tspan></text>'
        )
    parts.append(f'<circle cx="{x1:.1f}" cy="{cy:.1f}" r="6" fill="{_AFTER}"/>')
    parts.append(
        f'<circle cx="{x0:.1f}" cy="{cy:.1f}" r="5" fill="#fdfcfa" fill-opacity="0.85" '
        f'stroke="{_BEFORE}" stroke-width="2.5"/>'
    )
    return "\n".join(parts)


def _percent(fraction: float) -> str:
    """A fraction as percent with one decimal, without the sign."""
    return f"{100 * fraction:.1f}"
