"""The rules that look at a row alone: here, or by several workers, each of which reads the chunks that it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xvlm2vec.common.workers import WorkerError, first_failing
from xvlm2vec.corpus.rules.batch import Batch
from xvlm2vec.corpus.rules.length import length_ratio
from xvlm2vec.corpus.rules.registry import IMAGE, LENGTH, TEXT_RULES
from xvlm2vec.corpus.rules.rows import image_faults
from xvlm2vec.corpus.rules.rule import Action, Finding, Rule

from .chunks import Chunk, Source

Done = tuple[Action, Finding]
"""A finding, and what is done about it."""


def row_rules(source: Source, ratios: Mapping[str, float]) -> list[Rule]:
    """The rules: what is wrong with a row's texts, and then with its image.

    Args:
        source: Knows its images.
        ratios: Usual lengths of translations in the corpus, by language.
    """
    texts = [
        replace(rule, find=lambda batch: length_ratio(batch, ratios)) if rule.name == LENGTH else rule
        for rule in TEXT_RULES
    ]
    return [*texts, Rule(IMAGE, "images that are missing or cannot be read", image_faults(source.image_problem))]


def counted(rule: Rule, findings: Iterable[Finding], kept: list[bool]) -> list[Done]:
    """What a rule finds in rows that are still kept; rows that it drops are no longer.

    Args:
        rule: The rule.
        findings: What it finds.
        kept: Whether each row is kept; changed here.
    """
    done = []
    for finding in findings:
        if not kept[finding.row]:
            continue
        action = rule.action
        if action is Action.REPAIR and not finding.is_repair:
            action = Action.DROP
        kept[finding.row] = action is not Action.DROP
        done.append((action, finding))
    return done


def repair(batch: Batch, done: Sequence[Done]) -> None:
    """Puts repaired texts into their rows."""
    repairs = [finding for action, finding in done if action is Action.REPAIR]
    batch.replace(
        {finding.row: finding.english for finding in repairs if finding.english is not None},
        {finding.row: finding.text for finding in repairs if finding.text is not None},
    )


@dataclass(frozen=True)
class RowFindings:
    """What the rules of rows find in a chunk.

    Attributes:
        findings: Of each rule, in their order.
        digest: Tells the chunk from others.
    """

    findings: list[list[Finding]]
    digest: int


class RowRules:
    """Judges chunks of a source by the rules of rows: what a worker does.

    Args:
        source: The file or folder, which the worker reads itself.
        ratios: Usual lengths of translations in the corpus, by language.
        actions: What is done about the faults of each rule; one that is not named is not asked.
    """

    def __init__(self, source: Source, ratios: Mapping[str, float], actions: Mapping[str, Action]) -> None:
        self._source = source
        self._rules = [
            replace(rule, action=actions[rule.name]) for rule in row_rules(source, ratios) if rule.name in actions
        ]

    def __call__(self, start: Any) -> RowFindings:
        """What is found in the chunk that begins at a place.

        Raises:
            WorkerError: A rule fails; names the row, if it fails at one alone.
        """
        chunk = next(iter(self._source.chunks(start=start)))
        try:
            return RowFindings(self._findings(chunk), chunk.digest())
        except Exception as error:
            raise WorkerError(f"{self._place(chunk)}: {type(error).__name__}: {error}") from error

    def _findings(self, chunk: Chunk) -> list[list[Finding]]:
        batch, kept, found = chunk.batch(), [True] * len(chunk), []
        for rule in self._rules:
            done = counted(rule, rule.find(batch), kept)
            repair(batch, done)
            found.append([finding for _, finding in done])
        return found

    def _place(self, chunk: Chunk) -> str:
        """Where the row is at which a rule fails, or where the chunk is."""
        row = first_failing(lambda rows: self._findings(chunk.row(rows[0])), range(len(chunk)))
        places = chunk.places if row is None else [chunk.places[row]]
        where = f"{self._source.unit} {places[0]}" + ("" if len(places) == 1 else f" to {places[-1]}")
        return f"{self._source.name}, {where}"
