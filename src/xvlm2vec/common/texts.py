"""What counts as a text, in one place."""

from __future__ import annotations


def is_blank(text: str | None) -> bool:
    """Whether there are blanks only, or nothing."""
    return not (text or "").strip()
