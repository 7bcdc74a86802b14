"""Faults of single texts that are mended on the spot: blanks, wrong encodings, leftovers of tokenizers, punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .batch import SEPARATOR, Batch, Column
from .rule import Finding, repaired_sides, shown

_BLANKS = " \t\u00a0\u3000\u200b\ufeff"
_STRAY = (
    *("\t", "\r", "\f", "\v", "\u200b", "\u2028", "\ufeff", "  "),
    *(part for blank in _BLANKS for edge in ("\n", SEPARATOR) for part in (blank + edge, edge + blank)),
)
_LINE_ENDS, _INNER = re.compile(r"\r\n?|\u2028"), re.compile(r"[\t\f\v]| {2,}")
_INVISIBLE = re.compile(r"[\u200b\ufeff]")

# What UTF-8's bytes of Latin, Cyrillic and typographic letters look like when they are read as a code page.
_MISREAD = re.compile(r"[ÃÂâÐÑØÙàáãä][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|\ufffd")

_LOST = re.compile(r"<unk>|\[UNK\]|⁇", re.IGNORECASE)
_LEFT_OVER = re.compile(
    r"</?s>|<pad>|<bos>|<eos>|\[(?:PAD|CLS|SEP|BOS|EOS)\]|<\|(?:endoftext|im_start|im_end|eot_id|end|begin_of_text)\|>"
    r"|<2[a-z]{2,3}(?:_[A-Za-z]+)?>|__[a-z]{2,3}__|>>[a-z]{2,3}(?:_[A-Za-z]+)?<<"
    r"|(?<![\w-])[a-z]{3}_(?:Latn|Cyrl|Arab|Deva|Hans|Hant|Jpan|Hang|Thai|Grek|Hebr|Beng|Taml|Telu)(?![\w-])"
)
_TOKENS = re.compile(rf"{_LOST.pattern}|{_LEFT_OVER.pattern}|▁|(?<=\w)@@ ", re.IGNORECASE)
_SIGNS_OF_TOKENS = ("<", "[", "_", ">>", "@@ ", "▁", "⁇")
_PIECE, _JOINT = re.compile("▁"), re.compile(r"(?<=\w)@@ ")

# A bar that stands for the end of a sentence in the scripts that have a sign for it.
_BAR = re.compile(r" ?\|\Z")
_DANDA_LANGUAGES = frozenset({"as", "awa", "bho", "bn", "gu", "hi", "mai", "mr", "ne", "or", "pa", "sa"})

_TWICE = "|".join(rf"(?<!{re.escape(sign)}){re.escape(sign * 2)}(?!{re.escape(sign)})" for sign in ",;。，、।۔،")
_DOUBLED = re.compile(
    rf"(?<![.．])\.\.(?=\s|[\"'»”)\]]|\Z)|{_TWICE}|[。।۔]\.(?!\.)|(?<!\.)\.[。।۔]|[!?]\.(?=\s|\Z)|[！？]。"
)
_SIGNS_OF_DOUBLED = (
    *("..", "。.", "।.", "۔.", ".。", ".।", ".۔", "!.", "?.", "！。", "？。"),
    *(sign * 2 for sign in ",;。，、।۔،"),
)


def stray_blanks(batch: Batch) -> Iterator[Finding]:
    """Blanks around lines, several in a row, tabs, carriage returns and invisible characters."""
    return repaired_sides(
        batch,
        lambda column: column.rows_with_any(*_STRAY),
        without_stray_blanks,
        "stray blanks, tabs or carriage returns",
    )


def without_stray_blanks(text: str) -> str:
    r"""A text with single blanks between its words and none around its lines; `\n` stays."""
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text.removesuffix("\r")))
    return "\n".join(_INNER.sub(" ", line).strip(_BLANKS) for line in text.split("\n"))


def wrong_encoding(batch: Batch) -> Iterator[Finding]:
    """UTF-8 that was read as a code page of one byte a letter, and characters that were lost."""
    return repaired_sides(
        batch, lambda column: column.rows_with(_MISREAD), with_right_encoding, "letters in a wrong encoding"
    )


def with_right_encoding(text: str) -> str | None:
    """A text as it was before its UTF-8 was read as Windows-1252 or Latin-1; None if letters are lost."""
    if "\ufffd" in text:
        return None
    for encoding in ("cp1252", "latin-1"):
        try:
            return text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return text


def tokenizer_leftovers(batch: Batch) -> Iterator[Finding]:
    """Tokens of models that are no text, such as `</s>`, `▁` or `<unk>`, which their sources do not hold."""
    for finding in repaired_sides(batch, _may_hold_tokens, without_tokens, "tokens of a model"):
        # A pair that has them on both sides speaks of them.
        if not (_TOKENS.search(batch.english.texts[finding.row]) and _TOKENS.search(batch.text.texts[finding.row])):
            yield finding


def _may_hold_tokens(column: Column) -> list[int]:
    return [row for row in column.rows_with_any(*_SIGNS_OF_TOKENS) if _TOKENS.search(column.texts[row])]


def without_tokens(text: str) -> str | None:
    """A text without the tokens of a model; None if they stand for words that are lost."""
    if _LOST.search(text):
        return None
    text = _LEFT_OVER.sub("", _JOINT.sub("", text))
    return _PIECE.sub(" ", text).replace("  ", " ").strip(" ")


def bar_for_danda(batch: Batch) -> Iterator[Finding]:
    """An ASCII `|` at the end of a sentence in languages that write `।`."""
    for row in batch.text.rows_with_any(f"|{SEPARATOR}"):
        if batch.bases[row] in _DANDA_LANGUAGES:
            text = batch.text.texts[row]
            yield Finding(row, f"'|' stands for '।': {shown(text)}", _BAR.sub("।", text))


def doubled_punctuation(batch: Batch) -> Iterator[Finding]:
    """Full stops, commas and semicolons that stand twice, and a full stop behind another end of a sentence."""
    return repaired_sides(batch, _may_hold_doubled, with_single_punctuation, "doubled punctuation")


def _may_hold_doubled(column: Column) -> list[int]:
    return column.rows_with_any(*_SIGNS_OF_DOUBLED)


def with_single_punctuation(text: str) -> str:
    """A text in which the first of two signs stays."""
    return _DOUBLED.sub(lambda match: match[0][0], text)
