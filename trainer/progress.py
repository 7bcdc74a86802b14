"""One quiet progress bar for a training stage: steps, time left, loss."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState, TrainingArguments


class StageBar(TrainerCallback):
    """Shows the steps of a stage with the time that is left and the last loss; a resumed stage starts where it was.

    Args:
        title: Shown before the bar.
        shows: Whether there is a bar.
    """

    def __init__(self, title: str, shows: bool = True) -> None:
        self.title = title
        self.shows = shows
        self._bar: tqdm | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Opens the bar."""
        if self.shows and state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", dynamic_ncols=True
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Moves the bar on."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Shows the loss and, where there are some, the English drift, the worst language's distance and the pace."""
        if self._bar is None or not logs or "loss" not in logs:
            return
        shown: dict[str, str] = {name: f"{float(logs[name]):.4f}" for name in ("loss", "english_drift") if name in logs}
        distances = {name: float(value) for name, value in logs.items() if name.startswith("distance/")}
        if distances:
            worst = max(distances, key=distances.__getitem__)
            shown[worst] = f"{distances[worst]:.4f}"
        if "rows_per_second" in logs:
            shown["rows/s"] = f"{logs['rows_per_second']:.1f}"
        if "tokens_per_second" in logs:
            shown["tokens/s"] = f"{logs['tokens_per_second']:.0f}"
        self._bar.set_postfix(shown)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
