"""A list of words as a translator of labels and names: whole texts that stand in the list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from xvlm2vec.corpus.code_switching import folded_words, read_lexicon
from xvlm2vec.corpus.rows import ENGLISH

from .engine import Answer

_BETWEEN_SENSES = ", "


class WordList:
    """A CSV with a column per language, `en,de,fr`, and a line for each sense of a word.

    A text is translated if the list has it, whatever its capitals and the punctuation around it. A word with several
    senses is given all of them: lists as those of FreeDict stand in the order of the alphabet, and the first sense of
    "dog" there is a cooper's tool.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        LexiconError: It is no UTF-8, its header names no English or nothing else, or it has no entry.
    """

    batch_size = 1_000

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lexicon = read_lexicon(path)

    def check(self, languages: Sequence[str]) -> None:
        """See `Engine`."""
        for language in languages:
            if not self._lexicon.has(language):
                raise ValueError(
                    f"{self.path} has no words in {language!r}; it has {', '.join(self._lexicon.entries)}."
                )

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """See `Engine`; the texts' own language is English."""
        for number, text in enumerate(texts):
            senses = self._lexicon.find(folded_words(text), [language]).get(language)
            if senses:
                yield number, _BETWEEN_SENSES.join(senses), ""
            else:
                yield number, None, f"{self.path.name} does not have {text!r:.60}"
