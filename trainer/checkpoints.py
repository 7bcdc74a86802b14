"""Which checkpoint a killed run can go on from."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)

# transformers.Trainer writes this file last: where it is missing or cut off, so is the checkpoint.
LAST_FILE = "trainer_state.json"
PROCESSES_FILE = "processes.json"  # of how many processes the states of the random number generators must be there
WEIGHTS = ("*.safetensors", "pytorch_model*", "global_step*")
STATES = ("optimizer", "scheduler", "rng_state")
TORCH_SUFFIXES = (".pt", ".pth", ".bin")
EXTENDABLE = ("max_steps", "num_train_epochs")
"""Settings that may change in the folder of a run: `train_or_resume` goes on with more steps."""


def newest_complete_checkpoint(folder: str | Path) -> str | None:
    """Path of the newest `checkpoint-<step>` below a folder that was written to its end, or `None`.

    Torn checkpoints, left by a process that was killed or a disk that was full, are passed over with a warning.
    """
    checkpoints = [path for path in Path(folder).glob("checkpoint-*") if _step(path) is not None]
    for checkpoint in sorted(checkpoints, key=lambda path: _step(path) or 0, reverse=True):
        fault = find_fault(checkpoint)
        if fault is None:
            return str(checkpoint)
        logger.warning("Passing over %s, which was not written to its end: %s.", checkpoint.name, fault)
    return None


def train_or_resume(trainer: Trainer, folder: str | Path) -> None:
    """Trains from the start or from the newest complete checkpoint below a folder.

    A run that was interrupted behind its last step is not trained any further: its weights are loaded, or the best ones
    if those are what the run is to end with. Where the settings now ask for more steps than the run was begun with
    (`max_steps`, `num_train_epochs`, or a longer corpus), the rest is trained.

    Raises:
        ValueError: The checkpoint has taken more steps than the settings ask for.
    """
    checkpoint = newest_complete_checkpoint(folder)
    if checkpoint is not None:
        state = json.loads((Path(checkpoint) / LAST_FILE).read_text(encoding="utf-8"))
        if _is_through(state, planned_steps(trainer), folder):
            trainer._load_from_checkpoint(_best(trainer, state, Path(folder)) or checkpoint)
            return
    trainer.add_callback(StepsFromSettings())
    trainer.train(resume_from_checkpoint=checkpoint)


def planned_steps(trainer: Trainer) -> int:
    """How many steps the settings and the corpus of a trainer make."""
    if trainer.args.max_steps >= 0:
        return trainer.args.max_steps
    return int(trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1])


def _is_through(state: dict[str, Any], planned: int, folder: str | Path) -> bool:
    """Whether a training has no step left; tells where it was begun with another number of steps."""
    taken, before = state["global_step"], state["max_steps"]
    if taken > planned:
        raise ValueError(
            f"{folder} holds a training that has taken {taken} steps, and these settings ask for {planned}. Ask for "
            "at least as many, or for another output folder."
        )
    if planned != before:
        logger.warning(
            "The training in %s was begun with %d steps and now has %d: up to step %d the learning rate followed the "
            "schedule of %d steps, and from there it follows that of %d. To train with one schedule, use another "
            "output folder.", folder, before, planned, taken, before, planned,
        )  # fmt: skip
    return bool(taken == planned)


class StepsFromSettings(TrainerCallback):
    """Saves, evaluates and logs a resumed run as its settings say now; transformers goes on as the checkpoint says.

    Given as fractions of a run, these steps are others where the run has become longer.
    """

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Counts these steps anew."""
        state.compute_steps(args, state.max_steps)


def _best(trainer: Trainer, state: dict[str, Any], folder: Path) -> str | None:
    """The checkpoint with the best weights, if the run is to end with these; the folder may have been moved."""
    best = state.get("best_model_checkpoint") if trainer.args.load_best_model_at_end else None
    return str(folder / Path(best).name) if best and (folder / Path(best).name).is_dir() else None


def find_fault(checkpoint: Path) -> str | None:
    """What shows that a checkpoint was not written to its end, or `None` if nothing does.

    Weights are not read, only the parts of their files that tell how long these should be.
    """
    try:
        state = json.loads((checkpoint / LAST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{LAST_FILE} is missing or cut off"
    if not isinstance(state, dict) or state.get("global_step") != _step(checkpoint):
        return f"{LAST_FILE} belongs to another step"
    torn = [path.name for path in sorted(checkpoint.iterdir()) if not _is_whole(path)]
    if torn:
        return f"{torn[0]} is cut off"
    missing = _missing_file(checkpoint) or _missing_process(checkpoint)
    return missing and f"{missing} is missing"


def _missing_file(checkpoint: Path) -> str | None:
    """What a trainer writes and is not there: weights; optimizer, scheduler and random state, unless none was saved."""
    if not any(any(checkpoint.rglob(pattern)) for pattern in WEIGHTS):
        return "the file of the weights"
    there = {name: any(checkpoint.glob(f"{name}*")) for name in STATES}
    if any(checkpoint.glob("global_step*")):
        there["optimizer"] = True  # DeepSpeed keeps it there
    absent = [name for name, is_there in there.items() if not is_there]
    return f"{absent[0]} (its file)" if absent and len(absent) < len(STATES) else None


def _missing_process(checkpoint: Path) -> str | None:
    """The first random state of several processes that is not there; `None` if none is missing."""
    there = {int(path.stem[len("rng_state_") :]) for path in checkpoint.glob("rng_state_[0-9]*.pth")}
    try:
        count = int(json.loads((checkpoint / PROCESSES_FILE).read_text(encoding="utf-8"))["processes"])
    except (OSError, ValueError, KeyError, TypeError):
        count = max(2, max(there) + 1) if there else 0  # a single process writes a file of another name
    missing = [rank for rank in range(count) if rank not in there] if count > 1 else []
    return f"rng_state_{missing[0]}.pth of process {missing[0]}" if missing else None


def _step(checkpoint: Path) -> int | None:
    suffix = checkpoint.name.rpartition("-")[2]
    return int(suffix) if suffix.isdecimal() else None


def _is_whole(path: Path) -> bool:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return True
        except (OSError, SafetensorError):
            return False
    return path.suffix not in TORCH_SUFFIXES or zipfile.is_zipfile(path)
