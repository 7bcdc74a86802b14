"""Numbers that a translation loses, changes or adds."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from .batch import Batch
from .rule import Finding

# Digits with the signs that part groups and decimals; a blank parts only whole groups of three.
_NUMBER = re.compile(r"\d+(?:[.,'’٬٫·](?=\d)\d+|[ \u00a0\u202f]\d{3}(?!\d))*")
_PART = re.compile(r"\D")
# Number words from ten on, whose translation may be digits; and what changes numbers: months, hours, units, multiples.
_SPELLED = re.compile(
    r"\b(?:ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|"
    r"millions?|billions?|dozens?|half|quarter|noon|midnight|century|centuries|\w{3,}th)\b",
    re.IGNORECASE,
)
_CHANGING = re.compile(
    r"\b(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\b|[ap]\.?m\b|o'clock|million|billion|thousand|"
    r"hundred|dozen|century|inch|feet|foot|\bft\b|mile|pound|\blbs?\b|ounce|fahrenheit|°f|\d['’]?s\b",
    re.IGNORECASE,
)
_MULTIPLES = re.compile("[万萬億亿千百십백천만억]|लाख|करोड़|हज़ार|ล้าน|แสน|หมื่น|พัน")


def numbers_differ(batch: Batch) -> Iterator[Finding]:
    """Digits of one side that the other has not; numbers written as words, dates and units get no verdict."""
    for row in sorted({*batch.english.rows_with_digits, *batch.text.rows_with_digits}):
        wanted, held = _NUMBER.findall(batch.english.texts[row]), _NUMBER.findall(batch.text.texts[row])
        if wanted == held:
            continue
        lost, added = _difference(wanted, held)
        if (lost or added) and _is_fault(lost, added, batch.english.texts[row], batch.text.texts[row]):
            said = [f"lost {_listed(lost)}" if lost else "", f"added {_listed(added)}" if added else ""]
            yield Finding(row, f"numbers differ: {', '.join(filter(None, said))}")


def plain_number(number: str) -> str:
    """A number as ASCII digits alone: `1,000`, `1.000` and `١٬٠٠٠` are `1000`, and `3,50` and `3.5` are `35`."""
    digits = number if number.isascii() else "".join(_digit(sign) for sign in number)
    parts = _PART.split(digits)
    if len(parts) > 1 and len(parts[-1]) != 3:
        parts[-1] = parts[-1].rstrip("0")
    return "".join(parts).lstrip("0") or "0"


def _digit(sign: str) -> str:
    value = unicodedata.decimal(sign, None)
    return sign if value is None else str(value)


def _difference(wanted: list[str], held: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Numbers that only one side has.

    If one side has more numbers, one that stands twice in one text and once in the other is there.
    """
    source, text = Counter(map(plain_number, wanted)), Counter(map(plain_number, held))
    if len(wanted) == len(held):
        return source - text, text - source
    lost = Counter({number: count for number, count in source.items() if number not in text})
    added = Counter({number: count for number, count in text.items() if number not in source})
    return lost, added


def _is_fault(lost: Counter[str], added: Counter[str], english: str, text: str) -> bool:
    """Whether a difference is one that no way of writing explains."""
    if _CHANGING.search(english) or _MULTIPLES.search(text):
        return False
    if len(lost) != len(added) and sorted("".join(lost.elements())) == sorted("".join(added.elements())):
        return False  # the same digits, cut otherwise: "10:30" and "10.30"
    if {number.strip("0") for number in lost} == {number.strip("0") for number in added}:
        return False  # the same in another unit: "50 cents" and "0,50 euros"
    if lost and added:
        return True
    if lost:  # "3 dogs" may be "drei Hunde", "1998" is never a word
        return any(len(number) >= 3 for number in lost)
    return any(len(number) >= 2 for number in added) and not _SPELLED.search(english)


def _listed(numbers: Counter[str]) -> str:
    return ", ".join(list(numbers)[:4])
