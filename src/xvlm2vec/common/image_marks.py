"""Marks that stand for an image in the texts of published corpora, such as `<|image_1|>` in MMEB.

Models of this package are given the image itself; a mark that stays would be read as letters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from xvlm2vec.modeling.families import FAMILIES

# Numbered ones, what each family's prompts hold, and the form that surrounds the family's token with two more.
_OTHERS = ("<|image|>", "<image>", "[IMG]", "<start_of_image>", "<|image_pad|>", "<img><IMG_CONTEXT></img>")
_WORDS = sorted({*_OTHERS, *(family.image for family in FAMILIES.values() if family.image)}, key=len, reverse=True)
MARK = re.compile("(?:" + "|".join([r"<\|?image_\d+\|?>", r"\[IMG_\d+\]", *map(re.escape, _WORDS)]) + r")\n?")


def strip_marks(text: str | None) -> str | None:
    """A text, if there is one, without the marks of images and the line break after each mark."""
    return MARK.sub("", text) if text else text


def without_marks(text: str, images: int, where: str) -> str:
    """The text of a row of a corpus without the marks of its images.

    Args:
        text: A text of the row.
        images: Number of the row's images.
        where: Names the row in errors.

    Raises:
        ValueError: There are more marks than images.
    """
    marks = [mark.strip() for mark in MARK.findall(text)]
    if len(marks) > images:
        has = {0: "no image", 1: "one image"}.get(images, f"{images} images")
        raise ValueError(
            f"{where}: the text holds {len(marks)} marks of an image ({', '.join(marks[:3])}) and the row has {has}; "
            f"give it the image, or take the mark out: {text!r:.80}"
        )
    return MARK.sub("", text)


def parallel_row_without_marks(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of a parallel corpus whose English text and translations hold no mark of its image.

    Raises:
        ValueError: A text holds more marks than the row has images; names the row.
    """
    texts = [row["text_en"], *(item["text"] for item in row["translations"] or ())]
    if not any(text and MARK.search(text) for text in texts):
        return row
    image, where = row["image"], f"Row {row['id']!r}"
    images = len(image) if isinstance(image, list | tuple) else int(image is not None)
    items = [
        {**item, "text": without_marks(item["text"] or "", images, f"{where}, {item['lang']}")}
        for item in row["translations"] or ()
    ]
    english = without_marks(row["text_en"] or "", images, where)
    return type(row)({**row, "text_en": english, "translations": items})  # type: ignore[call-arg]
