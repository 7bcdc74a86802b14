"""What a rule is: a name, a function that finds faults in a batch, and what is done about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from .batch import Batch, Column


class Action(StrEnum):
    """What is done with a row in which a rule finds a fault."""

    DROP = "drop"
    REPAIR = "repair"
    TELL = "tell"


@dataclass(frozen=True)
class Finding:
    """A fault in a row.

    Attributes:
        row: Number of the row in its batch.
        reason: What is wrong, for a person.
        text: The repaired translation, or None if it needs no repair or cannot be repaired.
        english: The repaired English text, likewise.
        code: The repaired code of the language, likewise.
    """

    row: int
    reason: str
    text: str | None = None
    english: str | None = None
    code: str | None = None

    @property
    def is_repair(self) -> bool:
        """Whether it says how the row is mended."""
        return (self.text, self.english, self.code) != (None, None, None)


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: Its name, which flags and counts use.
        what: What it finds, as a list of rules says it.
        find: Finds faults in a batch.
        action: What is done about them unless a flag says otherwise.
        repairs: Whether it can repair; what it cannot repair is then dropped.
    """

    name: str
    what: str
    find: Callable[[Batch], Iterable[Finding]]
    action: Action = Action.DROP
    repairs: bool = False


def shown(text: str, most: int = 60) -> str:
    """A text as reasons show it."""
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")


def repaired_sides(
    batch: Batch, screen: Callable[[Column], Iterable[int]], repair: Callable[[str], str | None], reason: str
) -> Iterator[Finding]:
    """Faults that a single text shows, in both columns of a batch.

    Args:
        batch: The rows.
        screen: Gives the texts of a column that may have the fault.
        repair: Gives the mended text, the same one if there is no fault, or None if it cannot be mended.
        reason: What is wrong; the text follows.
    """
    for side, column in batch.sides():
        for row in screen(column):
            text = column.texts[row]
            mended = repair(text)
            if mended != text:
                yield Finding(row, f"{reason}: {shown(text)}", **({} if mended is None else {side: mended}))
