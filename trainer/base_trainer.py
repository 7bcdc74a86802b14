"""A `transformers.Trainer` of embedders, for every way to run it: on streams, on several processes, with pushes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import IterableDataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import TrainOutput
from transformers.utils import PushInProgress

from xvlm2vec.common.files import write_json
from xvlm2vec.modeling.hub_ids import is_path
from xvlm2vec.modeling.language_adapters import restore_language_adapters
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

from .checkpoints import PROCESSES_FILE, newest_complete_checkpoint
from .hub_pushes import (
    adapter_base,
    report_failures,
    upload,
    upload_checkpoint,
    uploads_what_is_deleted,
    write_card,
)
from .sharding import choose_layers, let_cpus_shard, use_vision_in_every_pass, with_its_class
from .streaming import fill_up, stream_loader
from .threads import restored_threads
from .vision_parameters import vision_parameters

logger = logging.getLogger(__name__)


class EmbedderTrainer(Trainer):
    """A trainer of batches of parallel rows. A subclass sets the attributes before it calls `super().__init__`.

    **Streams.** A `datasets.IterableDataset` is taken on any number of processes. Each reads its own part of the rows:
    whole shards, if their number is a multiple of that of the processes, else every n-th row. In each pass over the
    stream all rows are used once and none twice. Processes whose part ends earlier go on with a batch of weight 0
    until the last one is through, so that collective operations meet. An interrupted run goes on exactly where it was
    within its first pass over the stream; after that, the order of the rows differs from an uninterrupted run's,
    because `transformers.Trainer` does not know how long a pass is.

    **Several processes.** Each layer of the language model is a unit that FSDP2 shards, whatever the family. A frozen
    vision tower is kept whole in every process: it has neither gradients nor optimizer states to divide, and is called
    outside the model's forward pass, by some processes more often than by others. A trained one is gathered with the
    rest of the model, and every pass uses it: one process may have images while another has none, and collective
    operations must meet nevertheless.

    **Pushes.** What is pushed, also during the training, loads without this package. A model is pushed whole, with its
    code, its processor and the files of sentence-transformers. A model with an adapter is pushed as the adapter alone,
    which `PeftModel` puts on the base that it names. Pickles are never pushed.

    Attributes:
        trained: The model, with its adapter if it has one.
        embedder: The `XVLM2VecModel` in it.
        distillation_loss: The loss, which the card names.
    """

    trained: nn.Module
    embedder: XVLM2VecModel
    distillation_loss: nn.Module
    push_in_progress: Any
    _idle: dict[str, Any] | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in transformers; `resume_from_checkpoint=True` means the newest checkpoint that was written to its end.

        Raises:
            ValueError: There is none.
        """
        if resume_from_checkpoint is True:
            folder = str(self.args.output_dir)
            resume_from_checkpoint = newest_complete_checkpoint(folder)
            if resume_from_checkpoint is None:
                raise ValueError(f"There is no complete checkpoint in {folder} to resume from.")
        trains_vision = any(weight.requires_grad for weight in vision_parameters(self.embedder))
        hook: AbstractContextManager[Any] = use_vision_in_every_pass(self.embedder) if trains_vision else nullcontext()
        with hook, restored_threads():
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """The batches of this process; see the class for streams."""
        rows, args = self.train_dataset, self.args
        if not isinstance(rows, IterableDataset):
            return super().get_train_dataloader()
        whole_step = self.get_total_train_batch_size(args)  # which `auto_find_batch_size` may have made smaller
        size = whole_step // (args.gradient_accumulation_steps * args.world_size)
        return stream_loader(rows, size, self.data_collator, args)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of a step; of a stream, as many as the process with the most has.

        Raises:
            StreamError: A process has no row at all.
        """
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.args.world_size == 1 or not isinstance(self.train_dataset, IterableDataset):
            return samples, items
        if samples and self._idle is None:
            self._idle = {"batches": [replace(samples[0]["batches"][0], weight=0.0)]}
        return fill_up(samples, self._idle), items

    def create_accelerator_and_postprocess(self) -> None:
        """Makes the accelerator and tells its FSDP2 what to shard."""
        let_cpus_shard()
        super().create_accelerator_and_postprocess()
        if self.accelerator.is_fsdp2:
            choose_layers(self.accelerator, self.trained, self.embedder)
            self.accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True  # see `gradients_wait`

    def gradients_wait(self, model: nn.Module) -> AbstractContextManager[None]:
        """A context for backward passes before a step's last one, whose gradients are sent with the last.

        FSDP2 sends them each time: those kept back would be whole on every device, which it is there to avoid.
        """
        return nullcontext() if self.accelerator.is_fsdp2 else self.accelerator.no_sync(model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in transformers: weights, code and processor in a folder, also of a model that is sharded."""
        model: Any = self.model
        self.model = with_its_class(model)
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            self.model = model

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As in transformers; of adapters that lie beside their base only these were saved."""
        if self.embedder.language_adapters and not self.is_fsdp_enabled:
            restore_language_adapters(self.embedder, resume_from_checkpoint)
            return
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """As in transformers."""
        if self.embedder.language_adapters and not self.is_fsdp_enabled:
            restore_language_adapters(self.embedder, str(self.state.best_model_checkpoint))
            return
        super()._load_best_model()

    def _save_rng_state(self, output_dir: str) -> None:
        """As in transformers, and waits for all processes, so that a checkpoint that looks complete is."""
        super()._save_rng_state(output_dir)
        if self.is_world_process_zero():
            write_json(Path(output_dir) / PROCESSES_FILE, {"processes": self.args.world_size})
        self.accelerator.wait_for_everyone()

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository, unless nobody could load what would be pushed there.

        Raises:
            ValueError: The model below the adapter is a folder here, whose path would be published; or the embedder
                runs by its own code, and would have to be given back in its own form first.
        """
        if self.embedder.is_black_box:
            raise ValueError(
                "an embedder that runs by its own code is pushed in its own form only: train without push_to_hub, then "
                "use `xvlm2vec release`."
            )
        base = adapter_base(self.trained)
        if base and is_path(base):
            raise ValueError(
                f"the base of the adapter is the folder {base}, which nobody else has: push the base first and load it "
                "by its id, or train without push_to_hub and use `xvlm2vec release`, which pushes both."
            )
        logger.info(
            "Pickles are not pushed: what resuming needs (optimizer, random states, training_args.bin) stays in the "
            "output folder of this machine."
        )
        super().init_hf_repo(token=token, private=private)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> Any:
        """Pushes the model as it is now, without pickles; see `transformers.Trainer.push_to_hub`.

        Raises:
            ValueError: The model below the adapter is a folder here.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card)
        self._finish_current_push()
        places = {"token": token or self.args.hub_token, "revision": revision or self.args.hub_revision}
        folder, message = str(self.args.output_dir), commit_message or "End of training"
        return upload(folder, str(self.hub_model_id), self.args, message, run_as_future=not blocking, **places)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Pushes a checkpoint, in place of what transformers does, whose pushes hold pickles and lack the code."""
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == "end":
            return
        if self._is_pushing() and not (args.hub_always_push or uploads_what_is_deleted(args)):
            return
        self._finish_current_push()  # it reads the folder that this checkpoint is copied into
        self.callback_handler.on_push_begin(args, self.state, self.control)
        by_steps = args.save_strategy == "steps"
        place = f"step {self.state.global_step}" if by_steps else f"epoch {int(self.state.epoch or 0)}"
        message = f"Training in progress, {place}"
        jobs = upload_checkpoint(Path(checkpoint_folder), str(self.hub_model_id), args, message)
        self.push_in_progress = PushInProgress(jobs)  # type: ignore[arg-type]  # it takes a list, too

    def _is_pushing(self) -> bool:
        """Whether an upload goes on in the background."""
        push = getattr(self, "push_in_progress", None)
        return push is not None and not push.is_done()

    def _finish_current_push(self) -> None:
        """Waits for the uploads in the background, and says which of them failed."""
        super()._finish_current_push()
        if getattr(self, "push_in_progress", None) is not None:
            report_failures(self.push_in_progress.jobs, str(self.hub_model_id))
            self.push_in_progress = None

    def create_model_card(  # type: ignore[override]
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        **other: Any,
    ) -> None:
        """Writes a card that says what there is and how to load it; what is not known is left out.

        Args:
            language: Codes of the languages that it is meant for.
            license: License of the weights, as the Hub spells it.
            tags: Further tags.
            model_name: Its name; by default that of the repository.
            **other: What else `transformers.Trainer` takes; `dataset` and `finetuned_from` are used.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(str(self.args.output_dir))
        place = getattr(self, "hub_model_id", None) or model_name or folder.name
        write_card(
            folder,
            model_name or place.rpartition("/")[2],
            place,
            adapter_base(self.trained),
            type(self.distillation_loss).__name__,
            language=language,
            license=license,
            tags=[*([tags] if isinstance(tags, str) else tags or ()), *(getattr(self.model, "model_tags", None) or ())],
            base_model=other.get("finetuned_from"),
            datasets=other.get("dataset"),
        )
