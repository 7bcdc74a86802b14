"""The self-contained HTML report: scores before and after, examples with their pictures, a search box, how it was made.

:class:`ReportData` holds everything that the page shows. The page is one file: pictures are data URIs, style and script
are inline, and a content security policy forbids it to load anything. ``report.html`` is its Jinja2 template.
"""

import base64
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from .before_after import MEAN_TASKS, ModelScores, mean_over_tasks
from .languages import Language, language

Role = Literal["english", "taught", "control"]
Model = Literal["teacher", "student"]

_MODELS: tuple[Model, ...] = ("teacher", "student")
_GROUPS: tuple[tuple[Role, str], ...] = (
    ("english", "English"),
    ("taught", "Taught"),
    ("control", "Control: never taught"),
)
_SIGNATURES = {b"\x89PNG": "image/png", b"RIFF": "image/webp", b"\xff\xd8": "image/jpeg", b"GIF8": "image/gif"}

# Colour stops of the heat map from 0 to 100 %; luminance is monotone, so that colour blindness
# and print keep their order.
_LIGHT_STOPS = ((0xF3, 0xEF, 0xE6), (0xA9, 0xD3, 0xD3), (0x3E, 0x8F, 0xB0), (0x17, 0x3F, 0x7A))
_DARK_STOPS = ((0x1E, 0x25, 0x31), (0x24, 0x4C, 0x6E), (0x2F, 0x94, 0xA8), (0xA8, 0xEB, 0xC6))
_INKS = ("#ffffff", "#000000")


@dataclass(frozen=True)
class LanguageInfo(Language):
    """A language and its part in the experiment.

    Attributes:
        role: "english" (the teacher's language), "taught" or "control" (left out of distillation).
    """

    role: Role = "taught"

    @classmethod
    def of(cls, code: str, role: Role) -> "LanguageInfo":
        """Takes names and direction from :func:`xvlm2vec.eval.languages.language`."""
        known = language(code)
        return cls(known.code, known.name, known.native_name, known.rtl, role)


@dataclass(frozen=True)
class Candidate:
    """One answer that a model could choose.

    Attributes:
        text: Its text, if any.
        picture: Id of its picture in :attr:`ReportData.pictures`, if any.
        correct: Whether it is the right answer.
    """

    text: str | None = None
    picture: str | None = None
    correct: bool = False


@dataclass(frozen=True)
class Example:
    """One query with what both models found.

    Attributes:
        task: Task code.
        lang: Language code of the query.
        query_text: Text of the query, if any.
        query_picture: Id of the query's picture, if any.
        gold: The right answer.
        teacher: The teacher's best candidates, best first.
        student: The student's best candidates, best first.
        teacher_rank: Rank of the right answer for the teacher, from 1, if known.
        student_rank: Rank of the right answer for the student, from 1, if known.
    """

    task: str
    lang: str
    query_text: str | None
    query_picture: str | None
    gold: Candidate
    teacher: Sequence[Candidate]
    student: Sequence[Candidate]
    teacher_rank: int | None = None
    student_rank: int | None = None


@dataclass(frozen=True)
class SearchEntry:
    """A name that the search box completes, with its precomputed results.

    Attributes:
        lang: Language code of the name.
        text: The name.
        gold: Id of the picture that it names.
        teacher: Ids of the pictures that the teacher finds, best first.
        student: Ids of the pictures that the student finds, best first.
    """

    lang: str
    text: str
    gold: str
    teacher: Sequence[str]
    student: Sequence[str]


@dataclass(frozen=True)
class Credit:
    """A source or licence to name.

    Attributes:
        text: What is credited, and under which licence.
        url: Where to read more (http or https), if anywhere.
    """

    text: str
    url: str | None = None


@dataclass
class ReportData:
    """Everything on the page.

    Attributes:
        title: Headline of the page.
        subtitle: A sentence or two under it.
        languages: In the order of their rows; exactly one has the role "english".
        tasks: Task code to label, in the order of the columns.
        scores: ``{"teacher"|"student": {task: {language: {"p_at_1": fraction, "n": count, "ci95": [low, high]}}}}``.
        seconds: Seconds of each stage.
        training_stages: Names in ``seconds`` that count as training; all of them if empty.
        parameters: Number of the student's parameters, if known.
        peak_rss_mb: Peak memory in MiB, if measured.
        facts: Settings and versions as (label, value).
        pictures: Id to picture: encoded bytes (PNG, WebP, JPEG, GIF) or a PIL image, which is stored as WebP.
        captions: Id to a short English description, used as the picture's alternative text.
        search: Entries of the search box.
        examples: Example queries.
        examples_note: How the examples were chosen.
        withheld: ``{"teacher"|"student": {language: score}}`` of concepts whose names distillation never
            saw, if measured.
        withheld_languages: Languages in which those names were withheld.
        credits: Sources and licences.
        models: What to call the models before and after.
    """

    title: str
    subtitle: str
    languages: Sequence[LanguageInfo]
    tasks: Mapping[str, str]
    scores: Mapping[str, ModelScores]
    seconds: Mapping[str, float] = field(default_factory=dict)
    training_stages: Sequence[str] = ()
    parameters: int | None = None
    peak_rss_mb: float | None = None
    facts: Sequence[tuple[str, str]] = ()
    pictures: Mapping[str, bytes | Image.Image] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    search: Sequence[SearchEntry] = ()
    examples: Sequence[Example] = ()
    examples_note: str = ""
    withheld: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None
    withheld_languages: Sequence[str] = ()
    credits: Sequence[Credit] = ()
    models: tuple[str, str] = ("the English-only teacher", "the multilingual student that it taught")

    def codes(self, role: Role) -> list[str]:
        """Codes of the languages with a role, in the report's order."""
        return [lang.code for lang in self.languages if lang.role == role]


def render_report(data: ReportData) -> str:
    """Renders the page.

    Args:
        data: What to show.

    Returns:
        The HTML document.

    Raises:
        ValueError: If the data contradicts itself: a missing score, an unknown picture, language or task, a picture of
            unknown format; the message names it.
    """
    _check(data)
    template = _environment().get_template("report.html")
    return template.render(
        data=data,
        groups=[(title, [lang for lang in data.languages if lang.role == role]) for role, title in _GROUPS],
        models=[("teacher", "Before", data.models[0]), ("student", "After", data.models[1])],
        mean_tasks=_mean_tasks(data),
        headline=_headline(data),
        cards=_cards(data),
        parity=_parity(data),
        payload=_payload(data),
    )


def write_report(data: ReportData, path: str | os.PathLike[str]) -> Path:
    """Renders the page into a file; a page that was there stays whole until the new one is complete.

    Args:
        data: What to show.
        path: The file to write; its folder is created.

    Returns:
        The path.

    Raises:
        ValueError: As :func:`render_report`.
        OSError: If the file cannot be written.
    """
    target = Path(path)
    html = render_report(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(html)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def heat_colours(fraction: float) -> dict[str, str]:
    """Colours of a heat map cell.

    Args:
        fraction: A score between 0 and 1.

    Returns:
        Hex colours: background and ink for light (``"l"``, ``"li"``) and dark pages (``"d"``, ``"di"``); the ink is the
        one of black and white with more contrast (relative luminance of WCAG 2.2).
    """
    light, dark = _mix(_LIGHT_STOPS, fraction), _mix(_DARK_STOPS, fraction)
    return {"l": _hex(light), "li": _ink(light), "d": _hex(dark), "di": _ink(dark)}


def _mix(stops: Sequence[tuple[int, int, int]], fraction: float) -> tuple[float, float, float]:
    """Linear interpolation between colour stops that divide [0, 1] evenly."""
    position = min(max(fraction, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(position), len(stops) - 2)
    part = position - index
    red, green, blue = (a + (b - a) * part for a, b in zip(stops[index], stops[index + 1], strict=True))
    return red, green, blue


def _hex(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in colour)


def _luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance of an sRGB colour with channels from 0 to 255."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _ink(colour: tuple[float, float, float]) -> str:
    """White or black, whichever reads better; at 0.179 both have the same contrast."""
    return _INKS[0] if _luminance(colour) < 0.179 else _INKS[1]


def _environment() -> Environment:
    """The template's environment; everything that is not marked safe is escaped."""
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"percent": _percent, "duration": _duration, "heat": heat_colours}
    env.globals["mean"] = mean_over_tasks
    env.tests["web"] = lambda url: bool(url) and url.startswith(("https://", "http://"))
    return env


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


def _mean_tasks(data: ReportData) -> list[str]:
    """The tasks of the means: those of the before/after picture, or all where none of them was run."""
    return [task for task in data.tasks if task in MEAN_TASKS] or list(data.tasks)


def _group_mean(data: ReportData, model: Model, codes: Sequence[str]) -> float:
    tasks = _mean_tasks(data)
    return sum(mean_over_tasks(data.scores[model], code, tasks) for code in codes) / len(codes)


def _pair(data: ReportData, codes: Sequence[str]) -> tuple[float, float]:
    """Mean of some languages before and after."""
    return _group_mean(data, "teacher", codes), _group_mean(data, "student", codes)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _headline(data: ReportData) -> str:
    """What happened, in one sentence that holds whatever the numbers are."""
    taught, controls = data.codes("taught"), data.codes("control")
    english = _pair(data, data.codes("english"))
    parts = []
    if taught:
        before, after = _pair(data, taught)
        verb = "rose" if after >= before else "fell"
        parts.append(
            f"The mean P@1 of {_count(len(taught), 'taught language')} {verb} "
            f"from {_percent(before)}% to {_percent(after)}%"
        )
    parts.append(f"English went from {_percent(english[0])}% to {_percent(english[1])}%")
    if controls:
        before, after = _pair(data, controls)
        parts.append(
            f"{_count(len(controls), 'language')} left out as a control from {_percent(before)}% to {_percent(after)}%"
        )
    return (", ".join(parts[:-1]) + ", and " + parts[-1] if len(parts) > 1 else parts[0]) + "."


def _cards(data: ReportData) -> list[dict[str, Any]]:
    """The key figures: pairs before and after, then single values."""
    cards: list[dict[str, Any]] = []
    for role, label in (("taught", "Taught"), ("english", "English"), ("control", "Controls")):
        codes = data.codes(cast(Role, role))
        if codes:
            before, after = _pair(data, codes)
            counted = label if role == "english" else f"{label} ({len(codes)})"
            cards.append({"label": counted, "before": before, "after": after})
    gaps = [gap for gap in _parity(data).gaps if gap.lang.role == "taught"]
    if gaps:
        widest = max(gaps, key=lambda gap: gap.after)
        points = f"{100 * widest.after:.1f}"
        cards.append({"label": "Widest gap", "value": points, "unit": "points", "note": widest.lang.name})
    if data.seconds:
        total = sum(data.seconds.values())
        training = sum(
            s for stage, s in data.seconds.items() if not data.training_stages or stage in data.training_stages
        )
        value, unit = _duration(training).split(" ")
        note = f"of {_duration(total)} in all" if training < total else "all stages"
        cards.append({"label": "Training" if training < total else "Time", "value": value, "unit": unit, "note": note})
    if data.parameters:
        cards.append(
            {"label": "Model size", "value": f"{data.parameters / 1e6:.1f}", "unit": "million", "note": "parameters"}
        )
    return cards


@dataclass(frozen=True)
class _Gap:
    """How far a language stays behind English as fractions; negative where it is ahead."""

    lang: LanguageInfo
    before: float
    after: float


@dataclass(frozen=True)
class _Parity:
    """The gaps of all languages, and the axis that holds their bars."""

    gaps: list[_Gap]
    low: float
    span: float


def _parity(data: ReportData) -> _Parity:
    """Measures each language's gap to the same model's English."""
    english = _pair(data, data.codes("english"))
    gaps = []
    for lang in data.languages:
        if lang.role != "english":
            before, after = _pair(data, [lang.code])
            gaps.append(_Gap(lang, english[0] - before, english[1] - after))
    values = [0.0, *(gap.before for gap in gaps), *(gap.after for gap in gaps)]
    return _Parity(gaps, min(values), max(max(values) - min(values), 0.01))


def _check(data: ReportData) -> None:
    """Refuses data that would leave holes in the page."""
    codes = {lang.code for lang in data.languages}
    if len(codes) != len(data.languages):
        raise ValueError(f"languages are listed twice: {[lang.code for lang in data.languages]}")
    if len(data.codes("english")) != 1:
        raise ValueError(f"exactly one language must have the role 'english', found {data.codes('english')}")
    if not data.tasks:
        raise ValueError("no tasks were given; tasks maps each task code to its label")
    _check_scores(data, codes)
    for index, example in enumerate(data.examples):
        if example.task not in data.tasks or example.lang not in codes:
            raise ValueError(
                f"examples[{index}]: task {example.task!r} or language {example.lang!r} is not in the report"
            )
    for index, entry in enumerate(data.search):
        if entry.lang not in codes:
            raise ValueError(
                f"search[{index}] ({entry.text!r}) is in {entry.lang!r}, a language that is not in the report"
            )


def _check_scores(data: ReportData, codes: set[str]) -> None:
    """Every cell of the heat maps needs a score; withheld scores come from both models."""
    for model in _MODELS:
        for task in data.tasks:
            missing = sorted(codes - set(data.scores.get(model, {}).get(task, {})))
            if missing:
                raise ValueError(f"scores[{model!r}][{task!r}] lacks the languages {missing}")
    if data.withheld is not None:
        teacher, student = (set(data.withheld.get(model, {})) for model in _MODELS)
        if teacher != student or not teacher <= codes:
            raise ValueError(
                "withheld needs the same languages of the report for 'teacher' and 'student', "
                f"found {sorted(teacher)} and {sorted(student)}"
            )


def _data_uri(key: str, picture: bytes | Image.Image) -> str:
    """Encodes a picture for an ``img`` element; without loss, because few pixels shown large betray every artefact."""
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.convert("RGBA" if "A" in picture.getbands() else "RGB").save(buffer, "WEBP", lossless=True, method=4)
        picture = buffer.getvalue()
    for signature, mime in _SIGNATURES.items():
        if picture.startswith(signature):
            return f"data:{mime};base64,{base64.b64encode(picture).decode('ascii')}"
    raise ValueError(f"picture {key!r} is neither PNG, WebP, JPEG nor GIF; give a PIL image or encoded bytes")


def _payload(data: ReportData) -> Markup:
    """The script's data as JSON that is safe inside a ``script`` element; pictures are referred to by their index."""
    index = {key: number for number, key in enumerate(data.pictures)}

    def picture(key: str | None, where: str) -> int:
        if key is None:
            return -1
        if key not in index:
            raise ValueError(f"{where} refers to picture {key!r}, which is not among the {len(index)} pictures")
        return index[key]

    def candidate(item: Candidate, where: str) -> list[Any]:
        return [item.text, picture(item.picture, where), int(item.correct)]

    content = {
        "pictures": [_data_uri(key, value) for key, value in data.pictures.items()],
        "captions": [data.captions.get(key, "") for key in data.pictures],
        "languages": [[lang.code, lang.name, lang.native_name, int(lang.rtl), lang.role] for lang in data.languages],
        "tasks": list(data.tasks.items()),
        "search": [
            [entry.lang, entry.text, picture(entry.gold, f"search[{i}]")]
            + [[picture(key, f"search[{i}]") for key in found] for found in (entry.teacher, entry.student)]
            for i, entry in enumerate(data.search)
        ],
        "examples": [
            {
                "task": example.task,
                "lang": example.lang,
                "text": example.query_text,
                "picture": picture(example.query_picture, f"examples[{i}]"),
                "gold": candidate(example.gold, f"examples[{i}]"),
                "found": [
                    [candidate(item, f"examples[{i}]") for item in found]
                    for found in (example.teacher, example.student)
                ],
                "ranks": [example.teacher_rank, example.student_rank],
            }
            for i, example in enumerate(data.examples)
        ],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return Markup(text.translate(str.maketrans(cast(dict[str, str | int | None], escapes))))
