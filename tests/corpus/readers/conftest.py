from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from xvlm2vec.corpus.readers.layouts import LAYOUTS
from xvlm2vec.corpus.readers.reading import ReadResult, read_corpus
from xvlm2vec.corpus.readers.records import ReadOptions
from xvlm2vec.corpus.schema import validate_parallel_rows
from xvlm2vec.corpus.stored import load_parallel


class Read(NamedTuple):
    """What a layout gave: counts, the rows by their ids, and the report."""

    result: ReadResult
    rows: dict[str, dict[str, Any]]
    report: dict[str, Any]

    def texts(self, name: str) -> dict[str, str]:
        return {"en": self.rows[name]["text_en"]} | {i["lang"]: i["text"] for i in self.rows[name]["translations"]}

    def color(self, name: str) -> tuple[int, ...] | None:
        image = self.rows[name]["image"]
        return image.convert("RGB").getpixel((0, 0)) if image else None


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Makes an image of one color, as a file has it."""

    def make(*color: int, kind: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), color).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Read]:
    """Reads a layout, and checks what all must hold: rows of the schema, counts that add up, bad rows in the report."""

    def run(
        layout: str, *inputs: Path, images: Path | None = None, drop_null_words: bool = False, **options: Any
    ) -> Read:
        known, output = LAYOUTS[layout], tmp_path / "output"
        entries = known.read(inputs, ReadOptions(**options))
        result = read_corpus(entries, output, images, known.together, drop_null_words)
        corpus = load_parallel(output / "parallel")
        report = json.loads((output / "bad-rows.json").read_text(encoding="utf-8"))
        assert validate_parallel_rows(corpus) == len(corpus) == result.rows
        assert result.records == result.kept + result.bad.total() + result.left_out.total()
        assert result.bad.total() == report["bad"] == len(report["bad_rows"])
        return Read(result, {row["id"]: row for row in corpus}, report)

    return run
