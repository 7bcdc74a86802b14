"""How much of each language a training has seen, over interruptions and over all processes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from xvlm2vec.common.files import write_json

from .collators import ParallelBatch

FILE = "languages_seen.json"
"""In a checkpoint: what was seen until then."""


class LanguagesSeen(TrainerCallback):
    """Counts translations and their tokens by language, from the first step of a run on.

    As a callback it writes its counts into each checkpoint and goes on from those of the one that is resumed. Where
    that has none (an older version wrote it, or the process was killed right behind it), nothing is known any more.
    """

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._is_known = False

    def add(self, batch: ParallelBatch) -> None:
        """Counts a batch that went through the student."""
        self._rows.update(batch.languages)
        for language, tokens in zip(batch.languages, tokens_of_pairs(batch), strict=False):
            self._tokens[language] += tokens

    def read(self) -> dict[str, dict[str, int]] | None:
        """`rows` and `tokens` of each language; all processes must call it.

        A token of a text counts where it is read: of an image that texts share, for none of them. Models that run by
        their own code tell no tokens. `None` where the beginning of the run is not known.
        """
        rows: Counter[str] = Counter()
        tokens: Counter[str] = Counter()
        for part, read in gather_object([(self._rows, self._tokens)]):
            rows.update(part)
            tokens.update(read)
        if not self._is_known:
            return None
        return {
            language: {"rows": rows[language], **({"tokens": tokens[language]} if tokens else {})}
            for language in sorted(rows)
        }

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Begins from nothing, or from a checkpoint; of several processes the first one takes its counts over."""
        self.__init__()  # type: ignore[misc]
        path = _file(args, state)
        self._is_known = state.global_step == 0 or path.is_file()
        if state.global_step and self._is_known and args.process_index == 0:
            counts = json.loads(path.read_text(encoding="utf-8"))
            self._rows.update({language: count["rows"] for language, count in counts.items()})
            self._tokens.update({language: count["tokens"] for language, count in counts.items() if "tokens" in count})

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Writes the counts into the checkpoint."""
        counts = self.read()
        if counts is not None and state.is_world_process_zero:
            write_json(_file(args, state), counts)


def tokens_of_pairs(batch: ParallelBatch) -> list[int]:
    """The tokens of each translation; nothing where the model's own code counts them together."""
    if batch.groups is not None:
        return [len(text) for group in batch.groups for text in group.texts[1:]]
    mask = (batch.translated or {}).get("attention_mask")
    return [] if mask is None else [int(count) for count in mask.sum(dim=1)]


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / FILE
