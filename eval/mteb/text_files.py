"""Pairs of texts with scores, and texts to be found by texts, out of local files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvlm2vec.common.texts import is_blank

PAIR_COLUMNS = ("sentence1", "sentence2")
SCORE = "score"
TABLES = (".csv", ".jsonl")
CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"
_QREL_COLUMNS = ("query-id", "corpus-id", SCORE)


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of texts with the similarity that people, or a rule, gave them: the columns of a task of STS."""

    sentence1: list[str]
    sentence2: list[str]
    score: list[float]


@dataclass(frozen=True)
class Searched:
    """Texts to be found, queries, and which is right for which: what a retrieval task is made of.

    Attributes:
        corpus: Texts by id, a title before its text.
        queries: Texts by id, those with a right text.
        relevant: Grades by query and text.
    """

    corpus: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]


def read_pairs(path: Path) -> ScoredPairs:
    """Pairs of a CSV or a JSONL file with `sentence1`, `sentence2` and `score`.

    Raises:
        ValueError: A row lacks a text or a number, or no correlation can be computed; names file and line.
    """
    pairs = ScoredPairs([], [], [])
    for line, record in _records(path):
        first, second = (_text(record, name, path, line) for name in PAIR_COLUMNS)
        pairs.sentence1.append(first)
        pairs.sentence2.append(second)
        pairs.score.append(_number(record.get(SCORE), path, line))
    if len(set(pairs.score)) < 2:
        raise ValueError(f"{path} has {len(pairs.score)} pairs and {len(set(pairs.score))} different scores; a "
                         "correlation needs two or more.")  # fmt: skip
    return pairs


def read_searched(folder: Path) -> Searched:
    """A retrieval task in BEIR's layout: `corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv`.

    Raises:
        FileNotFoundError: One of the files is missing.
        ValueError: A line is damaged, an id occurs twice or is unknown, or no query has a right text; names file and
            line.
    """
    missing = [name for name in (CORPUS, QUERIES, QRELS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {' and '.join(missing)}; a retrieval task has {CORPUS}, {QUERIES} "
                                f"and {QRELS}.")  # fmt: skip
    corpus, queries = (_texts(folder / name) for name in (CORPUS, QUERIES))
    relevant: dict[str, dict[str, int]] = {}
    path = folder / QRELS
    for line, record in _records(path, "\t"):
        query, text, grade = (record.get(name) for name in _QREL_COLUMNS)
        for name, ids, file in ((query, queries, QUERIES), (text, corpus, CORPUS)):
            if name not in ids:
                raise ValueError(f"{path}, line {line}: there is no {name!r} in {file}.")
        number = _number(grade, path, line)
        if number != int(number):
            raise ValueError(f"{path}, line {line}: the score is {grade!r}, and grades are whole numbers.")
        if number > 0:
            relevant.setdefault(str(query), {})[str(text)] = int(number)
    if not relevant:
        raise ValueError(f"{path} has no query with a right text.")
    return Searched(corpus, {name: queries[name] for name in relevant}, relevant)


def _texts(path: Path) -> dict[str, str]:
    """Texts by id."""
    texts: dict[str, str] = {}
    for line, record in _records(path):
        name = record.get("_id", record.get("id"))
        if not isinstance(name, str | int) or not str(name):
            raise ValueError(f"{path}, line {line}: there is no _id.")
        if str(name) in texts:
            raise ValueError(f"{path}, line {line}: the id {str(name)!r} occurs twice.")
        title = record.get("title") or ""
        texts[str(name)] = f"{title} {_text(record, 'text', path, line)}".strip()
    return texts


def _records(path: Path, delimiter: str = ",") -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with the number of the line on which they end.

    Raises:
        ValueError: The file is not UTF-8, or a line is no JSON object.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix != ".jsonl":
                table = csv.DictReader(file, delimiter=delimiter, strict=True)
                yield from ((table.line_num, row) for row in table)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _object(line, path, number)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save the file as UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"{path} is no table with {delimiter!r} between its cells: {error}.") from error


def _object(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: no valid JSON ({error}).") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}, line {number}: a line must be an object, {{...}}.")
    return record


def _text(record: Mapping[str, Any], name: str, path: Path, line: int) -> str:
    text = record.get(name)
    if not isinstance(text, str) or is_blank(text):
        columns = ", ".join(map(str, record))
        raise ValueError(f"{path}, line {line}: there is no text under {name!r}; the columns are {columns}.")
    return text


def _number(value: Any, path: Path, line: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}, line {line}: the score is {value!r}, and must be a number.")
    return number
