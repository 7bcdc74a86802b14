"""Parallel texts from JSONL files with a line per language, and a folder of images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .grouping import Groups
from .parallel_csv import LANGUAGE_CODE
from .rows import ENGLISH, ImageFolder, RejectedRow, RowFault, TextCorpus, TextRow


@dataclass(frozen=True)
class LineFields:
    """Names of a line's fields.

    Attributes:
        english: The English text.
        text: The same text in another language.
        language: That language's code.
        image: The image's path; may be missing, empty or null.
    """

    english: str = "text_en"
    text: str = "text"
    language: str = "lang"
    image: str = "image"


def read_jsonl(
    files: Sequence[str | Path],
    images: str | Path | None = None,
    fields: LineFields | None = None,
    progress: bool = False,
) -> TextCorpus:
    """Reads JSONL files whose lines hold an English text, the same in another language, and perhaps an image's path.

    Lines with the same English text and the same image become one row with all their translations. Of two different
    ones in one language the first stays, and the other is a bad line. Every image is decoded once.

    Args:
        files: The files, UTF-8.
        images: The folder of images.
        fields: Names of the fields.
        progress: Whether to show a bar for each file.

    Returns:
        The rows, each with the name of the file that has it first (without its suffix) as its source, the languages in
        the order of their numbers of texts, and the rejected lines.

    Raises:
        FileNotFoundError: A file or the folder of images is missing.
    """
    missing = [str(path) for path in files if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"there is no file {missing[0]}")
    groups, folder = Groups(), ImageFolder(images)
    sources: list[str] = []
    rejected: list[RejectedRow] = []
    for path in map(Path, files):
        for number, line in _lines(path, progress):
            try:
                _add_line(groups, line, fields or LineFields(), folder)
            except RowFault as fault:
                rejected.append(RejectedRow(*fault.args, file=str(path), line=number))
            if len(groups.texts) > len(sources):
                sources.append(path.stem)
    rows = [
        TextRow(f"row-{number:06d}", {ENGLISH: english, **texts}, folder.find(name) if name else None, name, source)
        for number, (((english, name), texts), source) in enumerate(zip(groups.texts.items(), sources, strict=True))
    ]
    counts = Counter(code for row in rows for code in row.texts if code != ENGLISH)
    return TextCorpus((ENGLISH, *(code for code, _ in counts.most_common())), rows, rejected)


def _lines(path: Path, progress: bool) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers, counted from 1."""
    with open(path, "rb") as file:
        lines = tqdm(file, desc=f"Reading {path.name}", unit="line", disable=not progress)
        yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _add_line(groups: Groups, line: bytes, fields: LineFields, images: ImageFolder) -> None:
    """Adds the translation of a line to its group."""
    values = _parse(line)
    english, text = _text(values, fields.english, "English text"), _text(values, fields.text, "translation")
    language = _text(values, fields.language, "language")
    if not LANGUAGE_CODE.match(language) or language == ENGLISH:
        raise RowFault("no other language", f"{language!r:.40} is not the code of a language beside English")
    image = _text(values, fields.image, "image") if values.get(fields.image) not in (None, "") else ""
    if image:
        images.find(image)
    if groups.add(english, image, [(language, text)]):
        raise RowFault("another translation", f"an earlier line translates the same text into {language!r} otherwise")


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowFault("not UTF-8", f"not UTF-8 ({error.reason})") from error
    except (ValueError, RecursionError) as error:
        raise RowFault("no JSON", f"no JSON ({error})") from error
    if not isinstance(values, Mapping):
        raise RowFault("no JSON", f"no JSON object: {values!r:.80}")
    return values


def _text(values: Mapping[str, Any], name: str, what: str) -> str:
    """A field's text without the space around it, which can be stored."""
    if name not in values:
        raise RowFault("missing field", f"no field {name!r} ({what}); there are {', '.join(values) or 'none'}"[:300])
    text = values[name]
    if not isinstance(text, str):
        raise RowFault("no text", f"{name!r} ({what}) holds {text!r:.80}, which is no text")
    if not text.strip():
        raise RowFault(f"empty {what}", f"the {what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a pair of surrogates, which JSON can write
        raise RowFault("not UTF-8", f"{name!r} ({what}) holds a character that does not exist") from error
    return text.strip()


def __getattr__(name: str) -> Any:
    if name != "group_parallel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    from .grouping import group_parallel

    warnings.warn("group_parallel is in xvlm2vec.corpus.grouping now", DeprecationWarning, stacklevel=2)
    return group_parallel
