"""Which texts of a corpus count as texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def is_blank(text: str | None) -> bool:
    """Whether there are blanks only, or nothing."""
    return not (text or "").strip()


def with_text(translations: Iterable[Mapping[str, Any]] | None) -> list[Any]:
    """The translations of a row, each with `lang` and `text`, that are not blank, in their order."""
    return [item for item in translations or () if not is_blank(item["text"])]
