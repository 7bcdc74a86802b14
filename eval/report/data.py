"""What the HTML report shows, as data that is checked before it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from xvlm2vec.common.languages import Language, language

from .before_after import ModelScores
from .failing import Failing

Role = Literal["english", "taught", "control"]
Model = Literal["teacher", "student"]

MODELS: tuple[Model, ...] = ("teacher", "student")


@dataclass(frozen=True)
class LanguageInfo(Language):
    """A language and its part in the experiment.

    Attributes:
        role: "english" (the teacher's language), "taught" or "control" (left out of distillation).
    """

    role: Role = "taught"

    @classmethod
    def of(cls, code: str, role: Role) -> LanguageInfo:
        """Takes names and direction of writing from :func:`xvlm2vec.common.languages.language`."""
        return cls(**vars(language(code)), role=role)


@dataclass(frozen=True)
class Answer:
    """One answer that a model could choose.

    Attributes:
        text: Its text, if any.
        image: Id of its image in :attr:`ReportData.images`, if any.
        correct: Whether it is the right answer.
    """

    text: str | None = None
    image: str | None = None
    correct: bool = False


@dataclass(frozen=True)
class Example:
    """One query with what both models found.

    Attributes:
        task: Task code.
        lang: Language code of the query.
        query_text: Text of the query, if any.
        query_image: Id of the query's image, if any.
        gold: The right answer.
        teacher: The teacher's best candidates, best first.
        student: The student's best candidates, best first.
        teacher_rank: Rank of the right answer for the teacher, from 1, if known; ties share the mean of theirs.
        student_rank: Rank of the right answer for the student, from 1, if known.
    """

    task: str
    lang: str
    query_text: str | None
    query_image: str | None
    gold: Answer
    teacher: Sequence[Answer]
    student: Sequence[Answer]
    teacher_rank: float | None = None
    student_rank: float | None = None


@dataclass(frozen=True)
class SearchEntry:
    """A name that the search box completes, with its precomputed results.

    Attributes:
        lang: Language code of the name.
        text: The name.
        gold: Id of the image that it names.
        teacher: Ids of the images that the teacher finds, best first.
        student: Ids of the images that the student finds, best first.
    """

    lang: str
    text: str
    gold: str
    teacher: Sequence[str]
    student: Sequence[str]


@dataclass(frozen=True)
class Credit:
    """A source or license to name.

    Attributes:
        text: What is credited, and under which license.
        url: Where to read more (http or https), if anywhere.
    """

    text: str
    url: str | None = None


@dataclass(frozen=True)
class Measure:
    """A measure of the vectors by language, such as translation accuracy.

    Attributes:
        name: Heading of its column.
        note: What it says and which way is better.
        values: Values by language: for each model in order, or only for the last one.
        percent: Whether to show it in percent.
    """

    name: str
    note: str
    values: Sequence[Mapping[str, float]]
    percent: bool = False


@dataclass
class ReportData:
    """Everything on the page.

    Attributes:
        title: Headline of the page.
        subtitle: A sentence or two under it.
        languages: In the order of their rows; exactly one has the role "english".
        tasks: Task code to label, in the order of the columns.
        scores: ``{"teacher"|"student": {task: {language: {"p_at_1": fraction, "n": count, "ci95": [low, high]}}}}``; a
            page of one model has only those of the student, and a cell that neither model has stays empty.
        seconds: Seconds of each stage.
        training_stages: Names in ``seconds`` that count as training; all of them if empty.
        parameters: Number of the student's parameters, if known.
        peak_rss_mb: Peak memory in MiB, if measured.
        facts: Settings and versions as (label, value).
        images: Id to image: encoded bytes (PNG, WebP, JPEG, GIF), or a PIL image, which is stored as a small WebP.
        captions: Id to a short English description, used as the image's alternative text.
        search: Entries of the search box.
        examples: Example queries.
        examples_note: How the examples were chosen.
        withheld: ``{"teacher"|"student": {language: score}}`` of concepts whose names distillation never
            saw, if measured.
        withheld_languages: Languages in which those names were withheld.
        credits: Sources and licenses.
        models: What to call the models before and after.
        taught_word: What sets the languages other than English and the controls apart.
        changes: ``{task: {language: {"difference": fraction, "ci95": [low, high], "p_value": p}}}``, the second model
            minus the first on the same rows.
        measures: What the vectors look like: a row per language and measure (see :class:`Measure`).
        sizes: Loss on smaller vectors, as `sizes.size_summary` has it.
        failing: Which languages fail, and why; it then comes first on the page.
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
    images: Mapping[str, bytes | Image.Image] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    search: Sequence[SearchEntry] = ()
    examples: Sequence[Example] = ()
    examples_note: str = ""
    withheld: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None
    withheld_languages: Sequence[str] = ()
    credits: Sequence[Credit] = ()
    models: tuple[str, str] = ("the English-only teacher", "the multilingual student that it taught")
    taught_word: str = "taught"
    changes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    measures: Sequence[Measure] = ()
    sizes: Sequence[Mapping[str, Any]] = ()
    failing: Failing | None = None

    @property
    def scored_models(self) -> list[Model]:
        """The models that were scored, in their order."""
        return [model for model in MODELS if model in self.scores]

    def codes(self, role: Role) -> list[str]:
        """Codes of the languages with a role, in the report's order."""
        return [lang.code for lang in self.languages if lang.role == role]


def check_report(data: ReportData) -> None:
    """Refuses data that would leave holes in the page."""
    codes = {lang.code for lang in data.languages}
    if len(codes) != len(data.languages):
        raise ValueError(f"languages are listed twice: {[lang.code for lang in data.languages]}")
    if len(data.codes("english")) > 1:
        raise ValueError(f"one language at most may have the role 'english', found {data.codes('english')}")
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
    """Both models need the same cells, so that they compare; withheld scores come from both."""
    if "student" not in data.scores:
        raise ValueError(f"scores of the 'student' are missing; found {sorted(data.scores)}")
    for task in data.tasks:
        scored = {model: codes & set(data.scores[model].get(task, {})) for model in data.scored_models}
        everywhere = set().union(*scored.values())
        if not everywhere:
            raise ValueError(f"task {task!r} was scored in no language of the report")
        for model, codes_scored in scored.items():
            if codes_scored != everywhere:
                raise ValueError(f"scores[{model!r}][{task!r}] lacks the languages {sorted(everywhere - codes_scored)}")
    never = codes - {code for task in data.tasks for code in data.scores["student"].get(task, {})}
    if never:
        raise ValueError(f"no task has scores of the languages {sorted(never)}")
    if data.withheld is not None:
        teacher, student = (set(data.withheld.get(model, {})) for model in MODELS)
        if teacher != student or not teacher <= codes:
            raise ValueError(
                "withheld needs the same languages of the report for 'teacher' and 'student', "
                f"found {sorted(teacher)} and {sorted(student)}"
            )
