"""`xvlm2vec encode`."""

from __future__ import annotations

import argparse
import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xvlm2vec.common.files import write_json
from xvlm2vec.flags import console

if TYPE_CHECKING:
    from xvlm2vec.eval.ranking import Row

logger = logging.getLogger(__name__)

SUFFIXES = (".npy", ".safetensors")
KEY = "embeddings"
SHOWN = 5


@dataclass
class Rows:
    """What is to be embedded.

    Attributes:
        rows: One per input row; None for a bad one.
        images: Files of the images by the name that rows use.
        bad: What is wrong with bad rows, by number.
    """

    rows: list[Row | None] = field(default_factory=list)
    images: dict[str, Path] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and embeds what is not embedded yet; exit code 1 if a row was bad."""
    parser = _parser()
    flags = parser.parse_args(console.with_help(arguments))
    output = Path(flags.output)
    if output.suffix not in SUFFIXES:
        parser.error(f"--output {flags.output} must end in {' or '.join(SUFFIXES)}")
    console.set_up()
    rows = read_text(Path(flags.text)) if flags.text else read_table(Path(flags.csv), flags.images)
    if not any(rows.rows):
        raise ValueError(f"{flags.text or flags.csv} has no row that can be embedded"
                         f"{': row 0: ' + rows.bad[0] if 0 in rows.bad else ''}.")  # fmt: skip
    vectors = embed(flags, rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_vectors(vectors, output)
    console.show(f"Wrote {vectors.shape[0]} vectors of {vectors.shape[1]} values to {output}")
    return _report(rows, output)


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "encode",
        "Embeds the lines of a text file, or the rows of a CSV with the columns text and image (one may be missing or "
        "empty), into a file with one float32 vector per row, in their order.\n\nRows that cannot be embedded get a "
        "vector of NaN and are listed in OUTPUT.bad.json with their numbers, counted from 0; the exit code is then 1. "
        "Embeddings are kept in OUTPUT.parts, so that the same command goes on where an interrupted one stopped; "
        "remove that folder when you are done.",
        "xvlm2vec encode runs/student --text queries.txt --output queries.npy\n"
        "xvlm2vec encode runs/student --csv rows.csv --images images --output rows.safetensors",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id, as for evaluate")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", metavar="FILE", help="UTF-8, one text per line")
    source.add_argument("--csv", metavar="FILE", help="UTF-8, with a header that has text, image or both")
    parser.add_argument("--images", metavar="FOLDER", help="folder of the column image (default: that of the CSV)")
    parser.add_argument("--output", required=True, metavar="FILE", help=f"ends in .npy, or .safetensors (key {KEY!r})")
    parser.add_argument("--instruction", metavar="TEXT", help="put before every text; the name of one of the model's "
                        "prompts stands for its text")  # fmt: skip
    console.add_encoder_flags(parser)
    return parser


def read_text(path: Path) -> Rows:
    """One row per line; empty lines are bad rows.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not UTF-8.
    """
    from xvlm2vec.eval.ranking import Row

    found = Rows()
    lines = _read(path).removesuffix("\n").split("\n")
    for number, line in enumerate(line.removesuffix("\r") for line in lines):
        found.rows.append(Row(line) if line.strip() else None)
        if not line.strip():
            found.bad[number] = "the line is empty"
    return found


def read_table(path: Path, images: str | None) -> Rows:
    """One row per row of a CSV; each image is decoded once, to find the broken ones first.

    Raises:
        FileNotFoundError: There is no such file, or no folder of images.
        ValueError: It is not UTF-8, or its header has neither text nor image.
    """
    from xvlm2vec.eval.ranking import Row

    folder = Path(images) if images else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder of images {folder}")
    reader = csv.DictReader(io.StringIO(_read(path), newline=""))
    if not {"text", "image"} & set(reader.fieldnames or ()):
        raise ValueError(f"{path}, line 1: the header must have a column text, image or both, found "
                         f"{', '.join(reader.fieldnames or ()) or 'nothing'}.")  # fmt: skip
    found = Rows()
    for number, cells in enumerate(reader):
        try:
            found.rows.append(_row(Row, cells, folder, found.images))
        except ValueError as error:
            found.rows.append(None)
            found.bad[number] = str(error)
    return found


def embed(flags: argparse.Namespace, rows: Rows) -> np.ndarray:
    """`(N, D)` float32; bad rows are NaN, and those that the model finds are noted with the others."""
    from xvlm2vec.flags.encoders import load_encoder
    from xvlm2vec.modeling.rows import BadRowsError

    encoder = load_encoder(
        flags.model,
        dim=flags.dim,
        max_tokens=flags.max_tokens,
        batch_size=flags.batch_size,
        trust=flags.trust_remote_code,
    )
    prefix, watched = _instruction(encoder, flags.instruction), _Watched(encoder)
    while True:
        try:
            return _embed_good(watched, rows, prefix, Path(f"{flags.output}.parts"))
        except BadRowsError:  # what was embedded before is stored
            if not any(rows.rows):
                raise


def _embed_good(watched: _Watched, rows: Rows, prefix: str, store: Path) -> np.ndarray:
    """Embeds the rows that are not known to be bad; when the model finds bad ones, notes them before its error."""
    from xvlm2vec.eval.embedding import DistinctRows, embed_distinct
    from xvlm2vec.eval.ranking import Row
    from xvlm2vec.modeling.rows import BadRowsError

    good = [(number, row) for number, row in enumerate(rows.rows) if row is not None]
    distinct = DistinctRows()
    told = [Row(prefix + (row.text or "") if row.text is not None or prefix else None, row.image) for _, row in good]
    places = distinct.add(told, rows.images)
    try:
        found = embed_distinct(watched, distinct, store)[places]
    except BadRowsError:
        for (number, _), place in zip(good, places, strict=True):
            if distinct.rows[place] in watched.bad:
                rows.rows[number], rows.bad[number] = None, watched.bad[distinct.rows[place]]
        raise
    vectors = np.full((len(rows.rows), found.shape[1]), np.nan, dtype=np.float32)
    vectors[[number for number, _ in good]] = found
    return vectors


class _Watched:
    """An encoder whose bad rows are remembered, by what they hold, before its error goes on."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self.bad: dict[Row, str] = {}

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> np.ndarray:
        """As the encoder."""
        from xvlm2vec.modeling.rows import BadRowsError

        try:
            return self.encoder.encode_rows(rows, images)
        except BadRowsError as error:
            for number, problem in error.problems.items():
                self.bad[rows[number]] = problem.removeprefix(f"row {number}").lstrip(":, ")
            raise


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Writes the file as a whole."""
    draft = path.with_name(f"{path.name}.tmp")
    if path.suffix == ".npy":
        with open(draft, "wb") as file:
            np.save(file, vectors)
    else:
        from safetensors.numpy import save_file

        save_file({KEY: vectors}, draft)
    os.replace(draft, path)


def _row(make: Any, cells: Mapping[str, Any], folder: Path, images: dict[str, Path]) -> Row:
    from xvlm2vec.modeling.images import load_image

    text, name = cells.get("text") or None, (cells.get("image") or "").strip()
    if not text and not name:
        raise ValueError("there is neither text nor image")
    if name and name not in images:
        path = folder / name
        load_image(path, name=name)
        images[name] = path
    return make(text, name or None)


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8.") from error


def _instruction(encoder: Any, instruction: str | None) -> str:
    """The text of an instruction: its own, or that of the model's prompt of this name."""
    model = encoder.model
    prompts = getattr(getattr(model, "config", None), "prompts", None) or getattr(model, "prompts", None) or {}
    return prompts.get(instruction, instruction) if instruction else ""


def _report(rows: Rows, output: Path) -> int:
    path = Path(f"{output}.bad.json")
    path.unlink(missing_ok=True)
    if not rows.bad:
        return 0
    bad = sorted(rows.bad.items())
    write_json(path, [{"row": number, "problem": problem} for number, problem in bad])
    for number, problem in bad[:SHOWN]:
        logger.warning("row %d: %s", number, problem)
    logger.warning("%d of %d rows could not be embedded; all are listed in %s", len(rows.bad), len(rows.rows), path)
    return 1
