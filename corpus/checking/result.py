"""What a check tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from xvlm2vec.corpus.rows import RejectedRow
from xvlm2vec.corpus.scoring.report import ScoreReport

from .page import Example


@dataclass
class CheckResult:
    """What a check tells.

    Attributes:
        rows: Rows: English texts with one translation each, and lines that could not be read.
        kept: Rows that are kept.
        repaired: Kept rows that were repaired, by rule.
        dropped: Dropped rows by the first rule that dropped them.
        told: Rows in which a rule found what may be meant.
        languages: Kept rows by language.
        not_run: Rules that were not run, and why.
        faults: The first dropped rows.
        scores: What the kept rows mean, if they were scored.
        examples: Rows of each rule and language.
    """

    rows: int = 0
    kept: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    not_run: dict[str, str] = field(default_factory=dict)
    faults: list[RejectedRow] = field(default_factory=list)
    scores: ScoreReport | None = None
    examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The counts."""
        counts = {"repaired": self.repaired, "dropped": self.dropped, "told": self.told}
        found: dict[str, Any] = {"rows": self.rows, "kept": self.kept}
        found |= {name: dict(counter.most_common()) for name, counter in counts.items()}
        found |= {"scores": self.scores.as_json()} if self.scores is not None else {}
        return found | ({"not_run": self.not_run} if self.not_run else {})
