"""`xvlm2vec corpus read`: published layouts into parallel corpora."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.corpus.rows import REPORT

from . import console
from .corpus_check import add_fields, add_kind, line_fields

if TYPE_CHECKING:
    from xvlm2vec.corpus.readers.layouts import Layout
    from xvlm2vec.corpus.readers.reading import ReadResult
    from xvlm2vec.corpus.readers.records import Entry, ReadOptions

_SHOWN = 20


def add_read(kinds: Any) -> None:
    """Adds `xvlm2vec corpus read`, with a parser for each layout."""
    from xvlm2vec.corpus.readers.layouts import LAYOUTS

    parser = add_kind(
        kinds, "read", "from a published layout: MMEB, WIT, WebDataset, parquet and others",
        "Reads images with texts in the layout in which others publish them into parallel/, the corpus that distill "
        "and translate take: id, image, text_en, translations and source in each row. Images are decoded once, so "
        "that broken ones are noticed here, and stored as they came; marks such as <|image_1|> are taken out of the "
        "texts. Nothing is held in memory or unpacked onto the disk.\n\n"
        f"What cannot be used is left out and listed in {REPORT} with its file, line and reason; records that are "
        "kept, bad and left out together are all records. `xvlm2vec corpus check` judges the texts themselves.\n\n"
        "`xvlm2vec corpus read LAYOUT --help` tells what is read of a layout.",
        "xvlm2vec corpus read webdataset shards/*.tar --output data", _nothing,
    )  # fmt: skip
    layouts = parser.add_subparsers(title="layouts", required=True, metavar="LAYOUT")
    for layout in LAYOUTS.values():
        _add_layout(layouts, layout)


def _nothing(flags: argparse.Namespace) -> int:
    raise AssertionError(f"{flags.kind} needs a layout, which the parser has asked for")


def _add_layout(layouts: Any, layout: Layout) -> None:
    example = f"xvlm2vec corpus read {layout.name} {layout.example} --output data"
    parser: argparse.ArgumentParser = layouts.add_parser(
        layout.name, help=layout.what, allow_abbrev=False, **console.texts(layout.help, example)
    )
    parser.set_defaults(run=_read, layout=layout)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="the files, or the folder that holds them")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    if layout.images:
        parser.add_argument("--images", metavar="FOLDER", help="where the images are that records name, as files or in "
                            "zip archives (default: the folder of the input)")  # fmt: skip
        parser.add_argument("--without-images", action="store_true", help="read the texts alone")
    _add_own(parser, layout)


def _add_own(parser: argparse.ArgumentParser, layout: Layout) -> None:
    """Adds the flags that few layouts look at."""
    flags: dict[str, dict[str, Any]] = {
        "configs": {"type": console.names, "metavar": "NAMES", "help": "data sets, as A-OKVQA,CIRR (default: all)"},
        "splits": {"type": console.names, "metavar": "NAMES", "help": "parts of it (default: original, the other one "
                   "is diverse_instruction)" if layout.name == "mmeb" else "parts of it (default: train)"},
        "languages": {"type": console.language_codes, "metavar": "CODES", "help": "languages that texts may be in "
                      "which do not say theirs (default: it,es,fr,de)"},
        "text_column": {"metavar": "NAME", "help": "column of the captions (default: caption_reference_description)"},
        "part": {"choices": ("train", "test", "all"), "default": "train", "help": "which part (default: train)"},
        "folder_names": {"action": "store_true", "help": "images' texts are the names of their folders"},
    }  # fmt: skip
    for name in layout.flags:
        if name == "fields":
            add_fields(parser)
        else:
            parser.add_argument(f"--{name.replace('_', '-')}", **flags[name])


def _read(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus.readers.reading import read_corpus

    layout: Layout = flags.layout
    inputs = [Path(name) for name in flags.inputs]
    entries: Iterable[Entry] = layout.read(inputs, _options(flags, layout))
    images = None
    if layout.images and not flags.without_images:
        images = flags.images or (inputs[0] if inputs[0].is_dir() else inputs[0].parent)
    elif layout.images:
        entries = _texts_alone(entries)
    result = read_corpus(entries, flags.output, images, layout.together)
    console.show("\n".join(_lines(result, flags.output)))
    return 0


def _options(flags: argparse.Namespace, layout: Layout) -> ReadOptions:
    from xvlm2vec.corpus.readers.records import ReadOptions

    given: dict[str, Any] = {name: getattr(flags, name) for name in layout.flags if name != "fields"}
    given = {name: value for name, value in given.items() if value is not None}
    if "fields" in layout.flags:
        given["fields"] = line_fields(flags)
    return ReadOptions(**given)


def _texts_alone(entries: Iterable[Entry]) -> Iterator[Entry]:
    from xvlm2vec.corpus.readers.records import Record

    for entry in entries:
        yield replace(entry, image=None) if isinstance(entry, Record) else entry


def _lines(result: ReadResult, folder: str) -> list[str]:
    """What the command says."""
    bad, left_out = result.bad.total(), result.left_out.total()
    lines = [f"{result.records:,} records: {result.kept:,} kept, {bad:,} bad, {left_out:,} left out",
             f"{folder}/parallel: {result.rows:,} rows, {result.images:,} with an image; {folder}/{REPORT} lists what "
             "is bad"]  # fmt: skip
    for title, counts in (("translations", result.languages), ("bad", result.bad), ("left out", result.left_out),
                          ("translations left out of rows that are kept", result.texts)):  # fmt: skip
        lines += [f"{title}:", *(f"  {count:>9,}  {name}" for name, count in counts.most_common())] if counts else []
    lines += [f"BAD: {row}" for row in result.faults[:_SHOWN]]
    if bad > _SHOWN:
        lines.append(f"... and {bad - _SHOWN:,} more")
    return lines
