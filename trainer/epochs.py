"""Tells what depends on the epoch which epoch it is."""

from __future__ import annotations

from typing import Any, Protocol

from transformers import TrainerCallback, TrainerState, TrainingArguments


class DependsOnEpoch(Protocol):
    """Something that draws anew in each epoch."""

    epoch: int


class TellEpoch(TrainerCallback):
    """Sets `epoch` of some objects at the beginning of each epoch, also after a resumption.

    Args:
        things: What is told, such as a `corpus.code_switching.CodeSwitcher`.
    """

    def __init__(self, *things: DependsOnEpoch) -> None:
        self.things = things

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Tells it before the first row of the epoch is read."""
        for thing in self.things:
            thing.epoch = int(state.epoch or 0)
