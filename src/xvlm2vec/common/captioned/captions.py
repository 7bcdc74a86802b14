"""An image with its captions, the codes of their languages, and the part of them that no training may see."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from xvlm2vec.common.languages import normal_or_same

_SCRIPTS = {"latin": "Latn", "cyrillic": "Cyrl", "devanagari": "Deva", "arabic": "Arab"}
_HELD_OUT = 5
"""One caption in so many is held out."""


@dataclass(frozen=True)
class Captioned:
    """An image with its captions.

    Attributes:
        image: Name of the image.
        english: Its English caption.
        others: Its captions by the spelling of their languages.
    """

    image: str
    english: str
    others: Mapping[str, str]


def locale_code(name: str) -> str:
    """The code of a language as systems spell it: `sr@latin` is `sr-Latn`, `ca@valencia` `ca-valencia`."""
    base, _, modifier = name.partition("@")
    language, _, region = re.sub(r"\..*", "", base).partition("_")
    return normal_or_same("-".join(filter(None, (language, _SCRIPTS.get(modifier, ""), region))) + (
        f"-{modifier}" if modifier and modifier not in _SCRIPTS else ""
    ))  # fmt: skip


def is_held_out(english: str) -> bool:
    """Whether images with this English caption are kept for tests: a fifth of all captions, always the same.

    The caption decides, without case, punctuation and blanks, so that all images that bear it are on one side.
    """
    letters = "".join(sign for sign in english.casefold() if sign.isalnum())
    return hashlib.sha256(letters.encode()).digest()[0] % _HELD_OUT == 0
