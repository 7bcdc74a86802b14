"""`xvlm2vec encode`."""

from __future__ import annotations

import argparse
import logging
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xvlm2vec.common.files import replaced_file, write_json
from xvlm2vec.common.texts import is_blank
from xvlm2vec.flags import console
from xvlm2vec.flags.text_pixels import DrawnTexts, add_text_pixels_flags, chosen_text_pixels
from xvlm2vec.flags.workers import add_workers, load_workers

if TYPE_CHECKING:
    from xvlm2vec.eval.ranking import Row
    from xvlm2vec.modeling.text_pixels import TextPixels

logger = logging.getLogger(__name__)

SUFFIXES = (".npy", ".safetensors")
KEY = "embeddings"
COLUMNS = ("text", "image")
SHOWN = 5
AUTO = "auto"


@dataclass
class Rows:
    """What is to be embedded.

    Attributes:
        rows: One per input row; None for a bad one.
        images: Files of the images by the name that rows use, and texts that are drawn.
        bad: What is wrong with bad rows, by number.
    """

    rows: list[Row | None] = field(default_factory=list)
    images: MutableMapping[str, Any] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and embeds what is not embedded yet; exit code 1 if a row was bad."""
    parser = _parser()
    flags = parser.parse_args(console.with_help(arguments))
    output = Path(flags.output)
    if output.suffix not in SUFFIXES:
        parser.error(f"--output {flags.output} must end in {' or '.join(SUFFIXES)}")
    if flags.text_as_pixels and flags.language:
        parser.error("--language is for tokens of texts, and drawn texts have none; leave it or --text-as-pixels out")
    if flags.text_as_pixels and flags.engine != "here":
        parser.error("--text-as-pixels draws all texts in this process, which would hold them all; leave --engine out")
    console.set_up()
    pixels = chosen_text_pixels(flags)
    rows = read_text(Path(flags.text)) if flags.text else read_table(Path(flags.csv), flags.images)
    if pixels is not None:
        draw_texts(rows, pixels)
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
    parser.add_argument("--language", metavar="CODE", help="of the texts, for a model with activated adapters; without "
                        f"it their base embeds them; {AUTO} finds it for each text, and says how many it found of each "
                        "(needs xvlm2vec[detect]; short texts are often taken for another language)")  # fmt: skip
    add_text_pixels_flags(parser)
    console.add_encoder_flags(parser)
    add_workers(parser, "the same vectors; each worker loads the model, and for all MODEL and images have the same "
                "path", processes=False)  # fmt: skip
    return parser


def read_text(path: Path) -> Rows:
    """One row per line; empty lines are bad rows.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not UTF-8.
    """
    from xvlm2vec.eval.ranking import Row

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        number = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason}); save the file as UTF-8.") from error
    rows = Rows()
    for number, line in enumerate(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")):
        rows.rows.append(None if is_blank(line) else Row(line))
        if is_blank(line):
            rows.bad[number] = "the line is empty"
    return rows


def read_table(path: Path, images: str | None) -> Rows:
    """One row per row of a CSV; each image is decoded once, to find the broken ones first.

    Raises:
        FileNotFoundError: There is no such file, or no folder of images.
        ValueError: It is not UTF-8, or its header has neither text nor image.
    """
    from xvlm2vec.corpus.csv_reader import LITERAL_MARK, CsvTable

    folder = Path(images) if images else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder of images {folder}")
    table = CsvTable(path, COLUMNS)
    ignored = [name for name in table.columns if name and name not in COLUMNS]
    if ignored:
        logger.warning("%s, line 1: not read are the columns %s", path, ", ".join(ignored))
    rows, literal = Rows(), []
    for number, record in enumerate(table):
        literal += [record.line] if record.literal else []
        try:
            if record.excess:
                raise ValueError(f"{record.excess} cells too many; put texts with commas in double quotes")
            rows.rows.append(_row(record.cells, folder, rows.images))
        except ValueError as error:
            rows.rows.append(None)
            rows.bad[number] = f"line {record.line}: {error}"
    for line in literal[:SHOWN]:
        logger.warning("%s, line %d: %s", path, line, LITERAL_MARK)
    if len(literal) > SHOWN:
        logger.warning("%s: so it is in %d lines: %s", path, len(literal), ", ".join(map(str, literal)))
    return rows


def draw_texts(rows: Rows, pixels: TextPixels) -> None:
    """Puts an image of each text in its place, behind the row's other one; texts that cannot be drawn are bad rows."""
    from xvlm2vec.eval.ranking import Row
    from xvlm2vec.modeling.text_pixels import TextPixelsError

    drawn = DrawnTexts(pixels)
    for number, row in enumerate(rows.rows):
        if row is None or row.text is None:
            continue
        try:
            names = (*row.images, drawn.add(row.text))
            rows.rows[number] = Row(None, names if len(names) > 1 else names[0])
        except TextPixelsError as error:
            rows.rows[number], rows.bad[number] = None, str(error)
    rows.images = ChainMap(rows.images, drawn)  # type: ignore[arg-type]  # only read


def embed(flags: argparse.Namespace, rows: Rows) -> np.ndarray:
    """`(N, D)` float32; bad rows are NaN, and those that the model refuses are noted with the others."""
    from xvlm2vec.eval.on_workers import OnWorkers
    from xvlm2vec.modeling.rows import BadRowsError

    encoder, prefix = _load(flags)
    if flags.language:
        _tell_language(encoder, rows, flags.language)
    workers = load_workers(flags)
    if workers is not None:
        encoder = OnWorkers(encoder, partial(_load_encoder, flags), workers)
    recorder = _BadRowRecorder(encoder)
    store = Path(f"{flags.output}.parts") if encoder.fingerprint else None  # nobody knows whether its vectors change
    while True:
        try:
            return _embed_good(recorder, rows, prefix, store)
        except BadRowsError:  # what was embedded before is stored
            if not any(rows.rows):
                raise


def _load(flags: argparse.Namespace) -> tuple[Any, str]:
    """The model, and what is put before every text."""
    from xvlm2vec.eval.encoders import ModelEncoder
    from xvlm2vec.flags.encoders import load_encoder

    encoder: Any = load_encoder(
        flags.model, dim=flags.dim, max_tokens=flags.max_tokens, batch_size=flags.batch_size,
        trust=flags.trust_remote_code,
    )  # fmt: skip
    prefix = _instruction(encoder, flags.instruction)
    if prefix and hasattr(encoder, "instruction"):  # it knows where an instruction belongs
        # Our models look names up themselves: an instruction's name says in which language it is.
        encoder.instruction = flags.instruction if isinstance(encoder, ModelEncoder) else prefix
        prefix = ""
    return encoder, prefix


def _load_encoder(flags: argparse.Namespace) -> Any:
    return _load(flags)[0]


def _embed_good(recorder: _BadRowRecorder, rows: Rows, prefix: str, store: Path | None) -> np.ndarray:
    """Embeds the rows that no check has refused; notes those that the model refuses, before its error goes on."""
    from xvlm2vec.eval.embedding import DistinctRows, embed_distinct
    from xvlm2vec.eval.ranking import Row
    from xvlm2vec.modeling.rows import BadRowsError

    good = [(number, row) for number, row in enumerate(rows.rows) if row is not None]
    distinct = DistinctRows()
    texts = [None if row.text is None and not prefix else prefix + (row.text or "") for _, row in good]
    prompted = [
        Row(text, row.image, row.language if text else None) for text, (_, row) in zip(texts, good, strict=True)
    ]
    places = distinct.add(prompted, rows.images)
    try:
        embedded = embed_distinct(recorder, distinct, store)[places]
    except BadRowsError:
        for (number, _), place in zip(good, places, strict=True):
            if distinct.rows[place] in recorder.bad:
                rows.rows[number], rows.bad[number] = None, recorder.bad[distinct.rows[place]]
        raise
    vectors = np.full((len(rows.rows), embedded.shape[1]), np.nan, dtype=np.float32)
    vectors[[number for number, _ in good]] = embedded
    return vectors


class _BadRowRecorder:
    """An encoder that records which rows are bad, and passes its error on."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self.bad: dict[Row, str] = {}

    def encode_rows(self, rows: Sequence[Row], images: Mapping[str, Any]) -> np.ndarray:
        """Embeds rows as the encoder does."""
        return next(self.encode_chunks([rows], images))

    def encode_chunks(self, chunks: Sequence[Sequence[Row]], images: Mapping[str, Any]) -> Iterator[np.ndarray]:
        """Embeds chunks of rows as the encoder does."""
        from xvlm2vec.eval.encoders import encode_chunks
        from xvlm2vec.modeling.rows import BadRowsError

        vectors = encode_chunks(self.encoder, chunks, images)
        for rows in chunks:
            try:
                embedded = next(vectors)
            except BadRowsError as error:
                for number, problem in error.problems.items():
                    self.bad[rows[number]] = problem.removeprefix(f"row {number}").lstrip(":, ")
                raise
            yield embedded


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Writes the file as a whole."""
    from safetensors.numpy import save_file

    with replaced_file(path) as draft:
        if path.suffix == ".safetensors":
            save_file({KEY: vectors}, draft)
        else:
            with open(draft, "wb") as file:
                np.save(file, vectors)


def _row(cells: Mapping[str, str], folder: Path, images: MutableMapping[str, Any]) -> Row:
    from xvlm2vec.eval.ranking import Row
    from xvlm2vec.modeling.images import load_image

    text, name = cells.get("text"), cells.get("image", "").strip()
    text = None if is_blank(text) else text
    if not text and not name:
        raise ValueError("there is neither text nor image")
    if name and name not in images:
        path = folder / name
        load_image(path, name=name)
        images[name] = path
    return Row(text, name or None)


def _instruction(encoder: Any, instruction: str | None) -> str:
    """The text of the model's prompt of this name, or else the instruction as it is; a function has no prompts."""
    if not instruction:
        return ""
    model = getattr(encoder, "model", None)
    holders = (getattr(model, "config", None), model, getattr(model, "model", None))  # the last in a model of mteb
    prompts: Mapping[str, str] = next(filter(None, (getattr(holder, "prompts", None) for holder in holders)), {})
    return prompts.get(instruction, instruction)


def _tell_language(encoder: Any, rows: Rows, language: str) -> None:
    """Notes with each row in which language it is.

    Raises:
        ValueError: The model has no adapter for it.
    """
    from xvlm2vec.eval.spoken import spoken_languages
    from xvlm2vec.modeling.language_adapters import UnknownLanguageError, adapter_for

    model = getattr(encoder, "model", None)
    taught = spoken_languages(encoder)
    if not taught:
        raise UnknownLanguageError(language, ())
    if language == AUTO:
        _find_languages(rows, taught)
    elif adapter_for(model, language) is not None:
        rows.rows = [row and replace(row, language=language) for row in rows.rows]


def _find_languages(rows: Rows, taught: Sequence[str]) -> None:
    """Notes with each row the language that its text seems to be in, English or one that was taught, and tells it."""
    from xvlm2vec.common.language_detection import detect_languages
    from xvlm2vec.modeling.language_adapters import BASE_LANGUAGE

    texts = [row.text or "" if row else "" for row in rows.rows]
    distinct = sorted({text for text in texts if text})
    choices = list(dict.fromkeys((BASE_LANGUAGE, *taught)))
    language = dict(zip(distinct, detect_languages(distinct, choices), strict=True))
    counts = Counter(language[text] for text in texts if text)
    logger.info("Languages found: %s", ", ".join(f"{code} in {count} rows" for code, count in counts.most_common()))
    rows.rows = [
        replace(row, language=language[text]) if row and language.get(text) in taught else row
        for row, text in zip(rows.rows, texts, strict=True)
    ]


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
