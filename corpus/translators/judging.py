"""Translations as the rules of `corpus check` see them, before they are taken into a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xvlm2vec.common.language_detection import is_installed
from xvlm2vec.corpus.rows import ENGLISH
from xvlm2vec.corpus.rules.batch import Batch
from xvlm2vec.corpus.rules.registry import CODE, LANGUAGE, LENGTH, TEXT_RULES
from xvlm2vec.corpus.rules.rule import Action, Rule

_FROM_ENGLISH = frozenset({CODE, "danda", "copy", "script", LANGUAGE, LENGTH})
"""Rules that know which side is English, and are not asked about translations into it."""


@dataclass
class Verdict:
    """What the rules say of a translation.

    Attributes:
        text: The translation, repaired where a rule can repair it.
        faults: What is wrong with it, the rule's name first.
    """

    text: str
    faults: list[str] = field(default_factory=list)


def verdicts(sources: Sequence[str], texts: Sequence[str], language: str) -> list[Verdict]:
    """Judges translations into a language, each alone.

    Args:
        sources: The texts: English ones, or in any language if they are translated into English.
        texts: Their translations.
        language: Code of the translations' language.
    """
    if not texts:
        return []
    batch = Batch.of(list(zip(sources, texts, [language] * len(texts), strict=True)))
    found = [Verdict(text) for text in texts]
    for rule in _rules(language):
        repaired: dict[int, str] = {}
        for finding in rule.find(batch):
            if rule.action is Action.REPAIR and finding.is_repair:
                repaired |= {} if finding.text is None else {finding.row: finding.text}
            elif rule.action is not Action.TELL:
                found[finding.row].faults.append(f"{rule.name}: {finding.reason}")
        batch.replace({}, repaired)
    for verdict, text in zip(found, batch.text.texts, strict=True):
        verdict.text = text
    return found


def accepted(sources: Sequence[str], texts: Sequence[str], language: str) -> list[tuple[str | None, str]]:
    """Translations without a fault, repaired; None and what is wrong for the others."""
    return [
        (None, verdict.faults[0]) if verdict.faults else (verdict.text, "")
        for verdict in verdicts(sources, texts, language)
    ]


def _rules(language: str) -> list[Rule]:
    """The rules that look at a row alone; without the one of languages where its library is not installed."""
    left_out = _FROM_ENGLISH if language == ENGLISH else frozenset() if is_installed() else {LANGUAGE}
    return [rule for rule in TEXT_RULES if rule.name not in left_out]
