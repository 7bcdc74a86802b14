"""Flags of the adapters that `contrast` and `distill` can train instead of all weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xvlm2vec.trainer.adapters import AdapterConfig, check_four_bit, four_bit_config, load_adapter
from xvlm2vec.trainer.settings import setting

from .models import load_embedder, model_kind

BASE = "base"
"""An embedder below an adapter that was taken over for the run: its weights stay where they are."""


@dataclass
class AdapterFlags:
    """Flags of an adapter, and the number format of the weights."""

    lora: bool = setting(
        False,
        "train an adapter of the language model, not all weights; in distill with --freeze-vision false also one of "
        "the vision tower and its connector",
    )
    adapter: str | None = setting(
        None,
        "the kind of adapter: lora acts on all tokens (as --lora) and is merged at the end; activated (distill) acts "
        "on the tokens of translations only, so that images, English texts and every stored vector stay as they are, "
        "bit for bit, and is kept beside its base. All --lora-* flags are for both",
        choices=["lora", "activated"],
    )
    adapter_per_language: bool = setting(
        False,
        "with --adapter activated an adapter for each language of the corpus, which can be taken away by itself; into "
        "the --output of such a run with other languages, these are added, and what is there stays as it is",
    )
    lora_rank: int = setting(16, "rank of the adapter's matrices")
    lora_alpha: int | None = setting(None, "scale times rank; twice the rank if not given")
    lora_dora: bool = setting(False, "weight-decomposed adapter (DoRA)")
    lora_rslora: bool = setting(False, "scaled by the square root of the rank (rank-stabilised)")
    lora_train_embeddings: bool = setting(False, "also train the token embeddings, for scripts new to the model")
    lora_train_connector: bool = setting(
        False,
        "also train the whole connector between vision tower and language model, for one that nobody has trained "
        "(contrast)",
    )
    lora_4bit: bool = setting(False, "put it on a base in 4 bits (QLoRA): needs a CUDA GPU and bitsandbytes")
    dtype: str = setting(
        "auto",
        "number format of the weights: float32, bfloat16, or auto, which is float32 where all weights are trained and "
        "the stored one below an adapter",
        choices=["auto", "float32", "bfloat16"],
    )

    def __post_init__(self) -> None:
        self.both = self.lora and self.activated
        self.lora = self.lora or self.adapter is not None

    @property
    def activated(self) -> bool:
        """Whether the adapter acts on translations only."""
        return self.adapter == "activated"

    def check(self, given: Collection[str]) -> None:
        """Raises where flags do not go together, or the machine has no base in 4 bits."""
        if self.adapter_per_language and not self.activated:
            raise ValueError("--adapter-per-language has no effect without --adapter activated; pass both, or neither.")
        if self.both:
            raise ValueError("--lora is --adapter lora; leave it out, or --adapter activated.")
        strays = [name for name in given if name.startswith("lora_") and not self.lora]
        if strays:
            raise ValueError(
                f"--{strays[0].replace('_', '-')} has no effect without --lora or --adapter; pass both, or neither."
            )

    def check_machine(self) -> None:
        """Raises where a base in 4 bits is asked for and cannot be had."""
        if self.lora_4bit:
            check_four_bit()

    def config(self, train_vision: bool = False) -> AdapterConfig | None:
        """The adapter to train, if it is one."""
        if not self.lora:
            return None
        return AdapterConfig(
            self.lora_rank,
            self.lora_alpha,
            self.lora_dora,
            train_embeddings=self.lora_train_embeddings,
            train_vision=train_vision,
            train_connector=self.lora_train_connector,
            rslora=self.lora_rslora,
            activated=self.activated,
        )

    def weights_dtype(self) -> torch.dtype | None:
        """Number format of the weights, or `None` for that of the checkpoint.

        All weights are trained in float32 unless another format is asked for: at the rates of fine-tuning most updates
        are smaller than what bfloat16 can add to a weight.
        """
        if self.dtype == "auto":
            return None if self.lora else torch.float32
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def loading(self) -> dict[str, Any]:
        """How `from_pretrained` loads the weights."""
        options: dict[str, Any] = {"dtype": self.weights_dtype() or "auto"}
        return {**options, "quantization_config": four_bit_config()} if self.lora_4bit else options


def stand_on_folder(model: Any, processor: Any, output: Path, writes: bool) -> None:
    """Gives an embedder that was just taken over a folder, which the adapter on it can name as its base.

    Args:
        model: The base, an `XVLM2VecModel`. One that was loaded as such keeps its own place.
        processor: Its processor.
        output: The run's folder.
        writes: Whether this process writes for all.
    """
    from xvlm2vec.common.adoption.adopt import save_reference

    if not model.config.adopted or model_kind(str(model.config.name_or_path)) == "xvlm2vec":
        return
    folder = output / BASE
    if writes:
        save_reference(model, folder)
        processor.save_pretrained(folder)
    # PEFT reads the one, this package the other.
    model.config.name_or_path = model.name_or_path = str(folder.resolve())


def merge_adapter(base: str, output: Path, matryoshka_dims: Sequence[int] | None = None) -> None:
    """Writes a base with the adapter in `output/adapter` merged into `output/merged`, an ordinary model.

    Args:
        base: Folder or Hub id.
        output: The run's folder.
        matryoshka_dims: Sizes that the adapter was trained for; an adapter has no place of its own to tell them.
    """
    folder = output / BASE
    model, processor = load_embedder(str(folder) if folder.is_dir() else base)
    if matryoshka_dims:
        model.config.matryoshka_dims = sorted(matryoshka_dims, reverse=True)
    load_adapter(model, output / "adapter").merge_and_unload().save_pretrained(output / "merged")
    processor.save_pretrained(output / "merged")
