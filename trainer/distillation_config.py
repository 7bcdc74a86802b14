"""Settings of self-distillation."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

TEACHERS = ("copy", "adapter-off")


@dataclass
class SelfDistillationConfig(TrainingArguments):
    """`transformers.TrainingArguments` and what self-distillation adds.

    `per_device_train_batch_size` counts rows of the parallel corpus: an English text, its picture if it has one, and
    its translations.

    Args:
        teacher: `"copy"` keeps a frozen copy of the student as it was at the start; `"adapter-off"` runs the student
            without its adapter (LoRA: one copy of the weights).
        freeze_vision: Whether vision tower and connector stay as they are. A picture's features are then computed once
            for the student's and the teacher's rows.
        translations_per_row: How many of a row's translations are drawn for one step; all by default.
        muon_learning_rate: With a value, hidden matrices are trained by Muon at this peak rate, the rest by AdamW at
            `learning_rate`.
        max_tokens_per_forward: Rows are sorted by length and cut into forward passes of at most so many padded tokens.
        language_weight: Of the paper's loss: 0.5 weighs keeping English and learning the language alike.
    """

    output_dir: str | None = field(default="runs/distillation", metadata={"help": "Model and checkpoints go here."})
    teacher: str = field(default="copy", metadata={"help": "Where the targets come from: copy or adapter-off."})
    freeze_vision: bool = field(default=True, metadata={"help": "Keep vision tower and connector as they are."})
    translations_per_row: int | None = field(
        default=None, metadata={"help": "Translations drawn from each row for one step; all by default."}
    )
    muon_learning_rate: float | None = field(
        default=None, metadata={"help": "Train hidden matrices by Muon at this peak rate; learning_rate is the rest's."}
    )
    max_tokens_per_forward: int = field(
        default=16_384, metadata={"help": "Padded tokens of one forward pass; a step may take several."}
    )
    language_weight: float = field(
        default=0.5, metadata={"help": "0 only keeps English, 1 only learns the language, 0.5 is the paper's."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.remove_unused_columns = False
        if self.teacher not in TEACHERS:
            raise ValueError(f"teacher={self.teacher!r} is unknown; choose one of {', '.join(TEACHERS)}.")
        if self.translations_per_row is not None and self.translations_per_row < 1:
            raise ValueError("translations_per_row must be at least 1.")
