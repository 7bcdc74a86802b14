"""What translators and annotators leave in texts: labels before them, numbers between words, marks at unknown words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from xvlm2vec.common.languages import language

from .batch import START, Batch
from .rule import Finding, shown

# "Translation" in the languages that translators are asked for.
_LABELS = (
    "translation|translated text|output|response|answer|assistant|übersetzung|antwort|traduction|réponse|traducción|"
    "traducció|tradución|respuesta|traduzione|risposta|tradução|resposta|vertaling|översättning|oversættelse|"
    "oversettelse|käännös|tõlge|tulkojums|vertimas|tłumaczenie|překlad|preklad|prijevod|prevod|fordítás|traducere|"
    "çeviri|tərcümə|terjemahan|bản dịch|dịch|перевод|переклад|превод|μετάφραση|תרגום|الترجمة|ترجمة|ترجمه|ترجمہ|अनुवाद|"
    "অনুবাদ|மொழிபெயர்ப்பு|అనువాదం|คำแปล|翻译|譯文|译文|翻譯|翻訳|訳|번역|tafsiri"
)
_INTRODUCTIONS = (
    r"(?:sure|certainly|of course|okay)[!,.][^\n\0]{0,80}?[:：]\s+"
    r"|here(?:'s| is) (?:the|a|your) (?:\w+ )?translat\w+[^\n\0:：]{0,40}[:：]\s*"
    r"|the (?:\w+ )?translation (?:of [^\n\0:：]{0,60} )?is\s?[:：]\s*"
    r"|hier ist die übersetzung[^\n\0:：]{0,40}[:：]\s*|voici la traduction[^\n\0:：]{0,40}[:：]\s*"
    r"|aquí (?:está|tienes) la traducción[^\n\0:：]{0,40}[:：]\s*|ecco la traduzione[^\n\0:：]{0,40}[:：]\s*"
)
# A number that counts the rows of a batch: "#12 - ", "12) ", "(12) "; and French puts a blank before the colon.
_NUMBERED = r"#\d+ ?[-–—:.]\s+|\(\d{1,4}\)\s+|\d{1,4}\)\s+"
_AT_START = re.compile(
    rf"\s*(?:{_NUMBERED}|[\"'«“*]*(?:{_LABELS})(?: \([^)\n\0]{{1,30}}\))?[*]*\s?[:：][*]*\s*|{_INTRODUCTIONS})",
    re.IGNORECASE,
)
_PREFIX = re.compile(START + _AT_START.pattern, re.IGNORECASE)
_ANY_LABEL = re.compile(r"\s*(?:#?\d+\s?[-–—:.)]|\(\d+\)|[\"'«“*]*[^\W\d_][\w ]{0,30}\s?[:：])")
_LABEL = re.compile(r"([^\W\d_][\w() ]{1,30}?)\s?[:：]\s*")

# "[/EN#12/people two men]" of Flickr30k Entities, "#12", "12:", and bare numbers between words.
_ENTITY = re.compile(r"\[/EN#\d+(?:/\w+)* ([^\]\[\0]*)\]")
_NUMBER_MARK = re.compile(r"(?<![\w.,:/#-])(?:#\d{1,3}|\d{1,3}[:：](?!\d\d))\s*")
_BARE = re.compile(r"(?<![\w.,:/#%$€£¥+-])\d{1,2}(?=[ \u3000]|[^\W\d_a-zA-Z]|\[)(?![ \u3000]?[%°:])")
_ENTITIES = re.compile(rf"{_ENTITY.pattern}|{_NUMBER_MARK.pattern}|{_BARE.pattern}")
_WITHOUT_BLANKS = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my"})
_NUMBER_WORDS = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|couple|pair|both|dozen|several|few|"
    r"half|first|second|third|single|double|twin|twins|trio|\w+teen|\w+ty)\b",
    re.IGNORECASE,
)

# Apertium marks words that it does not know, and forms that it cannot make.
_UNKNOWN_WORD = re.compile(r"(?<![\w*#])[*#@][^\W\d_]{2,}(?![*#\w])")


def artefact_prefix(batch: Batch) -> Iterator[Finding]:
    """Labels and numbers before a text that its source has not, such as `#12 - ` or `Translation:`."""
    for row in batch.text.rows_with(_PREFIX):
        text = batch.text.texts[row]
        match = _AT_START.match(text)
        if match and not _ANY_LABEL.match(batch.english.texts[row]):
            yield Finding(row, f"the prefix {match[0].strip()!r}", text[match.end() :].strip("\"'“”«»* "))
    for row in batch.text.rows_with_any(":", "："):
        text, code = batch.text.texts[row], batch.codes[row]
        match = _LABEL.match(text)
        if match and code and not _ANY_LABEL.match(batch.english.texts[row]):
            known = language(code)
            if match[1].casefold() in {known.name.casefold(), known.native_name.casefold()}:
                yield Finding(row, f"the prefix {match[0].strip()!r}", text[match.end() :])


def entity_numbers(batch: Batch) -> Iterator[Finding]:
    """Numbers of entities that annotators put between the words, and that the other side has not."""
    for side, column, other in (("text", batch.text, batch.english), ("english", batch.english, batch.text)):
        for row in column.rows_with_digits:
            text, source = column.texts[row], other.texts[row]
            found = [match[0] for match in _ENTITIES.finditer(text)]
            if found and _are_entities(found, source, may_be_bare=side == "text"):
                plain = without_entities(text, side == "text" and batch.bases[row] in _WITHOUT_BLANKS)
                yield Finding(row, f"numbers of entities between the words: {shown(text)}", **{side: plain})


def without_entities(text: str, is_solid: bool) -> str:
    """A text without the numbers of entities.

    Args:
        text: The text.
        is_solid: Whether its language has no blanks between words, so that those before numbers go with them.
    """
    plain = _without(_NUMBER_MARK, _ENTITY.sub(r"\1", text), is_solid)
    if plain == text:  # no number is marked: then bare ones are meant
        plain = _without(_BARE, text, is_solid)
    return re.sub(" {2,}", " ", plain).strip()


def _without(number: re.Pattern[str], text: str, is_solid: bool) -> str:
    return (re.compile(f"[ \u3000]?(?:{number.pattern})[ \u3000]?") if is_solid else number).sub("", text)


def _are_entities(found: list[str], source: str, may_be_bare: bool) -> bool:
    """Whether numbers mark entities: in a form that nothing else has, or counting up beside few number words."""
    if any(item.startswith("[/EN#") for item in found):
        return "[/EN#" not in source
    numbers = [int(re.sub(r"\D", "", item)) for item in found]
    if len(numbers) < 2 or set(map(str, numbers)) & set(re.findall(r"\d+", source)):
        return False
    marked = sum(not item.strip().isdigit() for item in found)
    if marked:
        return marked >= 2 and "#" not in source
    counts_up = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return may_be_bare and counts_up and len(_NUMBER_WORDS.findall(source)) < len(numbers)


def unknown_words(batch: Batch) -> Iterator[Finding]:
    """Words that a rule-based translator marked as unknown, such as `*word` or `#word`."""
    for row in batch.text.rows_with_any("*", "#", "@"):
        source, found = batch.english.texts[row], _UNKNOWN_WORD.findall(batch.text.texts[row])
        if found and not any(sign in source for sign in "*#@"):
            yield Finding(row, f"words that a translator did not know: {', '.join(found[:3])}")
