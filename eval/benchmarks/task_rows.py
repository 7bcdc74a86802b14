"""The rows of one ranking task before instructions and styles are put in place: what every benchmark is read into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xvlm2vec.eval.ranking import Asked, RankingTask, Row

from .faults import faulty_rows
from .instructions import Templates, apply_style, sides_for, templates_hash

Images = str | tuple[str, ...] | None
Content = tuple[str | None, Images]
"""Text and image of a candidate, without any instruction; either may be None."""

_QUESTIONS = {"vqa", "page"}  # their queries end in a question mark


@dataclass
class TaskRows:
    """The queries and candidates of one data set, task and language.

    Attributes:
        benchmark: Name of the benchmark.
        dataset: Name of the data set.
        task: Name of the task.
        language: Code of the language.
        where: The files, for messages.
        images: The images by the names that rows use.
        query_text: Whether every query has a text (or none has); None if queries differ.
        target_text: The same of the candidates.
        whole_pool: Whether everything that is right for any query competes for all of them.
        parallel: Whether row numbers name the same item in every language.
        drop_copies: Whether a candidate that a list names twice counts once; otherwise a doubled right one is an error.
        texts: Text of each query, or None.
        query_images: Image of each query, or its images in order, or None.
        candidates: The distinct candidates with their places.
        index: For each query the places of its candidates, the right ones first.
        gold_counts: How many of them are right; empty for one each.
        row_ids: Number of each query's row in the file, or of the item that it is about.
        skipped: Queries without text and image.
        skipped_for: Why, with the number of queries for each reason, where there is more than one.
        faults: Places of queries that a known fault concerns which their texts do not show, by its name.
    """

    benchmark: str
    dataset: str
    task: str
    language: str
    where: str
    images: Mapping[str, Any]
    query_text: bool | None = None
    target_text: bool | None = None
    whole_pool: bool = False
    parallel: bool = True
    drop_copies: bool = False
    texts: list[str | None] = field(default_factory=list)
    query_images: list[Images] = field(default_factory=list)
    candidates: dict[Content, int] = field(default_factory=dict)
    index: Any = field(default_factory=list)
    gold_counts: list[int] = field(default_factory=list)
    row_ids: Any = field(default_factory=list)
    skipped: int = 0
    skipped_for: dict[str, int] = field(default_factory=dict)
    faults: dict[str, list[int]] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Count a query that cannot be asked."""
        self.skipped += 1
        self.skipped_for[reason] = self.skipped_for.get(reason, 0) + 1

    def add(
        self, row: int, text: str | None, image: Images, golds: Sequence[Content], others: Sequence[Content] = ()
    ) -> None:
        """Add a query.

        Args:
            row: Number of its row or item.
            text: Its text.
            image: Its image or images.
            golds: The right candidates.
            others: The wrong ones, if the row has a list of its own.

        Raises:
            ValueError: No candidate is right, a right one is empty, or one occurs twice; names file and row.
        """
        if not text and not image:
            self.skipped += 1
            return
        if not golds:
            raise ValueError(f"{self.where}: row {row} has no gold candidate")
        if not all(map(any, golds)):
            raise ValueError(f"{self.where}: row {row} has a gold candidate without text and image")
        right, wrong = self.number(golds), self.number(candidate for candidate in others if any(candidate))
        if len(set(right)) < len(right):
            raise ValueError(f"{self.where}: row {row} names a gold candidate twice")
        doubled = set(right).intersection(wrong)
        if doubled and not self.drop_copies:
            copy = golds[right.index(doubled.pop())]
            raise ValueError(f"{self.where}: row {row} lists its gold candidate {copy[0] or copy[1]!r} more than once")
        self.texts.append(text)
        self.query_images.append(image)
        self.row_ids.append(row)
        self.gold_counts.append(len(right))
        self.index.append(list(dict.fromkeys(right + wrong)) if self.drop_copies else right + wrong)

    def number(self, candidates: Iterable[Content]) -> list[int]:
        """Places of candidates; those that are new come last."""
        return [self.candidates.setdefault(candidate, len(self.candidates)) for candidate in candidates]

    def ranking_task(self, templates: Templates, style: str) -> RankingTask:
        """Put instructions and style in place.

        Args:
            templates: The instructions. `target` may be left out for candidates with a text, which then stay as they
                are.
            style: One of `instructions.STYLES`, or `VERBATIM`; for queries, and for the instructions of images.

        Raises:
            ValueError: An instruction is missing or has no place for a text that it needs; or as `RankingTask`.
        """
        query = self._template(templates, "query", self.language, self.query_text)
        target = self._template(templates, "target", self.language, self.target_text)
        mark = "?" if self.task in _QUESTIONS else "."
        try:
            return RankingTask(
                benchmark=self.benchmark,
                dataset=self.dataset,
                task=self.task,
                language=self.language,
                style=style,
                queries=[
                    Row(apply_style(_filled(query, text), style, mark), image)
                    for text, image in zip(self.texts, self.query_images, strict=True)
                ],
                candidates=[
                    Row(_filled(target, text) if text is not None else apply_style(_filled(target, text), style), image)
                    for text, image in self.candidates
                ],
                candidate_index=self.index,
                images=self.images,
                row_ids=np.asarray(self.row_ids),
                skipped=self.skipped,
                skipped_for=self.skipped_for,
                faults=self._faults(),
                asked=Asked(self.texts, lambda text, _: apply_style(self._in_english(templates, text), style, mark)),
                templates_hash=templates_hash(templates),
                instructions=(query, target),
                gold_counts=np.array(self.gold_counts) if self.gold_counts else None,
                whole_pool=self.whole_pool,
                parallel=self.parallel,
            )
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from error

    def _faults(self) -> dict[str, list[int]]:
        """The known faults of the queries' texts and of their right answers', and those that are noted."""
        answers = [text for text, _ in self.candidates]
        counts = self.gold_counts or [1] * len(self.texts)
        golds = [[answers[place] for place in row[:count]] for row, count in zip(self.index, counts, strict=True)]
        return faulty_rows((self.benchmark, self.dataset), self.language, self.texts, golds) | self.faults

    def _in_english(self, templates: Templates, text: str) -> str:
        return _filled(self._template(templates, "query", "en", self.query_text), text)

    def _template(self, templates: Templates, side: str, language: str, has_text: bool | None) -> str:
        template = sides_for(templates, self.task, language).get(side)
        what = f"for task {self.task!r} in language {language!r}"
        if side == "target" and not template and (has_text or (has_text is None and template is None)):
            template = "{text}"
        if template is None:
            raise ValueError(
                f"{self.where}: the templates have no {side!r} {what}; add "
                f'{{"{self.task}": {{"{language}": {{"{side}": ...}}}}}}'
            )
        if has_text is not None and has_text != ("{text}" in template):
            wants = "needs" if has_text else "must not have"
            raise ValueError(f"{self.where}: the {side} template {what} {wants} {{text}}: {template!r}")
        return template


def _filled(template: str, text: str | None) -> str:
    """The instruction with the row's text in its place.

    Raises:
        ValueError: It has no place for the text, which would be lost.
    """
    if text and "{text}" not in template:
        raise ValueError(f"the template {template!r} has no {{text}}, and a row has the text {text!r:.60}")
    return template.replace("{text}", text or "")
