"""Translations in another script or language than they should be in."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from xvlm2vec.common.language_detection import known_languages, likely_languages

from .batch import Batch
from .rule import Finding, shown
from .scripts import SCRIPTS, scripts_of_language

_LATIN_WORD = re.compile("[A-Za-zÀ-ɏ][\\w'’-]*")
_LEAST_LETTERS = 4
_MOST_FOREIGN, _MOST_LATIN = 0.3, 0.7
_LEAST_LATIN = 12
"""Fewer Latin letters in another script may be names and brands."""

_LEAST_LETTERS_TO_JUDGE = 30
_SURE, _UNLIKELY = 0.6, 0.03
# Languages that the model takes for each other, or that are written alike.
_ALIKE = [
    set(group.split())
    for group in (
        "hr bs sr sh sl mk", "no nb nn da sv", "id ms jv su min", "cs sk", "pt gl es an", "es gl ast an ca oc eo vec",
        "it co scn lmo vec", "fr oc wa ca", "hi mr ne bho mai sa awa", "fa mzn glk azb", "ckb ku", "ur pnb sd",
        "ru uk be bg mk ba tt", "de nds als gsw lb bar", "nl af nds li fy vls", "tr az tk crh uz",
        "uz kk ky tt", "fi et", "ar arz", "fil tl ceb war", "bn as bpy", "ga gd",
    )
]  # fmt: skip
# The model's names for codes that it has under another one.
_MODEL_CODES = {"nb": "no", "fil": "tl"}
# Their letters are those of no other language that the model tells from them: the rule of scripts is enough.
_ONE_SCRIPT = "th lo km my ka hy el he ko ta te kn ml gu pa or si am bo zh yue ja hi mr ne mai bho sa"
_ENOUGH = frozenset(_ONE_SCRIPT.split())


def wrong_script(batch: Batch) -> Iterator[Finding]:
    """Letters of a script in which the language is not written, more than names would have."""
    sources, texts = batch.without_instructions()
    counts, places = texts.scripts, {name: place for place, name in enumerate(SCRIPTS)}
    for code in dict.fromkeys(batch.codes):
        expected = [places[name] for name in scripts_of_language(code)]
        if not expected:
            continue
        rows = np.array([row for row, other in enumerate(batch.codes) if other == code])
        right, total, latin = counts[rows][:, expected].sum(1), texts.letters[rows], counts[rows, 0]
        wrong = total - right
        foreign = wrong if 0 in expected else wrong - latin
        alien = (foreign >= _LEAST_LETTERS) & (foreign > _MOST_FOREIGN * total)
        faulty = alien | [
            is_latin and not (0 not in expected and is_name(sources.texts[row], texts.texts[row]))
            for row, is_latin in zip(rows, (wrong >= _LEAST_LATIN) & (wrong > _MOST_LATIN * total), strict=True)
        ]
        if code.split("-")[0] == "ja":  # without a syllable it is Chinese
            syllables = counts[rows][:, [places["Hiragana"], places["Katakana"]]].sum(1)
            faulty |= (counts[rows, places["Han"]] >= _LEAST_LATIN) & (syllables == 0)
        for row in rows[faulty].tolist():
            name = SCRIPTS[int(counts[row].argmax())]
            yield Finding(row, f"{name} letters are none of {code!r}: {shown(batch.text.texts[row])}")


def is_name(english: str, text: str) -> bool:
    """Whether nearly all Latin letters of a text belong to names, which its source writes in the same way."""
    words = set(_LATIN_WORD.findall(english))
    others = [word for word in _LATIN_WORD.findall(text) if word not in words or word[0].islower()]
    return sum(map(len, others)) < _LEAST_LETTERS


def wrong_language(batch: Batch) -> Iterator[Finding]:
    """Texts that a model of language identification takes for another language; short ones get no verdict."""
    known, (_, texts) = known_languages(), batch.without_instructions()
    rows = [
        row
        for row, base in enumerate(batch.bases)
        if base and base not in _ENOUGH and texts.letters[row] >= _LEAST_LETTERS_TO_JUDGE
    ]
    for row, answers in zip(rows, likely_languages([texts.texts[row] for row in rows]), strict=True):
        base = _MODEL_CODES.get(batch.bases[row], batch.bases[row])
        (best, score), scores = answers[0], dict(answers)
        if (
            best == base
            or base not in known
            or score < _SURE
            or scores.get(base, 0.0) > _UNLIKELY
            or _are_alike(base, best)
        ):
            continue
        text = shown(batch.text.texts[row])
        yield Finding(row, f"it is {best!r} by {score:.2f}, not {batch.codes[row]!r}: {text}")


def _are_alike(first: str, second: str) -> bool:
    return first == second or any(first in group and second in group for group in _ALIKE)
