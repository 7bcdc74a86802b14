"""Training on a CPU with as many threads as are fastest while other processes come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xvlm2vec.modeling.threads import ThreadChoice


class ChooseThreads(TrainerCallback):
    """Measures between steps, every few seconds, how many threads are fastest. It changes the rounding at most."""

    def __init__(self) -> None:
        self._choice: ThreadChoice | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts with the threads that torch has, those of an earlier try with a larger batch included."""
        if self._choice is not None:
            self._choice.stop()
        self._choice = ThreadChoice(args.device)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures if it is time to."""
        if self._choice is not None:
            self._choice.check()


@contextmanager
def restored_threads() -> Iterator[None]:
    """Gives torch back the threads that it had, also where a training ends by an error or by the user."""
    count = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
