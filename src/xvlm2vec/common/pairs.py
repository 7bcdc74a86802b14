"""Contrastive pairs: a query, what it should find, and what it should not, read from a row of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from xvlm2vec.modeling.rows import TextImageRow, is_several

from .columns import INSTRUCTION, TASK
from .image_marks import without_marks
from .texts import is_blank

NO_PROMPTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Pair:
    """A row of contrastive training.

    Attributes:
        query: What searches, its instruction already before the text.
        positive: What it should find.
        negatives: What it should not find.
    """

    query: TextImageRow
    positive: TextImageRow
    negatives: tuple[TextImageRow, ...] = ()


def read_pair(row: Mapping[str, Any], where: str, prompts: Mapping[str, str] = NO_PROMPTS) -> Pair:
    """Reads a row with the columns `qry`, `qry_image`, `pos_text`, `pos_image`, `neg_text`, `neg_image`.

    An empty text, `None`, or a column that is not there stands for what a side lacks. An image may be a list of images;
    negatives are lists, or one value each.

    Args:
        row: The row; images may be anything.
        where: Names it in errors.
        prompts: Instructions by the names that the column `task` may hold.

    Raises:
        ValueError: A side has neither text nor image, a text has more marks of an image than its side has images, or
            instruction or negatives cannot be read.
    """
    query = _side(row, "qry", "qry_image", where)
    if query is None:
        raise ValueError(f"{where} has neither 'qry' nor 'qry_image'.")
    positive = _side(row, "pos_text", "pos_image", where)
    if positive is None:
        raise ValueError(f"{where} has neither 'pos_text' nor 'pos_image': there is nothing to find.")
    instruction = instruction_of(row, where, prompts)
    return Pair(TextImageRow(instruction + query.text, query.images), positive, _negatives(row, where))


def instruction_of(row: Mapping[str, Any], where: str, prompts: Mapping[str, str]) -> str:
    """What stands before a query's text; empty where the row says nothing.

    Raises:
        ValueError: The row has an instruction and a task, or its task is none of the prompts.
    """
    written, task = row.get(INSTRUCTION) or "", row.get(TASK) or ""
    if not task:
        return written
    if written:
        raise ValueError(f"{where} has an {INSTRUCTION!r} and a {TASK!r}; one of them says what stands before a query.")
    if task not in prompts:
        known = ", ".join(prompts) or "none"
        raise ValueError(f"{where}: the model has no prompt for the task {task!r}; it has {known}.")
    return prompts[task]


def _side(row: Mapping[str, Any], text_column: str, image_column: str, where: str) -> TextImageRow | None:
    return _item(row.get(text_column), _images(row.get(image_column)), f"{where}, {text_column!r}")


def _item(text: str | None, images: tuple[Any, ...], where: str) -> TextImageRow | None:
    """What is embedded; `None` where there is neither text nor image."""
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{where} is a {type(text).__name__}, not a text.")
    bare = without_marks(text or "", len(images), where)
    if not images and is_blank(bare):
        return None
    return TextImageRow(bare, images)


def _images(value: Any) -> tuple[Any, ...]:
    return tuple(image for image in (value if is_several(value) else (value,)) if image is not None)


def _negatives(row: Mapping[str, Any], where: str) -> tuple[TextImageRow, ...]:
    """Negatives of a row, the k-th text with the k-th image; places without either are passed over."""
    texts, images = (_listed(row.get(column)) for column in ("neg_text", "neg_image"))
    if texts and images and len(texts) != len(images):
        raise ValueError(
            f"{where} has {len(texts)} texts in 'neg_text' and {len(images)} images in 'neg_image'; where a negative "
            "lacks one of both, put an empty text or None."
        )
    count = max(len(texts), len(images))
    both = zip(texts or [None] * count, images or [None] * count, strict=True)
    items = [_item(text, _images(image), f"{where}, 'neg_text'") for text, image in both]
    return tuple(item for item in items if item is not None)


def _listed(value: Any) -> Sequence[Any]:
    """A value as a list; what is lacking as an empty one."""
    if value is None or value == "":
        return ()
    return value if is_several(value) else (value,)
