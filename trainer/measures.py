"""What is seen of a training while it runs: distances to the teacher, terms of the loss, rows and tokens a second."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.nn.functional import cosine_similarity
from transformers import TrainerCallback

from .collators import ParallelBatch
from .forward_passes import RowVectors
from .losses import LossSum


class RunningMeans:
    """Means of named values since they were last read, over all processes."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, total: torch.Tensor, count: float) -> None:
        """Adds values by their sum, a scalar that stays where it is, and their number."""
        total = total.detach().double()
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] += count

    def read(self) -> dict[str, float]:
        """The means, sorted by name; all processes must call it. Starts anew."""
        local = {name: (float(total), self._counts[name]) for name, total in self._sums.items()}
        self.__init__()  # type: ignore[misc]
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, float] = defaultdict(float)
        for values in gather_object([local]):
            for name, (total, count) in values.items():
                totals[name] += total
                counts[name] += count
        return {name: totals[name] / counts[name] for name in sorted(totals) if counts[name]}


class Pace(TrainerCallback):
    """Rows and tokens a second since they were last read, of all processes together.

    As a callback it counts from the first step: neither the teacher's store nor the check of sharing are training.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forgets what was counted."""
        self._rows = self._tokens = 0
        self._since = time.perf_counter()

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        """Starts anew."""
        self.restart()

    def add(self, batch: ParallelBatch) -> None:
        """Counts a batch that went through the student."""
        self._rows += len(batch.ids)
        self._tokens += batch.tokens

    def leave_out(self, seconds: float) -> None:
        """Seconds that went to something else, such as an evaluation, do not count."""
        self._since += seconds

    def read(self) -> dict[str, float]:
        """The paces; all processes must call it. Starts anew."""
        counts = gather_object([(self._rows, self._tokens)])
        seconds = max(time.perf_counter() - self._since, 1e-9)
        self.restart()
        rows, tokens = (sum(values) for values in zip(*counts, strict=True))
        return {"rows_per_second": round(rows / seconds, 2), "tokens_per_second": round(tokens / seconds, 1)}


@torch.no_grad()
def add_distances(means: RunningMeans, batch: ParallelBatch, student: RowVectors, teacher: RowVectors) -> None:
    """Adds how far the student is from the teacher, as one minus the cosine.

    Args:
        means: Get `english_drift`, over rows, and `distance/<language>`, over pairs.
        batch: The batch.
        student: Its vectors.
        teacher: The targets.
    """
    drift = 1 - cosine_similarity(student.english.float(), teacher.english.float())
    if student.english is teacher.english:  # one and the same, whatever rounding makes of their cosine
        drift = torch.zeros_like(drift)
    means.add("english_drift", drift.sum(), len(batch.ids))
    if student.translated is None:
        return
    distance = 1 - cosine_similarity(student.translated.float(), teacher.english[batch.row_of_pair].float())
    for language in sorted(set(batch.languages)):
        pairs = [pair for pair, code in enumerate(batch.languages) if code == language]
        means.add(f"distance/{language}", distance[pairs].sum(), len(pairs))


def add_terms(means: RunningMeans, loss: nn.Module, pairs: int) -> None:
    """Adds the terms of every `LossSum` in a loss by their names, `loss/<term>`, as they were in the last call."""
    for path, part in _sums(loss):
        for name, term in part.last_terms.items():
            means.add(f"loss/{path}{name}", term * pairs, pairs)


def _sums(loss: nn.Module) -> Iterator[tuple[str, LossSum]]:
    for name, part in loss.named_modules():
        if isinstance(part, LossSum):
            inner = [word for word in name.split(".") if word not in ("", "losses", "loss")]
            yield "".join(f"{word}/" for word in inner), part


def worst_distance(measured: dict[str, float]) -> dict[str, float]:
    """The largest of the distances as `worst_distance`; nothing where there is no language."""
    distances = [value for name, value in measured.items() if name.startswith("distance/")]
    return {"worst_distance": max(distances)} if distances else {}
