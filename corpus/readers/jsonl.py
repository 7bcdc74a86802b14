"""JSONL files: a line per language, or a line with all its translations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xvlm2vec.corpus.rows import RowFault

from .fields import parse_line, record_of
from .lines import read_lines, stem_of
from .records import Entries, ReadOptions, files_of, rejected

PATTERNS = ("**/*.jsonl", "**/*.jsonl.gz", "**/*.ndjson")


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """Lines with `text_en` and either `text` and `lang`, or `translations`; and perhaps `id`, `image`, `source`."""
    for path in files_of(inputs, PATTERNS, "JSONL file"):
        for number, line in read_lines(path):
            place = {"file": str(path), "line": number}
            try:
                if isinstance(line, RowFault):
                    raise line
                yield record_of(parse_line(line), options.fields, place, stem_of(path))
            except RowFault as fault:
                yield rejected(fault, place)
