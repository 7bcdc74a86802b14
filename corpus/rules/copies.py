"""Translations that are still English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from .batch import Batch
from .rule import Finding, shown

_FUNCTION_WORDS = (
    "a an the this that these those of to in on at with without from for by into over under near next behind between "
    "and or but not is are was were be been being has have had do does did will would can could should there here it "
    "its he she they we you i his her their my your our who what where when which how some any no all very"
)
ENGLISH_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that English sentences cannot do without, and names and loans can."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_LEAST_WORDS = 4
_LEAST_SHARE = 0.8


def untranslated_copies(batch: Batch) -> Iterator[Finding]:
    """Translations that equal their source or have nearly all of its words; names and loans are none."""
    sources, texts = batch.without_instructions()
    latin, letters = texts.scripts[:, 0], texts.letters
    for row in ((latin >= 4) & (2 * latin >= letters)).nonzero()[0].tolist():
        english, text = sources.texts[row], texts.texts[row]
        if english == text or english.casefold().split() == text.casefold().split():
            if is_english(english):
                yield Finding(row, f"the same as the English text: {shown(text)}")
        elif len(english) > 20 and is_near_copy(english, text):
            yield Finding(row, f"most of it is still English: {shown(text)}")


def is_english(text: str) -> bool:
    """Whether a text is surely English rather than a name, a loan or a title, which may be the same in any language."""
    words = _WORD.findall(text)
    if not words:
        return False
    function_words = [word for word in words if word.casefold() in ENGLISH_WORDS]
    others = [word for word in words if word.casefold() not in ENGLISH_WORDS]
    is_title = len(words) > 1 and all(word[0].isupper() for word in others) and len(others) > 0
    if is_title:
        return False
    return bool(function_words) or len(set(words)) >= _LEAST_WORDS


def is_near_copy(english: str, text: str) -> bool:
    """Whether a translation has nearly all words of its source in the same form, function words among them."""
    if 2 * len(set(english.split()) & set(text.split())) < len(text.split()):
        return False
    source, words = Counter(english.casefold().split()), Counter(text.casefold().split())
    shared = source & words
    if len(source) < _LEAST_WORDS + 1 or shared.total() < _LEAST_SHARE * max(source.total(), words.total()):
        return False
    return bool(ENGLISH_WORDS & shared.keys()) and is_english(english)
