"""Parallel texts from JSONL files with a line per language, and a folder of images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from xvlm2vec.common.columns import ALIGNMENT, LANG, TEXT
from xvlm2vec.common.languages import normal_code
from xvlm2vec.common.renamed import renamed_keywords
from xvlm2vec.common.texts import is_blank

from .grouping import Groups
from .image_folder import ImageFolder, unmarked
from .rows import ENGLISH, RejectedRow, RowFault, TextCorpus, TextRow
from .texts import is_null_word


@renamed_keywords(picture="image")
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
    drop_null_words: bool = False,
) -> TextCorpus:
    """Reads JSONL files whose lines hold an English text, the same in another language, and perhaps an image's path.

    Lines with the same English text and the same image become one row with all their translations. Of two different
    ones in one language the first stays, and the other is a bad line. A word alignment in the field `alignment` goes
    with its translation. Every image is decoded once. Marks such as `<image>` are removed from the texts of a line with
    an image.

    Args:
        files: The files, UTF-8.
        images: The folder of images.
        fields: Names of the fields.
        progress: Whether to show a bar for each file.
        drop_null_words: Whether lines with a text such as `nan` or `NULL` are rejected; otherwise they are told and
            kept.

    Returns:
        The rows, each with the name of the file that has it first (without its suffix) as its source, the languages in
        the order of their numbers of texts, and the rejected lines.

    Raises:
        FileNotFoundError: A file or the folder of images is missing.
    """
    missing = [str(path) for path in files if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"there is no file {missing[0]}")
    groups, folder, corpus = Groups(), ImageFolder(images), TextCorpus((ENGLISH,))
    sources: list[str] = []
    for path in map(Path, files):
        for number, line in _lines(path, progress):
            place: dict[str, Any] = {"file": str(path), "line": number}
            try:
                english, image, item = _read_line(line, fields or LineFields(), folder)
                word = next((text for text in (english, item[TEXT]) if is_null_word(text)), None)
                if word is not None:
                    fault = RowFault("null word", f"{word!r} looks like a missing value")
                    if drop_null_words:
                        raise fault
                    corpus.doubtful.append(RejectedRow(fault.kind, fault.problem, **place))
                if groups.add(english, image, [item]):
                    problem = f"an earlier line translates the same text into {item[LANG]!r} otherwise"
                    raise RowFault("another translation", problem)
            except RowFault as fault:
                corpus.rejected.append(RejectedRow(fault.kind, fault.problem, **place))
            if len(groups.texts) > len(sources):
                sources.append(path.stem)
    for number, ((key, texts), source) in enumerate(zip(groups.texts.items(), sources, strict=True)):
        english, name = key
        others = {code: groups.others.get((key, code), {}) for code in texts}
        corpus.rows.append(
            TextRow(
                f"row-{number:06d}",
                {ENGLISH: english, **texts},
                folder.find(name)[0] if name else None,
                name,
                source,
                alignments={code: fields[ALIGNMENT] for code, fields in others.items() if ALIGNMENT in fields},
            )
        )
    counts = Counter(code for row in corpus.rows for code in row.texts if code != ENGLISH)
    corpus.languages = (ENGLISH, *(code for code, _ in counts.most_common()))
    return corpus


def _lines(path: Path, progress: bool) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers, counted from 1."""
    with open(path, "rb") as file:
        lines = tqdm(file, desc=f"Reading {path.name}", unit="line", disable=not progress)
        yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _read_line(line: bytes, fields: LineFields, images: ImageFolder) -> tuple[str, str, dict[str, Any]]:
    """The English text of a line, the name of its image or an empty string, and its translation."""
    values = parse_line(line)
    marked = _text(values, fields.english, "English text"), _text(values, fields.text, "translation")
    language = _language(_text(values, fields.language, "language"))
    image = _text(values, fields.image, "image") if values.get(fields.image) not in (None, "") else ""
    if image:
        images.find(image)
    english = unmarked(marked[0], image, f"the field {fields.english!r}")
    text = unmarked(marked[1], image, f"the field {fields.text!r}")
    if not english or not text:
        raise RowFault("marks of images", "there is nothing but the mark of an image in a text")
    item: dict[str, Any] = {LANG: language, TEXT: text}
    if values.get(ALIGNMENT):
        item[ALIGNMENT] = _text(values, ALIGNMENT, "alignment")
        if (english, text) != marked:
            raise RowFault("marks of images", "the alignment counts marks of images as words; take them out")
    return english, image, item


def _language(code: str) -> str:
    try:
        language = normal_code(code)
    except ValueError as error:
        raise RowFault("no other language", str(error)) from error
    if language == ENGLISH:
        raise RowFault("no other language", f"{code!r:.40} is not the code of a language beside English")
    return language


def parse_line(line: bytes) -> Mapping[str, Any]:
    """The fields of a line.

    Raises:
        RowFault: It is not UTF-8, or no JSON object.
    """
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
    if is_blank(text):
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
