"""JSONL and CSV files for the check: every line counts, also one that cannot be read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from xvlm2vec.common.files import replaced_file
from xvlm2vec.common.languages import normal_or_same
from xvlm2vec.corpus.csv_reader import CsvTable, Place, Record
from xvlm2vec.corpus.image_folder import ImageFolder
from xvlm2vec.corpus.readers.fields import parse_line
from xvlm2vec.corpus.readers.records import LineFields
from xvlm2vec.corpus.rows import ENGLISH, RejectedRow, RowFault
from xvlm2vec.corpus.rules.registry import LINE

from .chunks import CHUNK, Chunk, Judged


def _problem_of(folder: Path) -> Callable[[str], str | None]:
    """Tells what is wrong with an image below a folder, if anything is."""
    images = ImageFolder(folder)

    def problem(name: str) -> str | None:
        try:
            images.find(name)
        except RowFault as fault:
            return fault.problem
        return None

    return problem


class JsonlSource:
    """A JSONL file: a line is an English text with one translation.

    Args:
        path: The file.
        images: The folder of images; by default the file's.
        fields: Names of the fields.
        chunk: Rows that are judged at once.
    """

    unit = "line"

    def __init__(
        self,
        path: str | Path,
        images: str | Path | None = None,
        fields: LineFields | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self.path, self.name, self.fields = Path(path), str(path), fields or LineFields()
        self._images, self._chunk = images, chunk
        self.image_problem = _problem_of(Path(images) if images else self.path.parent)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self._images, self.fields, self._chunk)

    def chunks(self, survey: bool = False, start: tuple[int, int] | None = None) -> Iterator[Chunk]:
        """The lines that are not blank; a start is a place in the file and its line."""
        byte, first_line = start or (0, 1)
        chunk = Chunk(start=(byte, first_line))
        with open(self.path, "rb") as file:
            file.seek(byte)
            for place, line in enumerate(file, first_line):
                byte += len(line)
                if not line.strip():
                    continue
                try:
                    chunk.add(place, *self._read(line), line)
                except RowFault as fault:
                    chunk.unreadable.append(RejectedRow(LINE, fault.problem, file=self.name, line=place))
                if len(chunk) + len(chunk.unreadable) >= self._chunk:
                    yield chunk
                    chunk = Chunk(chunk.first + len(chunk), start=(byte, place + 1))
        yield chunk

    def _read(self, line: bytes) -> tuple[str, str, str, str, str | None]:
        values, fields = parse_line(line), self.fields
        english, text, code = (_string(values, name) for name in (fields.english, fields.text, fields.language))
        name, image = values.get("id"), values.get(fields.image)
        if not isinstance(image, str | None):
            raise RowFault(LINE, f"{fields.image!r} holds {image!r:.80}, which is no path")
        return "" if name is None else str(name), english, text, code, image or None

    @contextmanager
    def writer(self, folder: Path) -> Iterator[JsonlWriter]:
        """Writes `kept.jsonl`."""
        with replaced_file(folder / "kept.jsonl") as draft, open(draft, "wb") as file:
            yield JsonlWriter(file, self.fields)


def _string(values: Any, name: str) -> str:
    if name not in values:
        raise RowFault(LINE, f"no field {name!r}; there are {', '.join(values) or 'none'}"[:300])
    text = values[name]
    if not isinstance(text, str | None):
        raise RowFault(LINE, f"{name!r} holds {text!r:.80}, which is no text")
    text = text or ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowFault(LINE, f"{name!r} holds a character that does not exist") from error
    return text


class JsonlWriter:
    """Writes kept lines: as they were, or with the repaired fields.

    Args:
        file: The file.
        fields: Names of the fields.
    """

    def __init__(self, file: IO[bytes], fields: LineFields) -> None:
        self._file, self._fields = file, fields

    def add(self, judged: Judged) -> None:
        """Takes the next chunk."""
        fields, batch = self._fields, judged.batch
        for row, line in enumerate(judged.chunk.items):
            if not judged.kept[row]:
                continue
            if judged.is_changed(row):
                repaired = {fields.english: batch.english.texts[row], fields.text: batch.text.texts[row],
                            fields.language: batch.codes[row]}  # fmt: skip
                line = json.dumps({**parse_line(line), **repaired}, ensure_ascii=False).encode()
            self._file.write(line.rstrip(b"\r\n") + b"\n")


class CsvSource:
    """A CSV with a column per language: a row is an English cell with the cell of one language.

    Args:
        path: The file.
        images: The folder of images; by default the file's.
    """

    unit = "line"

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        self.path, self.name, self._images = Path(path), str(path), images
        self.image_problem = _problem_of(Path(images) if images else self.path.parent)
        self.table = CsvTable(path, (ENGLISH,), ("image", "id"), normal_or_same, errors="surrogateescape")
        self.languages = [name for name in self.table.columns if name not in {ENGLISH, "image", "id", ""}]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self._images)

    def chunks(self, survey: bool = False, start: Place | None = None) -> Iterator[Chunk]:
        """The rows of the table; one without a translation counts once."""
        chunk = Chunk(start=start)
        for number, record in enumerate(self.table.records(start)):
            fault = _record_fault(record)
            if fault:
                chunk.unreadable.append(RejectedRow(LINE, fault, file=self.name, line=record.line))
            else:
                cells = record.cells
                name, image = cells.get("id", "").strip(), cells.get("image", "").strip() or None
                codes = [code for code in self.languages if cells[code]] or [""]
                for code in codes:
                    text = cells[code] if code else ""
                    chunk.add(record.line, name, cells[ENGLISH], text, code, image, (number, cells))
            if len(chunk) + len(chunk.unreadable) >= CHUNK:
                yield chunk
                chunk = Chunk(chunk.first + len(chunk), start=record.end)
        yield chunk

    @contextmanager
    def writer(self, folder: Path) -> Iterator[CsvWriter]:
        """Writes `kept.csv`."""
        with replaced_file(folder / "kept.csv") as draft, open(draft, "w", encoding="utf-8", newline="") as file:
            yield CsvWriter(file, self.table.columns)


def _record_fault(record: Record) -> str:
    if record.excess:
        return f"{record.excess} cells too many; put texts with commas in double quotes"
    try:
        "".join(record.cells.values()).encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    return ""


class CsvWriter:
    """Writes kept rows, with commas between the columns; a translation that is dropped leaves its cell empty.

    Args:
        file: The file.
        columns: The columns.
    """

    def __init__(self, file: IO[str], columns: Sequence[str]) -> None:
        self._columns = columns
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(columns)

    def add(self, judged: Judged) -> None:
        """Takes the next chunk, which holds whole rows of the table."""
        records: dict[int, dict[str, str]] = {}
        for row, (number, cells) in enumerate(judged.chunk.items):
            if not judged.kept[row]:
                continue
            others = {name: cells[name] for name in ("image", "id") if name in cells}
            record = records.setdefault(number, {ENGLISH: judged.batch.english.texts[row], **others})
            record[judged.batch.codes[row]] = judged.batch.text.texts[row]
        for record in records.values():
            self._writer.writerow([record.get(name, "") for name in self._columns])
