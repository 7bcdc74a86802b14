"""Balance by concept, after MetaCLIP (arXiv 2309.16671) and MetaCLIP 2 (arXiv 2507.22062).

Every text is matched with concepts. A concept that more than a threshold of texts have is drawn with the probability
that leaves about so many of them; a text stays if any of its concepts is drawn. So texts with a rare concept all stay,
and those that say what thousands of others say become few. MetaCLIP 2 sets the threshold of each language by the share
of matches that are in its tail, so that a small language is cut as much as a large one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.image_marks import strip_marks
from xvlm2vec.corpus.rules.copies import ENGLISH_WORDS

TAIL = 0.06
"""Share of a language's matches that are with concepts below its threshold, as in MetaCLIP's English data."""
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def read_concepts(path: str | Path) -> frozenset[str]:
    """A list of concepts, one a line, words or phrases in English.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds none, or is not UTF-8.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}).") from error
    concepts = frozenset(" ".join(_words(line)) for line in lines) - {""}
    if not concepts:
        raise ValueError(f"{path} holds no concept; it should have one a line.")
    return concepts


class Matcher:
    """Finds the concepts of English texts.

    Args:
        concepts: Words and phrases in small letters; without them every word that carries meaning is a concept.
    """

    def __init__(self, concepts: Collection[str] | None = None) -> None:
        self._concepts = None if concepts is None else frozenset(concepts)
        self._longest = max((len(concept.split()) for concept in concepts or ()), default=1)

    def find(self, text: str) -> list[str]:
        """The concepts of a text, each once, in the order in which they stand."""
        words = _words(strip_marks(text) or "")
        if self._concepts is None:
            return list(dict.fromkeys(word for word in words if word not in ENGLISH_WORDS and len(word) > 1))
        phrases = (
            " ".join(words[start : start + length])
            for start in range(len(words))
            for length in range(1, min(self._longest, len(words) - start) + 1)
        )
        return list(dict.fromkeys(phrase for phrase in phrases if phrase in self._concepts))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def threshold(counts: Counter[str], tail: float) -> int:
    """The largest number of texts that no concept of the tail exceeds.

    Args:
        counts: Texts of each concept.
        tail: Share of all matches that shall be with concepts of the tail.
    """
    ordered: npt.NDArray[np.int64] = np.sort(np.fromiter(counts.values(), np.int64, len(counts)))
    share = np.cumsum(ordered) / max(1, int(ordered.sum()))
    below = int(np.searchsorted(share, tail, side="right"))
    return max(1, int(ordered[min(below, len(ordered) - 1)])) if len(ordered) else 1


def keep_probability(concepts: Iterable[str], counts: Counter[str], most: int) -> float:
    """With which probability a text stays: that any of its concepts is drawn; 1 for a text without one.

    Args:
        concepts: The concepts of the text.
        counts: Texts of each concept.
        most: The threshold.
    """
    lost, found = 1.0, False
    for concept in concepts:
        found = True
        lost *= 1.0 - min(1.0, most / counts[concept])
    return 1.0 - lost if found else 1.0
