"""What must be the same on both sides: marks of images, fields in braces, line breaks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from xvlm2vec.common.image_marks import MARK

from .batch import Batch
from .rule import Finding, shown

# A mark that a translator changed: "<|Imagen_1|>", "< image >", "[IMG_ 1]".
_CHANGED = re.compile(r"<\s?\|\s?[^<>|\n\0]{1,30}?\s?\|\s?>|<\s?[^\W\d_]{3,12}(?:[ _]?\d+)?\s?>|\[\s?IMG[ _]*\d*\s?\]")
_FIELD = re.compile(r"\{[^{}\n\0]{0,40}\}")


def marks_parity(batch: Batch) -> Iterator[Finding]:
    """Marks of images and fields in braces that both sides must have alike, and no more marks than images."""
    for row in sorted({row for _, column in batch.sides() for row in column.rows_with_any("<", "[", "{")}):
        english, text = batch.english.texts[row], batch.text.texts[row]
        marks, images = MARK.findall(english), int(batch.images[row] is not None)
        if len(marks) > images:
            has = "one image" if images else "no image"
            yield Finding(row, f"{len(marks)} marks of images and {has}: {shown(english)}")
        elif (mended := with_marks_of(english, text)) != text:
            yield Finding(row, f"marks or fields differ: {shown(text)}", mended)


def with_marks_of(english: str, text: str) -> str | None:
    """A translation with the marks and fields of its source.

    Args:
        english: The source.
        text: The translation.

    Returns:
        The same text if nothing differs; None if it cannot be told where they belong.
    """
    for pattern in (MARK, _FIELD):
        wanted = [match.strip() for match in pattern.findall(english)]
        held = [match.strip() for match in pattern.findall(text)]
        if wanted == held:
            continue
        loose = _CHANGED if pattern is MARK else _FIELD
        changed = list(loose.finditer(text))
        if len(changed) == len(wanted):
            text = _put(text, changed, wanted)
        elif pattern is MARK and not changed and len(wanted) == 1 and (start := MARK.match(english)):
            text = start[0] + text.lstrip("\n")
        else:
            return None
    return text


def _put(text: str, places: list[re.Match[str]], marks: list[str]) -> str:
    """A text with marks at some places; of marks that are the same but for their order each stays where it is."""
    if sorted(match[0] for match in places) == sorted(marks):
        return text
    parts, end = [], 0
    for place, mark in zip(places, marks, strict=True):
        parts += [text[end : place.start()], mark]
        end = place.end()
    return "".join([*parts, text[end:]])


def newline_parity(batch: Batch) -> Iterator[Finding]:
    """Translations with another number of lines than their source."""
    for row in sorted({row for _, column in batch.sides() for row in column.rows_with_any("\n")}):
        english, text = batch.english.texts[row], batch.text.texts[row]
        if english.count("\n") == text.count("\n") and _outer(english) == _outer(text):
            continue
        before, after = _outer(english)
        mended = f"{before}{text.strip(chr(10))}{after}"
        reason = f"{text.count(chr(10))} line breaks, {english.count(chr(10))} in English: {shown(text)}"
        yield Finding(row, reason, mended if mended.count("\n") == english.count("\n") else None)


def _outer(text: str) -> tuple[str, str]:
    """The line breaks before and behind a text."""
    plain = text.strip("\n")
    return (text[: text.index(plain)], text[text.index(plain) + len(plain) :]) if plain else ("", text)
