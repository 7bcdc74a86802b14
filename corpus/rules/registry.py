"""All rules in the order in which they judge: repairs first, then what a text says, then what the corpus tells."""

from __future__ import annotations

from .artefacts import artefact_prefix, entity_numbers, unknown_words
from .cleaning import bar_for_danda, doubled_punctuation, stray_blanks, tokenizer_leftovers, wrong_encoding
from .contents import emptied, filler, null_words, refusals
from .copies import untranslated_copies
from .languages import wrong_language, wrong_script
from .length import length_ratio
from .marks import marks_parity, newline_parity
from .numbers import numbers_differ
from .repetition import repeated_parts
from .rows import language_codes
from .rule import Action, Rule

LINE = "line"
"""The rule of lines that cannot be read, which is not asked: they are dropped."""
CODE, IMAGE, LENGTH, LANGUAGE = "code", "image", "length", "language"

TEXT_RULES = (
    Rule(CODE, "codes of languages", language_codes, Action.REPAIR, repairs=True),
    Rule("blanks", "stray blanks, tabs, carriage returns", stray_blanks, Action.REPAIR, repairs=True),
    Rule("encoding", "letters in a wrong encoding", wrong_encoding, Action.REPAIR, repairs=True),
    Rule("tokens", "tokens of a model such as `</s>`", tokenizer_leftovers, Action.REPAIR, repairs=True),
    Rule("prefix", "labels before a translation", artefact_prefix, Action.REPAIR, repairs=True),
    Rule("entities", "numbers of entities between words", entity_numbers, Action.REPAIR, repairs=True),
    Rule("danda", "`|` for `।`", bar_for_danda, Action.REPAIR, repairs=True),
    Rule("punctuation", "doubled punctuation", doubled_punctuation, Action.REPAIR, repairs=True),
    Rule("marks", "marks of images and fields in braces", marks_parity, Action.REPAIR, repairs=True),
    Rule("newlines", "line breaks", newline_parity, Action.REPAIR, repairs=True),
    Rule("empty", "empty texts", emptied),
    Rule("null-word", "`nan`, `NULL` and such", null_words, Action.TELL),
    Rule("filler", "no words, or letters at random", filler),
    Rule("refusal", "\"could not translate\" in any language", refusals),
    Rule("copy", "English that is not translated", untranslated_copies),
    Rule("script", "letters of another script", wrong_script),
    Rule(LANGUAGE, "another language", wrong_language),
    Rule("unknown-words", "words that a translator marked as unknown", unknown_words),
    Rule("repetition", "parts again and again", repeated_parts),
    Rule("numbers", "numbers that are lost, changed or added", numbers_differ),
    Rule(LENGTH, "far too short or too long for the language", length_ratio),
)  # fmt: skip
"""The rules that look at a row alone."""
