"""What all translators have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from xvlm2vec.corpus.rows import ENGLISH

Answer = tuple[int, str | None, str]
"""Number of a text, its translation or None, and what is wrong."""


class Engine(Protocol):
    """A translator.

    It may have an attribute `asks_again` that is true: what it could not translate may go well another time, as with a
    server that was busy, and is tried again when the same command runs again.

    Attributes:
        batch_size: Texts at a time.
    """

    batch_size: int

    def check(self, languages: Sequence[str]) -> None:
        """Finds out before the first text whether all languages can be had.

        Raises:
            ValueError: One cannot.
        """

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """Translates texts, in any order.

        Args:
            texts: The texts, each a line without marks.
            language: Code of the language into which they are translated.
            source: Code of their own language.
        """


def asks_again(engine: Engine) -> bool:
    """Whether a text that an engine could not translate is tried again by the next run."""
    return bool(getattr(engine, "asks_again", False))
