"""One reader of CSV and TSV files for every command that takes them: no line is dropped in silence."""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_DELIMITERS = (",", ";", "\t")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_STAYS_OPEN = re.compile(r'[^"]*(?:""[^"]*)*\Z')
"""A line inside a quoted cell that does not end it."""
LITERAL_MARK = "a quotation mark that nothing closes is kept as a character of the text"


@dataclass(frozen=True)
class Record:
    """A row of a table.

    Attributes:
        line: Line of the file on which it begins, counted from 1.
        cells: What stands in the file under each column; empty where the row is too short.
        excess: How many more cells it has than there are columns.
        literal: Whether a quotation mark at the start of a cell is none that quotes it.
    """

    line: int
    cells: Mapping[str, str]
    excess: int = 0
    literal: bool = False


class CsvTable:
    """A table in UTF-8 whose first line names its columns, with commas, semicolons or tabs between them.

    Cells are quoted as RFC 4180 has it, line breaks in them included. A quotation mark that begins a cell quotes it
    only if it is closed before a delimiter or the end of a line. Over several lines it must also give a record of as
    many cells as there are columns, and must not swallow lines that are such records themselves. Otherwise the mark
    belongs to the text, as in `"Hello, she said` without an end.

    Args:
        path: The file.
        needed: Columns of which the file must have at least one; the delimiter is the one that yields it.
        others: Further columns that the file may have.
        rename: Makes the name of any other column, or raises a `ValueError`; by default they stay as they are.
        errors: What is done with bytes that are not UTF-8, as `bytes.decode` takes it.

    Attributes:
        columns: Their names, in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not UTF-8, or its header lacks the columns, or has one twice.
    """

    def __init__(
        self,
        path: str | Path,
        needed: Sequence[str],
        others: Sequence[str] = (),
        rename: Callable[[str], str] = str,
        errors: str = "strict",
    ) -> None:
        self.path, self._errors = Path(path), errors
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        _, header = next(self._lines(), (1, ""))
        self._set_delimiter(header, needed)
        names = self._header(header)
        if not set(needed) & {name.casefold() for name in names}:
            columns = ", ".join(filter(None, names)) or "none"
            raise self.fault(f"no column {' or '.join(map(repr, needed))}; there are the columns {columns}")
        self.columns = tuple(self._column(name, (*needed, *others), rename) for name in names)
        doubled = [name for name, count in Counter(self.columns).items() if count > 1 and name]
        if doubled:
            raise self.fault(f"the column {doubled[0]!r} stands there {self.columns.count(doubled[0])} times")

    def fault(self, problem: str) -> ValueError:
        """An error in the header."""
        return ValueError(f"{self.path}, line 1: {problem}.")

    def __iter__(self) -> Iterator[Record]:
        """The rows; blank lines are none.

        Raises:
            ValueError: A line is not UTF-8; names it.
        """
        lines = _Lines(self._lines())
        next(lines)
        for number, line in lines:
            if line.strip():
                cells, literal = self._record(line, lines)
                excess = max(0, len(cells) - len(self.columns))
                padded = cells + [""] * len(self.columns)
                yield Record(number, dict(zip(self.columns, padded, strict=False)), excess, literal)

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The lines with their ends and numbers."""
        number = 0
        with open(self.path, "rb") as file:
            for content in file:
                try:
                    text = content.decode("utf-8" if number else "utf-8-sig", self._errors)
                except UnicodeDecodeError as error:
                    where = f"{self.path}, line {number + 1}"
                    raise ValueError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8.") from error
                for line in _LINE.findall(text):
                    number += 1
                    yield number, line

    def _set_delimiter(self, header: str, needed: Sequence[str]) -> None:
        """The first of the usual delimiters that makes a needed column of the header."""
        for sign in (*_DELIMITERS, _DELIMITERS[0]):
            self._delimiter = sign
            self._quoted = re.compile(rf'"([^"]*(?:""[^"]*)*)" *(?={re.escape(sign)}|\Z)')
            if {name.casefold() for name in self._header(header)} & set(needed):
                return

    def _header(self, line: str) -> list[str]:
        return [name.strip() for name in self._split(line.rstrip("\r\n"))[0]]

    def _column(self, name: str, expected: Sequence[str], rename: Callable[[str], str]) -> str:
        if name in expected:
            return name
        if name.casefold() in expected:
            logger.warning("%s, line 1: the column %r is read as %r", self.path, name, name.casefold())
            return name.casefold()
        try:
            return rename(name)
        except ValueError as error:
            raise self.fault(f"{name!r} cannot be a column: {error}") from error

    def _record(self, line: str, lines: _Lines) -> tuple[list[str], bool]:
        """Cells of the record that begins with a line, and whether a mark in it is literal."""
        cells, literal, is_open = self._split(line.rstrip("\r\n"))
        if is_open:
            joined = self._joined(line, lines)
            if joined is not None:
                return joined, False
        return cells, literal or is_open

    def _joined(self, first: str, lines: _Lines) -> list[str] | None:
        """Cells of a record over several lines, which are then taken; None if the lines are no such record."""
        joined = [first]
        for _, line in lines.ahead():
            joined.append(line)
            if _STAYS_OPEN.match(line):
                continue
            cells, literal, is_open = self._split("".join(joined).rstrip("\r\n"))
            if is_open:
                continue
            if literal or len(cells) != len(self.columns) or self._are_records(joined):
                return None
            lines.take(len(joined) - 1)
            return cells
        return None

    def _are_records(self, lines: Sequence[str]) -> bool:
        """Whether lines are records by themselves: the first and the last, and at least half of those between."""
        if len(self.columns) == 1:  # then every line is one
            return False
        whole = [len(self._split(line.rstrip("\r\n"))[0]) == len(self.columns) for line in lines]
        return whole[0] and whole[-1] and 2 * sum(whole[1:-1]) >= len(whole[1:-1])

    def _split(self, text: str) -> tuple[list[str], bool, bool]:
        """Cells of a text, and whether a mark at the start of one is literal, and whether one is not closed yet."""
        sign, cells, place = self._delimiter, [], 0
        literal = is_open = False
        while True:
            quoted = self._quoted.match(text, place)
            if quoted:
                cells.append(quoted[1].replace('""', '"'))
                place = quoted.end()
            else:
                end = text.find(sign, place)
                end = len(text) if end < 0 else end
                if text.startswith('"', place):
                    opened = _STAYS_OPEN.match(text, place + 1) is not None
                    literal, is_open = literal or not opened, is_open or opened
                cells.append(text[place:end])
                place = end
            if place >= len(text):
                return cells, literal, is_open
            place += len(sign)


class _Lines(Iterator[tuple[int, str]]):
    """Numbered lines that can be looked at before they are taken."""

    def __init__(self, lines: Iterable[tuple[int, str]]) -> None:
        self._rest = iter(lines)
        self._ahead: deque[tuple[int, str]] = deque()

    def __next__(self) -> tuple[int, str]:
        return self._ahead.popleft() if self._ahead else next(self._rest)

    def ahead(self) -> Iterator[tuple[int, str]]:
        """The lines that follow, which stay where they are."""
        yield from tuple(self._ahead)
        for line in self._rest:
            self._ahead.append(line)
            yield line

    def take(self, count: int) -> None:
        """Leaves out lines that were looked at."""
        for _ in range(count):
            self._ahead.popleft()
