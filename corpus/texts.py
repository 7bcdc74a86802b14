"""What texts of a corpus hold: words that stand for nothing, and what makes two texts the same."""

from __future__ import annotations

import unicodedata

NULL_WORDS = frozenset({"nan", "null", "n/a", "#n/a", "<na>", "none"})
"""Words by which programs write that there is no text, in small letters."""


def is_null_word(text: str) -> bool:
    """Whether a text is a word by which programs write that there is none, such as `nan` or `NULL`.

    It may be a real text all the same: "none" answers many a question.
    """
    return text.strip().casefold() in NULL_WORDS


def content_key(text: str) -> str:
    """A text without what a reader does not see: Unicode form (NFKC), case, number of spaces, invisible characters."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    visible = "".join(sign for sign in plain if unicodedata.category(sign) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible).split())
