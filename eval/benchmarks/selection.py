"""The part of a benchmark that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from xvlm2vec.common.languages import comparable_code


class Selection:
    """Names of data sets, tasks and languages: those that were asked for, and those that there are.

    Args:
        dataset: Data sets that are asked for (None: all).
        task: Tasks.
        language: Codes in any spelling; one also stands for the same language with a region or a script.
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
        return all(self._is_wanted(kind, name) for kind, name in names.items())

    def asks_for(self, dataset: str) -> bool:
        """Whether a data set is asked for by its name; those that are a part of another one are read only then."""
        self.present["dataset"].setdefault(dataset)
        return self.wanted["dataset"] is not None and self._is_wanted("dataset", dataset)

    def check(self, where: str) -> None:
        """Raise a `ValueError` for a name that does not exist."""
        for kind, names in self.wanted.items():
            spellings = {spelling for name in self.present[kind] for spelling in _names(kind, name)}
            unknown = [name for name in names or () if _key(kind, name) not in spellings]
            if unknown:
                what, there = kind.replace("dataset", "data set"), ", ".join(self.present[kind])
                raise ValueError(f"{where} has no {what} {', '.join(unknown)}; it has {there}.")

    def _is_wanted(self, kind: str, name: str) -> bool:
        wanted = self.wanted[kind]
        return wanted is None or not _names(kind, name).isdisjoint(_key(kind, one) for one in wanted)


def _names(kind: str, name: str) -> set[str]:
    key = _key(kind, name)
    return {key, key.split("-")[0]} if kind == "language" else {key}


def _key(kind: str, name: str) -> str:
    return comparable_code(name) if kind == "language" else name
