"""Training on a CPU with as many threads as are fastest while other processes come and go."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xvlm2vec.modeling.threads import ThreadChoice


class ChooseThreads(TrainerCallback):
    """Measures between steps, every few seconds, how many threads are fastest. It changes the rounding at most."""

    def __init__(self) -> None:
        self._choice: ThreadChoice | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts with the threads that torch has."""
        self._choice = ThreadChoice(args.device)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures if it is time to."""
        if self._choice is not None:
            self._choice.check()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gives torch its threads back."""
        if self._choice is not None:
            self._choice.stop()
