"""Rows to embed: aligns texts with images and refuses what is neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_TOLD = 20
"""Bad rows of which an error says what is wrong; of the others it gives the numbers."""


@dataclass(frozen=True)
class TextImageRow:
    """One row to embed: text (may be empty), images (may be none), and its instruction.

    `None` as the instruction stands for the model's default one, an empty string for none. With `own_instruction` it is
    in the language of the text, and an adapter for that language acts on it, too.
    """

    text: str
    images: tuple[Any, ...] = ()
    instruction: str | None = None
    own_instruction: bool = False


class BadRowsError(ValueError):
    """Rows that cannot be embedded.

    Args:
        problems: What is wrong with each, by its number.
        count: Number of all rows.
    """

    def __init__(self, problems: Mapping[int, str], count: int) -> None:
        self.problems = dict(sorted(problems.items()))
        self.count = count
        described = list(self.problems.values())[:MOST_TOLD]
        rest = ", ".join(map(str, list(self.problems)[MOST_TOLD:]))
        listed = "; ".join([*described, *([f"and rows {rest}"] if rest else [])])
        super().__init__(f"{len(problems)} of {count} rows cannot be embedded: {listed}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems, self.count)


def make_rows(
    text: Any, images: Any, instruction: str | None = None, problems: dict[int, str] | None = None
) -> tuple[list[TextImageRow], bool]:
    """Aligns texts and images into rows.

    Args:
        text: A string, a sequence of strings or `None`, or `None`. A string is always text, whatever it looks like.
        images: An image, a sequence with an image, a list of images or `None` per row, or `None`.
        instruction: Of every row; `None` for the model's default one, if it has one.
        problems: Takes up what is wrong with rows, by number; a bad row is then an empty one.

    Returns:
        The rows, and whether a single string or image was passed.

    Raises:
        ValueError: Nothing was passed, the numbers differ, or (without `problems`) a row has neither text nor image.
    """
    if text is None and images is None:
        raise ValueError("Pass `text`, `images`, or both.")
    several = is_several(images)
    single = isinstance(text, str) or (text is None and not several)
    texts = [text] if isinstance(text, str) else (list(text) if text is not None else None)
    image_rows = list(images) if several else ([images] if images is not None else None)
    if isinstance(text, str) and several:
        image_rows = [image_rows]
    count = len(texts if texts is not None else image_rows or [])
    texts = texts if texts is not None else [None] * count
    image_rows = image_rows if image_rows is not None else [None] * count
    if len(texts) != len(image_rows):
        raise ValueError(f"{len(texts)} texts and {len(image_rows)} images: pass one of each per row (None for none).")
    rows = []
    for index, (row_text, row_images) in enumerate(zip(texts, image_rows, strict=True)):
        try:
            rows.append(make_row(index, row_text, row_images, instruction))
        except ValueError as error:
            if problems is None:
                raise
            problems[index] = str(error)
            rows.append(TextImageRow(""))
    return rows, single


def is_several(images: Any) -> bool:
    """Whether these are images in a list, a tuple or a column of a data set, rather than one path, array or file."""
    return isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview)


def make_row(index: int, text: str | None, images: Any, instruction: str | None = None) -> TextImageRow:
    """One row of text, images, or both.

    Args:
        index: Number of the row, for errors.
        text: The text or `None`.
        images: An image, images (`None` among them are left out), or `None`.
        instruction: As in `TextImageRow`.

    Raises:
        ValueError: The text is no string or cannot be written as UTF-8, or there is neither text nor image.
    """
    if text is not None and not isinstance(text, str):
        raise ValueError(f"row {index}: text is a {type(text).__name__}, not a string.")
    check_encodable(index, (instruction or "") + (text or ""))
    candidates = images if is_several(images) else (images,)
    row_images = tuple(image for image in candidates if image is not None)
    if text is None and not row_images:
        raise ValueError(f"row {index} has neither text nor image.")
    return TextImageRow(text or "", row_images, instruction)


def check_encodable(index: int, text: str) -> None:
    """Raises a `ValueError` for halves of surrogate pairs, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        bad = f"{text[error.start]!r} at character {error.start}"
        raise ValueError(f"row {index}: the text cannot be written as UTF-8 ({bad}).") from error
