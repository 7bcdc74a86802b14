"""What an `XVLM2VecModel` does with rows of text and images: its processor, loaded when needed, and `encode`."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from .activated import remove_adapter
from .adapters import find_adapters
from .configuration_xvlm2vec import XVLM2VecConfig
from .encoding import encode_rows
from .language_adapters import (
    LanguageAdapter,
    adapter_for,
    adapters_for,
    languages_of,
    load_language_adapter,
    own_instruction,
)
from .loading import CheckpointError
from .lora_settings import OWN_SETTINGS
from .pooling import chosen_dim, truncate_embeddings, warn_of_untrained_dim
from .processing_xvlm2vec import XVLM2VecProcessor
from .processor_checks import check_processor
from .rows import make_rows
from .text_pixels import TextPixels

_LOADING = threading.RLock()
"""Held while a model's processor is loaded: the first calls of `encode` may come from several threads at once."""


class RowEncoder:
    """The part of an `XVLM2VecModel` that embeds rows as people have them."""

    config: XVLM2VecConfig
    language_adapters: dict[str, LanguageAdapter]
    _processor: XVLM2VecProcessor | None
    _processor_source: str | os.PathLike[str] | None
    _processor_options: dict[str, Any]
    _warned_dims: set[int | None]

    @property
    def processor(self) -> XVLM2VecProcessor:
        """The processor saved beside the weights, in their revision, loaded on first use from `config.name_or_path`."""
        with _LOADING:
            if self._processor is None:
                self._processor = self.load_processor()
            return self._processor

    @processor.setter
    def processor(self, processor: XVLM2VecProcessor) -> None:
        self._processor = processor

    def load_processor(self) -> XVLM2VecProcessor:
        """The processor of `config.name_or_path`, loaded anew.

        Raises:
            CheckpointError: It cannot be loaded.
        """
        source = self._processor_source or self.config.name_or_path
        if not source:
            raise ValueError("This model was not loaded from anywhere, so pass the processor it belongs to.")
        options = dict(self._processor_options)
        if self.config.layout is not None:
            options["layout"] = self.config.layout
        if self.config.recipe is not None:
            options["recipe"] = self.config.recipe
        # A model that runs as remote code was loaded by somebody who trusts this repository's code.
        trusted = type(self).__module__.startswith("transformers_modules")
        try:
            return XVLM2VecProcessor.from_pretrained(source, trust_remote_code=trusted, **options)
        except AttributeError as error:  # torch would say that the model has no attribute `processor`
            raise CheckpointError(f"The processor of {os.fspath(source)!r} fails: {error}") from error

    @property
    def languages(self) -> list[str]:
        """The languages that the model has adapters for; the base speaks without one."""
        return languages_of(self)

    def add_languages(self, source: str | os.PathLike[str], **options: Any) -> list[str]:
        """Puts an activated adapter beside this model, its base, and beside those that are there.

        Args:
            source: Folder or Hub id of the adapter.
            **options: As of `from_pretrained`; `revision` and `subfolder` say where it lies.

        Returns:
            The languages that the model speaks now.

        Raises:
            CheckpointError: It was trained on another base, is to be merged, or speaks a language that another speaks.
        """
        adapters = find_adapters(source, self.config.name_or_path or ".", options)
        if not adapters:
            raise CheckpointError(f"{os.fspath(source)!r} holds no adapter.")
        for name, adapter in adapters.items():
            taught = "+".join((adapter.config.get(OWN_SETTINGS) or {}).get("languages", [name]))
            load_language_adapter(self, adapter, name if name not in self.language_adapters else taught)
        return self.languages

    def remove_languages(self, *languages: str) -> list[str]:
        """Takes the adapters away that speak these languages; what else they speak goes with them.

        Returns:
            The languages that the model speaks now.
        """
        for language in languages:
            name = adapter_for(self, language)
            if name is not None:
                remove_adapter(cast(nn.Module, self), name)
                del self.language_adapters[name]
        return self.languages

    def encode(
        self,
        text: str | Sequence[str | None] | None = None,
        images: Any = None,
        instruction: str | None = None,
        processor: XVLM2VecProcessor | None = None,
        max_tokens_per_batch: int = 16_384,
        max_length: int | None = None,
        dim: int | None = None,
        truncate_dim: int | None = None,
        bad_rows: str = "raise",
        show_progress: bool | None = None,
        convert_to_tensor: bool = False,
        language: str | Sequence[str | None] | None = None,
        instruction_in_language: bool | None = None,
        text_as_pixels: TextPixels | None = None,
    ) -> np.ndarray | torch.Tensor:
        """Embeds rows of text, images, or both: sorted, packed without padding, an image of several texts once.

        Threads may call it at once; the model's mode and attention are what they were when the last of them is done.
        Backbones whose attention is not causal, or not known to be, get padded batches instead.

        Args:
            text: One string, or one string (or `None`) per row.
            images: One image, or per row an image, a list of images, or `None`; see `load_image` for what
                counts as an image.
            instruction: Put before the text of every row, or where the model's recipe says; a name from
                `config.prompts` stands for its text. `None` is the recipe's default one, an empty string none.
            processor: The processor; by default the one saved beside the weights.
            max_tokens_per_batch: Tokens of one forward pass, padding included; halved where memory runs out.
            max_length: Longer rows lose the end of their text, with one warning; by default the processor's.
            dim: Truncate the vectors to this size (and normalise again if `config.normalize`); sizes that are not among
                `config.matryoshka_dims` give a warning, once each.
            truncate_dim: Another name of `dim`, as sentence-transformers has it.
            bad_rows: What to do with rows that cannot be embedded, such as broken images: `"raise"` one error that
                names them all, or go on and give them vectors of `"nan"`, with a warning in the log.
            show_progress: A progress bar; by default only for more than one batch on a terminal.
            convert_to_tensor: Return a float32 `torch.Tensor` on the CPU instead of a NumPy array.
            language: Of the texts, one or one per row, for a model with adapters: the adapter that was taught this
                language acts on the text, and on nothing before it. Without one, and for rows without text, the base
                speaks, as if there were no adapter.
            instruction_in_language: Whether the instruction is in that language, too, so that the adapter acts on it;
                by default so for a name from `config.prompts` that ends in the language's code (`retrieval-de`).
            text_as_pixels: Draws each text, which is then read as an image behind the row's other images; the
                instruction stays text. For models that were trained so.

        Returns:
            `(N, D)` float32, or `(D,)` when one string or one image was passed.

        Raises:
            BadRowsError: Rows cannot be embedded; a `ValueError` whose `problems` has them by number.
            UnknownLanguageError: There is no adapter for a language; a `ValueError` that lists those that there are.
            ValueError: Rows of different number, a processor that writes prompts in another way than the model was
                trained with, vectors of fewer than `dim` values, or a language of texts that are drawn.
        """
        if text_as_pixels is not None and language is not None:
            raise ValueError("An adapter acts on the tokens of texts, and drawn texts have none: leave language out.")
        dim = chosen_dim(dim, truncate_dim, self.config)
        if dim not in self._warned_dims:
            self._warned_dims.add(dim)
            warn_of_untrained_dim(dim, self.config)
        processor = processor or self.processor
        check_processor(processor, self.config)
        problems: dict[int, str] = {}
        rows, single = make_rows(text, images, self.config.prompts.get(instruction or "", instruction), problems)
        if text_as_pixels is not None:
            rows = text_as_pixels.draw_rows(rows, problems)
        adapters = adapters_for(self, language, len(rows))
        rows = own_instruction(rows, language, instruction, instruction_in_language, self.config.prompts)
        vectors = encode_rows(
            self,
            processor,
            rows,
            max_tokens_per_batch=max_tokens_per_batch,
            max_length=max_length,
            problems=problems,
            bad_rows=bad_rows,
            show_progress=show_progress,
            adapters=adapters,
        )
        if dim is not None:
            vectors = truncate_embeddings(vectors, dim, self.config.normalize)
        result = vectors[0] if single else vectors
        return result if convert_to_tensor else result.numpy()
