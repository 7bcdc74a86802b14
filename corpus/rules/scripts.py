"""Scripts of letters by Unicode's own data, and those in which languages are written."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import regex

SCRIPTS = (
    "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil",
    "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai", "Lao", "Myanmar", "Khmer", "Tibetan", "Georgian", "Armenian",
    "Ethiopic", "Han", "Hiragana", "Katakana", "Hangul", "Bopomofo", "Mongolian", "Thaana", "Syriac", "Cherokee",
    "Tifinagh", "Nko", "Canadian Aboriginal",
)  # fmt: skip
"""The scripts that are told apart; letters of all others count as none."""

_LANGUAGES = {
    "Cyrillic": "ab ba be bg ce cv kk kv ky mk mn os ru sah tg tt uk udm",
    "Greek": "el",
    "Arabic": "ar arz azb ckb fa ps sd ug ur",
    "Hebrew": "he yi",
    "Devanagari": "awa bho hi mai mr ne sa",
    "Bengali": "as bn",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Oriya": "or",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Lao": "lo",
    "Myanmar": "my",
    "Khmer": "km",
    "Tibetan": "bo dz",
    "Georgian": "ka",
    "Armenian": "hy",
    "Ethiopic": "am ti",
    "Thaana": "dv",
    "Latin": "af ast br bs ca ceb co cs cy da de en eo es et eu fi fil fo fr fy ga gd gl gn gsw ha haw ht hu id ig is "
    "it jv kl la lb li ln lt lv mg mi ms mt nb nds nl nn no ny oc pl pt qu rm ro rn rw sk sl sm sn so sq st su sv sw "
    "tl tn to tr ts vi wa wo xh yo zu",
}
_SEVERAL = {
    "zh": ("Han", "Bopomofo"),
    "yue": ("Han", "Bopomofo"),
    "ja": ("Han", "Hiragana", "Katakana"),
    "ko": ("Hangul", "Han"),
    "sr": ("Cyrillic", "Latin"),
    "az": ("Latin", "Cyrillic", "Arabic"),
    "uz": ("Latin", "Cyrillic"),
    "ku": ("Latin", "Arabic"),
    "tk": ("Latin", "Cyrillic"),
    "ks": ("Arabic", "Devanagari"),
}
# Script subtags of BCP 47.
_SUBTAGS = {
    "Latn": ("Latin",), "Cyrl": ("Cyrillic",), "Arab": ("Arabic",), "Deva": ("Devanagari",), "Hans": ("Han",),
    "Hant": ("Han", "Bopomofo"), "Grek": ("Greek",), "Hebr": ("Hebrew",), "Guru": ("Gurmukhi",), "Mong": ("Mongolian",),
}  # fmt: skip
_BY_LANGUAGE = {code: (script,) for script, codes in _LANGUAGES.items() for code in codes.split()} | _SEVERAL

_SCRIPT_OF = regex.compile("|".join(rf"(\p{{Script={name.replace(' ', '_')}}})" for name in SCRIPTS))
_IS_LETTER = regex.compile(r"[\p{L}\p{M}]")
_UNKNOWN = 255
_NUMBERS = np.full(0x110000, _UNKNOWN, np.uint8)
"""Number of each code point's script among `SCRIPTS`, counted from 1; filled as characters are met."""


def script_numbers(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """The script of each code point, as its place among `SCRIPTS` counted from 1; 0 for what is no letter of one."""
    numbers = _NUMBERS[points]
    if (numbers == _UNKNOWN).any():
        for point in np.unique(points[numbers == _UNKNOWN]).tolist():
            sign = chr(point)
            match = _SCRIPT_OF.match(sign) if _IS_LETTER.match(sign) else None
            _NUMBERS[point] = match.lastindex or 0 if match else 0
        numbers = _NUMBERS[points]
    return numbers.astype(np.int64)


def scripts_of_language(code: str) -> tuple[str, ...]:
    """The scripts in which a language is written; none if that is not known.

    Args:
        code: Its code in normal form; a script in it decides.
    """
    base, *parts = code.split("-")
    for part in parts:
        if part in _SUBTAGS:
            return _SUBTAGS[part]
    return _BY_LANGUAGE.get(base, ())
