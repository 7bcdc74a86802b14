"""The part of a benchmark that was asked for."""

from __future__ import annotations

from collections.abc import Sequence


class Selection:
    """Names of data sets, tasks and languages: those that were asked for, and those that there are.

    Args:
        dataset: Data sets that are asked for (None: all).
        task: Tasks.
        language: Codes; one also stands for the same language with a region.
    """

    def __init__(
        self,
        dataset: Sequence[str] | None = None,
        task: Sequence[str] | None = None,
        language: Sequence[str] | None = None,
    ) -> None:
        self.wanted = {"dataset": dataset, "task": task, "language": language}
        self.present: dict[str, dict[str, None]] = {kind: {} for kind in self.wanted}

    def takes(self, **names: str) -> bool:
        """Whether something of this `dataset`, `task` and `language` is asked for."""
        for kind, name in names.items():
            self.present[kind].setdefault(name)
        wanted = ((self.wanted[kind], _names(kind, name)) for kind, name in names.items())
        return all(chosen is None or spellings.intersection(chosen) for chosen, spellings in wanted)

    def check(self, where: str) -> None:
        """Raise a `ValueError` for a name that does not exist."""
        for kind, names in self.wanted.items():
            spellings = {spelling for name in self.present[kind] for spelling in _names(kind, name)}
            unknown = [name for name in names or () if name not in spellings]
            if unknown:
                what, there = kind.replace("dataset", "data set"), ", ".join(self.present[kind])
                raise ValueError(f"{where} has no {what} {', '.join(unknown)}; it has {there}.")


def _names(kind: str, name: str) -> set[str]:
    return {name, name.split("-")[0]} if kind == "language" else {name}
