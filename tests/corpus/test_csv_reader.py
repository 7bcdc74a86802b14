"""Every line of a CSV or TSV is read or told, also where quotation marks do not quote."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

import pytest

from xvlm2vec.corpus.csv_reader import CsvTable


def table(tmp_path: Path, content: str | bytes, *needed: str) -> CsvTable:
    path = tmp_path / "rows.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return CsvTable(path, needed or ("en",), ("image", "id"))


def cells(tmp_path: Path, content: str) -> list[tuple[str, ...]]:
    return [tuple(record.cells.values()) for record in table(tmp_path, content)]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_programs_write_is_read_as_they_mean_it(tmp_path: Path, sign: str, end: str) -> None:
    rows = [
        ("plain", f"with {sign} inside", "x"),
        ('says "hi"', '"quoted"', ""),
        ("two\nlines", "and\n\nthree", "y"),
        ("last", "x", "two\nlines"),
        ('""', f'{sign}"{sign}', '"'),
    ]
    buffer = io.StringIO()
    quoting = csv.QUOTE_ALL if end == "\r" else csv.QUOTE_MINIMAL  # else `csv` leaves line feeds bare
    csv.writer(buffer, delimiter=sign, lineterminator=end, quoting=quoting).writerows([("en", "de", "fr"), *rows])

    content = buffer.getvalue().encode()
    records = list(table(tmp_path, content))

    assert [tuple(record.cells.values()) for record in records] == rows
    assert not any(record.literal or record.excess for record in records)


@pytest.mark.parametrize("sign", [",", "\t"])
@pytest.mark.parametrize(
    "rows",
    [
        [('"Hello, she said'.replace(",", ""), "Hallo"), ("a dog", "ein Hund")],
        [('"Hello', "Hallo"), ('he said "no"', "Nein"), ("a dog", "ein Hund")],
        [('"Hello', "Hallo"), ('"Bye', "Tschüss"), ("a dog", "ein Hund")],
        [('"Hello" she said', "Hallo"), ('a disc of 12"', "Scheibe")],
        [('"Hello', "Hallo"), ("a dog", "ein Hund"), ('a disc of 12"', "Scheibe"), ("a cat", "Katze")],
        [("Hello", '"Hallo'), ("a dog", "ein Hund"), ("bye", 'Tschüss"')],
        [('""Hello', "Hallo"), ("a dog", "ein Hund")],
        [("Hello", "Hallo"), ("a dog", '"ein Hund')],
    ],
)
def test_marks_that_nothing_closes_belong_to_the_text(tmp_path: Path, sign: str, rows: list[tuple[str, str]]) -> None:
    lines = [sign.join(row) for row in [("en", "de"), *rows]]

    records = list(table(tmp_path, "\n".join(lines) + "\n"))

    assert [tuple(record.cells.values()) for record in records] == rows
    assert [record.line for record in records] == list(range(2, len(rows) + 2))
    marked = [any(text.startswith('"') for text in row) for row in rows]
    assert [record.literal for record in records] == marked


def test_no_line_is_lost_among_all_kinds(tmp_path: Path) -> None:
    content = (
        "image,en,de\n"
        'a.png,"a cat, asleep",eine Katze\n'
        'b.png,"I came,Ich kam\n'
        'c.png,"two\nlines",zwei\n'
        "\n"
        "d.png,a cat, asleep,eine Katze\n"
        'e.png,I saw",Ich sah\n'
    )

    records = list(table(tmp_path, content))

    assert [(record.line, record.excess, record.literal) for record in records] == [
        (2, 0, False), (3, 0, True), (4, 0, False), (7, 1, False), (8, 0, False),
    ]  # fmt: skip
    assert records[1].cells["en"] == '"I came'
    assert records[2].cells["en"] == "two\nlines"


def test_one_column_with_line_breaks(tmp_path: Path) -> None:
    assert cells(tmp_path, 'en\n"two\nlines"\nthird\n') == [("two\nlines",), ("third",)]
    assert cells(tmp_path, 'en\n"no end\nthird\n') == [('"no end',), ("third",)]


def test_many_marks_take_no_longer_than_their_lines(tmp_path: Path) -> None:
    lines = ['"open,x', *['a ""b"" c,y'] * 20_000]
    assert len(list(table(tmp_path, "en,de\n" + "\n".join(lines)))) == 20_001


def test_headers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loose = table(tmp_path, "\ufeff Image ; EN ;de\nx.png;a, b;c\n")
    assert loose.columns == ("image", "en", "de")
    assert next(iter(loose)).cells == {"image": "x.png", "en": "a, b", "de": "c"}
    assert "the column 'EN' is read as 'en'" in caplog.text
    with pytest.raises(ValueError, match=r"line 1: no column 'text' or 'image'; there are the columns en, caption"):
        table(tmp_path, "en,caption\n", "text", "image")
    with pytest.raises(ValueError, match="the column 'en' stands there 2 times"):
        table(tmp_path, "en,de,En\n")


def test_other_encodings_are_told_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 3: not UTF-8 .*save the file as UTF-8"):
        list(table(tmp_path, "en,de\nfox,Hund\nfox,Füchse\n".encode("latin-1")))
    with pytest.raises(ValueError, match="line 1: not UTF-8"):
        table(tmp_path, "en,de\n".encode("utf-16"))
