"""The corpus of the xVLM2Vec paper: a line with an English text and the same in one language, and an image's path.

Its published form, `swap-uniba/xMMEB-train`, and the file that the paper's code writes have the fields `text_en`,
`text_lang`, `img_en` and `img_lang`. The latter file names no language: then the end of the file's name does
(`..._it.jsonl`), or the text itself, as far as it can be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import LANG, TEXT
from xvlm2vec.common.image_marks import strip_marks
from xvlm2vec.common.language_detection import likely_languages
from xvlm2vec.common.languages import normal_code, normal_or_same
from xvlm2vec.corpus.rows import RowFault

from .fields import parse_line
from .lines import read_lines, stem_of
from .records import Entries, ReadOptions, Record, files_of, rejected
from .tables import parquet_rows

LANGUAGES = ("it", "es", "fr", "de")
"""Those of the paper."""
_NAMES = ("lang", "language", "tgt_lang")
_SURE = 0.5
"""The probability from which a text's language is believed."""


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """Lines of JSONL files, or rows of parquet files."""
    for path in files_of(inputs, ("**/*.jsonl", "**/*.parquet"), "JSONL or parquet file"):
        language = _language_of_name(path)
        for place, values in _values(path):
            try:
                if isinstance(values, RowFault):
                    raise values
                yield _record(values, place, stem_of(path), language, options.languages or LANGUAGES)
            except RowFault as fault:
                yield rejected(fault, place)


def _values(path: Path) -> Iterator[tuple[dict[str, Any], Mapping[str, Any] | RowFault]]:
    if path.suffix == ".parquet":
        for number, row in parquet_rows(path):
            yield {"file": str(path), "row": number}, row
        return
    for number, line in read_lines(path):
        place = {"file": str(path), "line": number}
        try:
            yield place, line if isinstance(line, RowFault) else parse_line(line)
        except RowFault as fault:
            yield place, fault


def _record(
    values: Mapping[str, Any], place: Mapping[str, Any], source: str, language: str, choices: Sequence[str]
) -> Record:
    for name in ("text_en", "text_lang"):
        if not isinstance(values.get(name), str):
            raise RowFault("missing field", f"{name!r} holds no text; there are {', '.join(values) or 'none'}"[:300])
    said = next((str(values[name]) for name in _NAMES if values.get(name)), "")
    code = said or language or _told_by(values["text_lang"], choices)
    image = values.get("img_en") or values.get("img_lang")
    return Record(values["text_en"], place, source, [{LANG: code, TEXT: values["text_lang"]}], image or None)


def _language_of_name(path: Path) -> str:
    """The language that a file's name ends in, if it does."""
    match = re.search(r"_([a-z]{2,3})$", stem_of(path))
    try:
        return normal_code(match[1]) if match else ""
    except ValueError:
        return ""


def _told_by(text: str, choices: Sequence[str]) -> str:
    """The one of some languages that a text is in.

    Raises:
        RowFault: It cannot be told.
    """
    keys = {normal_or_same(code).split("-")[0]: code for code in choices}
    found = likely_languages([strip_marks(text) or ""])[0]
    code, probability = next(((keys[code], share) for code, share in found if code in keys), ("", 0.0))
    if probability < _SURE:
        raise RowFault("language unknown", f"the line names no language, and {text!r:.60} does not tell which of "
                       f"{', '.join(choices)} it is in")  # fmt: skip
    return code
