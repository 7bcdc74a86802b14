"""The rows of `encode --csv`: every one gets its vector or is told with its line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from xvlm2vec.commands.encode import read_table


def write(tmp_path: Path, content: str) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    path = tmp_path / "rows.csv"
    path.write_text(content, encoding="utf-8")
    return path


def test_a_comma_without_quotes_is_told_and_the_other_rows_keep_their_numbers(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, 'text,image\na dog, asleep,red.png\n"a dog, asleep",red.png\n'), None)

    assert [row and (row.text, row.image) for row in rows.rows] == [None, ("a dog, asleep", "red.png")]
    assert rows.bad == {0: "line 2: 1 cells too many; put texts with commas in double quotes"}


@pytest.mark.parametrize("header", ["text, image", "\ufeffText;Image ", "text\timage"])
def test_headers_and_delimiters(tmp_path: Path, header: str) -> None:
    sign = next(sign for sign in ";\t," if sign in header)
    rows = read_table(write(tmp_path, f"{header}\n a dog{sign}red.png\n"), None)

    assert [row and (row.text, row.image) for row in rows.rows] == [(" a dog", "red.png")]


def test_columns_that_are_doubled_missing_or_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="the column 'text' stands there 2 times"):
        read_table(write(tmp_path, "text,text\na,b\n"), None)
    with pytest.raises(ValueError, match="no column 'text' or 'image'; there are the columns caption, img"):
        read_table(write(tmp_path, "caption,img\na,b\n"), None)
    with caplog.at_level(logging.WARNING):
        read_table(write(tmp_path, "text,img\na,b\n"), None)
    assert "not read are the columns img" in caplog.text


def test_marks_without_an_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = read_table(write(tmp_path, 'image,text\nred.png,"a dog\n,a cat\n,"a fish"\n'), None)

    assert [row and row.text for row in rows.rows] == ['"a dog', "a cat", "a fish"]
    assert "line 2: a quotation mark that nothing closes" in caplog.text
