"""Chunks of rows pass through the rules, and what these find is counted and told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xvlm2vec.corpus.rows import RejectedRow
from xvlm2vec.corpus.rules.batch import Batch
from xvlm2vec.corpus.rules.registry import LINE
from xvlm2vec.corpus.rules.rule import Action, Finding, Rule
from xvlm2vec.corpus.scoring.scorer import Scorer, spooled

from .chunks import Chunk, Judged, Source
from .page import Example
from .rejects import RejectsFile
from .result import CheckResult
from .row_rules import RowFindings, counted, repair

MEANING = "meaning"
"""What is told of rows whose translations may mean something else."""
_EXAMPLES = 3
"""Examples of each rule and language on the page."""


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

    def chunk(self, chunk: Chunk, found: RowFindings | None = None) -> Judged:
        """Judges the rows of a chunk: a row that one rule dropped is no longer looked at.

        Args:
            chunk: The rows.
            found: What a worker found by the first rules, which are then not asked here.

        Raises:
            RuntimeError: The worker read other rows.
        """
        if found is not None and found.digest != chunk.digest():
            raise RuntimeError(f"a worker read other rows of {self._source.name}: all must see the same file under "
                               "this path, and it must stay as it is")  # fmt: skip
        for row in chunk.unreadable:
            self._drop(LINE, row, "", Example(row.line or row.row or 0, "", "", row.problem))
        batch = chunk.batch()
        repairs: set[tuple[int, str]] = set()
        kept = [True] * len(chunk)
        done = [] if found is None else found.findings
        for number, rule in enumerate(self._rules):
            findings = done[number] if number < len(done) else rule.find(batch)
            repaired = self._apply(rule, findings, chunk, batch, kept)
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

    def _apply(self, rule: Rule, findings: Iterable[Finding], chunk: Chunk, batch: Batch, kept: list[bool]) -> set[int]:
        """Does what a rule asks for, tells it, and gives the rows that it repaired."""
        done = counted(rule, findings, kept)
        told: set[int] = set()
        for action, finding in done:
            row, example = finding.row, _example(finding, chunk, batch)
            if action is Action.DROP:
                self._drop(rule.name, self._rejected(rule.name, finding, chunk, batch), batch.codes[row], example)
                continue
            if action is Action.TELL:
                self._result.told[rule.name] += row not in told
                told.add(row)
                if self._rejects is not None:
                    self._rejects.tell(self._rejected(rule.name, finding, chunk, batch))
            self._example(rule.name, batch.codes[row], example)
        repair(batch, done)
        return {finding.row for action, finding in done if action is Action.REPAIR}

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
