"""Known faults of published data: captions that are none, found by rules and by hand.

A row is concerned if its own text has a fault, or that of one of its right answers. Rows stay as they were published;
results tell how many are concerned and what the score is without them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xvlm2vec.eval.ranking import RankingTask

SHARED_LABEL = "a label that two classes share"
DROPPED = "known faults of the data"

_SAID = re.compile(r"could ?n.t translate|could not translate|cannot translate", re.IGNORECASE)
# Japanese counters: a number before one of them counts something, before any other letter it numbers an entity.
_COUNTERS = (
    "人つ頭匹本台層色番個枚階羽両杯名歳才時分秒年月日回度機艘隻組軒列段輪面皿切棟点車種尾対足校号脚冊着等方玉束箱体の"
)
_ENTITY = re.compile(rf"(?<![0-9０-９.,:])[0-9]+(?![{_COUNTERS}])[^\W\d_]")


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: What results call it.
        is_faulty: Tells it from a text.
        benchmark: How the names of the benchmarks or data sets begin that have it; empty for all.
        language: The language that has it; empty for all.
    """

    name: str
    is_faulty: Callable[[str], bool]
    benchmark: str = ""
    language: str = ""


def _is_empty(text: str) -> bool:
    return not text.strip()


def _is_no_word(text: str) -> bool:
    """Signs alone, such as `?` and `@@`, or one letter again and again."""
    letters = [sign for sign in text if sign.isalnum()]
    return bool(text.strip()) and (not letters or (len(letters) > 4 and len(set(letters)) == 1))


FAULTS: Sequence[Fault] = (
    Fault("empty", _is_empty),
    Fault("no word", _is_no_word),
    Fault("the translator's excuse", lambda text: bool(_SAID.search(text))),
    Fault("keys hit at random", lambda text: text.strip() == "dfgdfg"),
    Fault("one or two words", lambda text: 0 < len(text.split()) <= 2, "XTD10", "ru"),
    Fault("numbers of entities", lambda text: bool(_ENTITY.search(text)), "XFlickr30kCo", "ja"),
    Fault("ends in |", lambda text: text.rstrip().endswith("|"), "Tux Paint", "hi"),
)


def faulty_rows(
    names: Sequence[str], language: str, queries: Sequence[str | None], golds: Sequence[Sequence[str | None]]
) -> dict[str, list[int]]:
    """The rows that each known fault concerns.

    Args:
        names: The benchmark and the data set.
        language: Code of the language.
        queries: The text of each row, without any instruction.
        golds: The texts of its right answers.
    """
    rules = [fault for fault in FAULTS if _applies(fault, names, language)]
    found: dict[str, list[int]] = {}
    seen: dict[str, list[str]] = {}
    for row, (query, answers) in enumerate(zip(queries, golds, strict=True)):
        concerned = set[str]()
        for text in (query, *answers):
            if text is not None:
                if text not in seen:
                    seen[text] = [fault.name for fault in rules if fault.is_faulty(text)]
                concerned.update(seen[text])
        for name in sorted(concerned):
            found.setdefault(name, []).append(row)
    return found


def _applies(fault: Fault, names: Sequence[str], language: str) -> bool:
    here = any(name.startswith(fault.benchmark) for name in names)
    return here and fault.language in ("", language.split("-")[0])


def without_faults(task: RankingTask) -> RankingTask | None:
    """A task without the rows that have known faults, which count as skipped; None if no row is left.

    Candidates stay: only what is asked becomes less.
    """
    faulty = sorted({row for rows in task.faults.values() for row in rows})
    kept = np.setdiff1d(np.arange(len(task.queries)), faulty)
    if not len(kept):
        return None
    if not faulty:
        return task
    reasons: Mapping[str, int] = {**task.skipped_for, DROPPED: len(faulty)}
    return replace(
        task,
        queries=[task.queries[row] for row in kept],
        candidate_index=task.candidate_index[kept],
        row_ids=np.asarray(task.row_ids)[kept],
        gold_counts=None if task.gold_counts is None else np.asarray(task.gold_counts)[kept],
        grades=None if task.grades is None else [task.grades[row] for row in kept],
        skipped=task.skipped + len(faulty),
        skipped_for=reasons,
        faults={},
        asked=None if task.asked is None else replace(task.asked, texts=[task.asked.texts[row] for row in kept]),
    )
