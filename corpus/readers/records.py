"""What the reader of a layout finds in its files, before it is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xvlm2vec.common.files import files_below
from xvlm2vec.common.renamed import renamed_keywords
from xvlm2vec.corpus.rows import RejectedRow, RowFault


@dataclass(frozen=True)
class ImageBytes:
    """An image that a file holds beside its texts.

    Attributes:
        name: What it is called, for messages and as its path.
        content: The encoded image.
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class Record:
    """One record of a layout: an English text with translations and perhaps an image, as the file has them.

    Attributes:
        english: The English text; None where another record of the same `key` brings it.
        place: `file`, and `line` or `row`, for messages.
        source: Name of the data set or file, for the row.
        translations: Fields `lang`, `text`, and perhaps `alignment`, of each translation.
        image: A path below the folder of images, or the image itself.
        id: Name of the row, if the layout has one.
        key: What else than the English text and the image's name tells which records are one row.
    """

    english: str | None
    place: Mapping[str, Any]
    source: str
    translations: Sequence[Mapping[str, Any]] = ()
    image: str | ImageBytes | None = None
    id: str = ""
    key: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """Records that the layout has and a parallel corpus does not want; they are counted, not listed.

    Attributes:
        reason: Why.
        records: How many.
    """

    reason: str
    records: int = 1


Entry = Record | RejectedRow | LeftOut
Entries = Iterator[Entry]


def rejected(fault: RowFault, place: Mapping[str, Any], name: str | None = None) -> RejectedRow:
    """A record that cannot be read.

    Args:
        fault: Why.
        place: `file`, and `line` or `row`.
        name: Its id, if it has one.
    """
    return RejectedRow(fault.kind, fault.problem, id=name, **place)


@renamed_keywords(picture="image")
@dataclass(frozen=True)
class LineFields:
    """Names of the fields of a line or the columns of a table.

    Attributes:
        english: The English text.
        text: The same text in another language.
        language: That language's code.
        image: The image's path, or in a table the image; may be missing, empty or null.
    """

    english: str = "text_en"
    text: str = "text"
    language: str = "lang"
    image: str = "image"


@dataclass(frozen=True)
class ReadOptions:
    """What layouts can be told; each looks at what concerns it.

    Attributes:
        fields: Names of fields or columns.
        configs: Data sets of a collection; none for all.
        splits: Its parts.
        languages: Codes of the languages that texts may be in which do not say their own.
        text_column: The column of a table that holds the text.
        part: `train`, `test` or `all` of a layout that has a held-out part.
        folder_names: Whether the names of folders are the texts of the images in them.
    """

    fields: LineFields = field(default_factory=LineFields)
    configs: Sequence[str] = ()
    splits: Sequence[str] = ()
    languages: Sequence[str] = ()
    text_column: str = ""
    part: str = "train"
    folder_names: bool = False


def files_of(inputs: Sequence[Path], patterns: Sequence[str], what: str) -> list[Path]:
    """The files of an input: each file as it is named, and what a folder holds by the first pattern that fits.

    Raises:
        FileNotFoundError: One does not exist, or a folder holds no such file.
    """
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = next((below for pattern in patterns if (below := files_below(path, pattern))), [])
            if not found:
                raise FileNotFoundError(f"{path} holds no {what} ({' or '.join(patterns)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"there is no file {path}, nor a folder")
    return files
