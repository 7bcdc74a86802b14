"""One reader of CSV and TSV files for every command that takes them: no line is dropped in silence."""

from __future__ import annotations

import codecs
import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_DELIMITERS = (",", ";", "\t")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_STAYS_OPEN = re.compile(r'[^"]*(?:""[^"]*)*\Z')
"""A line inside a quoted cell that does not end it."""
LITERAL_MARK = "a quotation mark that nothing closes is kept as a character of the text"


class Place(NamedTuple):
    """Where a line begins.

    Attributes:
        byte: Its first byte, counted from 0.
        line: Its number, counted from 1.
    """

    byte: int
    line: int


_FIRST = Place(0, 1)


class _Line(NamedTuple):
    """A line with its end."""

    text: str
    start: Place
    end: Place


@dataclass(frozen=True)
class Record:
    """A row of a table.

    Attributes:
        line: Line of the file on which it begins, counted from 1.
        cells: What stands in the file under each column; empty where the row is too short.
        excess: How many more cells it has than there are columns.
        literal: Whether a quotation mark at the start of a cell is none that quotes it.
        start: Where it begins.
        end: Where what follows it begins.
    """

    line: int
    cells: Mapping[str, str]
    excess: int = 0
    literal: bool = False
    start: Place = _FIRST
    end: Place = _FIRST


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
        header = next((line.text for line in self._lines()), "")
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
        return self.records()

    def records(self, start: Place | None = None) -> Iterator[Record]:
        """The rows, or those from a place on at which one begins.

        Args:
            start: The `start` or `end` of a row; None for all rows.

        Raises:
            ValueError: A line is not UTF-8; names it.
        """
        lines = _Lines(self._lines(start))
        if start is None:
            next(lines)
        for line in lines:
            if line.text.strip():
                cells, literal, end = self._record(line, lines)
                excess = max(0, len(cells) - len(self.columns))
                padded = cells + [""] * len(self.columns)
                values = dict(zip(self.columns, padded, strict=False))
                yield Record(line.start.line, values, excess, literal, line.start, end)

    def _lines(self, start: Place | None = None) -> Iterator[_Line]:
        """The lines, all or from a place on."""
        place = start or _FIRST
        with open(self.path, "rb") as file:
            file.seek(place.byte)
            for content in file:
                if not place.byte and content.startswith(codecs.BOM_UTF8):
                    place, content = Place(len(codecs.BOM_UTF8), 1), content[len(codecs.BOM_UTF8) :]
                try:
                    text = content.decode("utf-8", self._errors)
                except UnicodeDecodeError as error:
                    where = f"{self.path}, line {place.line}"
                    raise ValueError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8.") from error
                for line in _LINE.findall(text):
                    end = Place(place.byte + len(line.encode("utf-8", self._errors)), place.line + 1)
                    yield _Line(line, place, end)
                    place = end

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

    def _record(self, line: _Line, lines: _Lines) -> tuple[list[str], bool, Place]:
        """Cells of the record that begins with a line, whether a mark in it is literal, and where it ends."""
        cells, literal, is_open = self._split(line.text.rstrip("\r\n"))
        if is_open:
            joined = self._joined(line.text, lines)
            if joined is not None:
                return joined[0], False, joined[1]
        return cells, literal or is_open, line.end

    def _joined(self, first: str, lines: _Lines) -> tuple[list[str], Place] | None:
        """Cells and end of a record over several lines, which are then taken; None if the lines are no such record."""
        joined = [first]
        for line in lines.ahead():
            joined.append(line.text)
            if _STAYS_OPEN.match(line.text):
                continue
            cells, literal, is_open = self._split("".join(joined).rstrip("\r\n"))
            if is_open:
                continue
            if literal or len(cells) != len(self.columns) or self._are_records(joined):
                return None
            lines.take(len(joined) - 1)
            return cells, line.end
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


class _Lines(Iterator[_Line]):
    """Lines that can be looked at before they are taken."""

    def __init__(self, lines: Iterable[_Line]) -> None:
        self._rest = iter(lines)
        self._ahead: deque[_Line] = deque()

    def __next__(self) -> _Line:
        return self._ahead.popleft() if self._ahead else next(self._rest)

    def ahead(self) -> Iterator[_Line]:
        """The lines that follow, which stay where they are."""
        yield from tuple(self._ahead)
        for line in self._rest:
            self._ahead.append(line)
            yield line

    def take(self, count: int) -> None:
        """Leaves out lines that were looked at."""
        for _ in range(count):
            self._ahead.popleft()
