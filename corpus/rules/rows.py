"""Faults of a row beside its texts: codes of languages, and images that are missing or cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from xvlm2vec.common.languages import normal_code
from xvlm2vec.corpus.rows import ENGLISH

from .batch import Batch
from .rule import Finding


def language_codes(batch: Batch) -> Iterator[Finding]:
    """Codes that are none, are English, are there already, or are written in another than their normal form."""
    problems: dict[str, str | None] = {}
    seen: set[tuple[int, str]] = set()
    for row, given in enumerate(batch.given):
        if given not in problems:
            problems[given] = _problem(given)
        problem = problems[given]
        if problem is not None:
            yield Finding(row, problem)
            continue
        language = (batch.places[row], batch.codes[row])
        if language in seen:
            yield Finding(row, f"the row has a translation into {batch.codes[row]!r} already, here as {given!r}")
        elif given != batch.codes[row]:
            yield Finding(row, f"the normal form of {given!r} is {batch.codes[row]!r}", code=batch.codes[row])
        seen.add(language)


def _problem(code: str) -> str | None:
    """Why a code cannot be that of a translation; a row without a translation has none, which another rule tells."""
    if not code:
        return None
    try:
        language = normal_code(code)
    except ValueError as error:
        return str(error)
    return f"{code!r} is English, and no translation" if language == ENGLISH else None


def image_faults(check: Callable[[Any], str | None]) -> Callable[[Batch], Iterable[Finding]]:
    """The rule of images.

    Args:
        check: Tells what is wrong with an image, if anything is.
    """

    def find(batch: Batch) -> Iterator[Finding]:
        for row, image in enumerate(batch.images):
            problem = None if image is None else check(image)
            if problem:
                yield Finding(row, problem)

    return find
