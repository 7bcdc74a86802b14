"""The embedding model: any vision-language backbone of transformers, pooled into one vector a row."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from .adapters import base_is_embedder, base_options, find_adapter, refuse_adapter
from .adopted import load_referenced, references
from .backbone_forward import backbone_states
from .backbones import load_backbone, new_backbone
from .configuration_xvlm2vec import XVLM2VecConfig
from .encoding import encode_rows
from .families import backbone_type, family_of
from .heads import make_heads
from .hub_files import pinned
from .loading import CheckpointError, check_loading, readable_files
from .lora_weights import Adapter
from .output import XVLM2VecOutput
from .packing import ImageStates, Pack, TokenGroup, pack_groups, rope_limit_of, run_pack
from .pooling import chosen_dim, image_span, pool, truncate_embeddings, warn_of_untrained_dim
from .processing_xvlm2vec import XVLM2VecProcessor
from .processor_checks import check_processor, prove_backbone
from .published_checkpoints import find_published
from .rows import make_rows
from .sentence_transformers_files import write_sentence_transformers_files
from .towers import tower_vectors

_LOADING = threading.RLock()
"""Held while a model's processor is loaded: the first calls of `encode` may come from several threads at once."""


class XVLM2VecModel(PreTrainedModel):
    """Embeds rows of text, images, or both. Only the backbone's base model runs, never its language-model head.

    Args:
        config: The configuration.
        backbone: A loaded base model to wrap; built from `config.vlm_config` if `None`.
    """

    config_class = XVLM2VecConfig
    config: XVLM2VecConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012 - as the base class declares it
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: XVLM2VecConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if backbone is None:
            if config.vlm_config is None:
                raise ValueError(
                    "XVLM2VecConfig needs a `vlm_config`. For a published VLM2Vec or xVLM2Vec checkpoint use "
                    "XVLM2VecModel.from_vlm2vec, to wrap another model use XVLM2VecModel.from_backbone."
                )
            backbone = new_backbone(config.vlm_config)
        self.backbone = backbone
        self.heads = make_heads(config.heads)
        config.vlm_config = backbone.config  # one and the same, so that a change of settings acts
        self._processor: XVLM2VecProcessor | None = None
        self._processor_source: str | os.PathLike[str] | None = None
        self._processor_options: dict[str, Any] = {}
        self._warned_dims: set[int | None] = set()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Only heads are the wrapper's own, and torch initialises these; the backbone's classes do their own."""

    @classmethod
    def from_backbone(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> XVLM2VecModel:
        """Wraps a vision-language checkpoint of transformers, with every weight accounted for.

        Args:
            pretrained_model_name_or_path: Folder or Hub id of the backbone, with or without its language-model head.
            **kwargs: `pooling`, `normalize`, `prompts` and `matryoshka_dims` go to the configuration, the rest to
                `AutoModel.from_pretrained`.

        Raises:
            CheckpointError: A weight is missing or unexpected, the checkpoint is no bare backbone but, for example, an
                adapter, no embedder can be made of it, or its processor is not its own.
        """
        model = cls._wrap(pretrained_model_name_or_path, kwargs)
        prove_backbone(model)
        return model

    @classmethod
    def _wrap(cls, pretrained_model_name_or_path: str | os.PathLike[str], kwargs: dict[str, Any]) -> XVLM2VecModel:
        """What `from_backbone` gives, before its processor is looked at."""
        refuse_adapter(pretrained_model_name_or_path, kwargs)
        names = {"pooling", "normalize", "prompts", "matryoshka_dims"} & kwargs.keys()
        settings = {name: kwargs.pop(name) for name in names}
        backbone = load_backbone(pretrained_model_name_or_path, kwargs)
        if isinstance(backbone.config, XVLM2VecConfig):
            raise CheckpointError(
                f"{os.fspath(pretrained_model_name_or_path)!r} is an embedding model already: use from_pretrained."
            )
        config = XVLM2VecConfig(vlm_config=backbone.config, dtype=backbone.dtype, **settings)
        model = cls(config, backbone=backbone)
        model.config.name_or_path = os.fspath(pretrained_model_name_or_path)
        model._processor_options = pinned(pretrained_model_name_or_path, kwargs)
        return model.eval()

    @classmethod
    def from_vlm2vec(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        base: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> XVLM2VecModel:
        """Loads a published VLM2Vec or xVLM2Vec checkpoint: all weights of a backbone, or an adapter to one.

        An adapter (LoRA or DoRA, in the module layout of its time) is merged into the weights of its base. Prompts are
        written as the checkpoint was trained: `processor` and `encode` of the result, and what is saved, keep to that.

        Args:
            pretrained_model_name_or_path: Folder or Hub id of the checkpoint.
            base: For an adapter, folder or Hub id of its base instead of the one that its configuration names.
            **kwargs: As for `from_backbone`. `revision` and `subfolder` say where the checkpoint lies, not its base.

        Raises:
            CheckpointError: A weight is missing or unexpected, an adapter does not fit its base key by key, or no
                published checkpoint has such a backbone.
        """
        published = find_published(pretrained_model_name_or_path, base, kwargs)
        model = cls._wrap(published.backbone, dict(published.options))
        if published.adapter is not None:
            published.adapter.merge_into(model.backbone)
            model.config.name_or_path = os.fspath(pretrained_model_name_or_path)
            model._processor_source = published.backbone
        model._processor_options |= published.entry.image_settings
        model.config.layout = published.entry.layout
        model.config.image_settings = dict(published.entry.image_settings)
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> Any:
        """As in transformers, but a missing or unexpected weight is an error, and an adapter is merged into its base.

        An adapter of this package (LoRA or DoRA, as PEFT saves it) is put on the model that its configuration names, at
        the revision that it names, and every key must land; PEFT is not needed. To train an adapter on, load its base
        and use PEFT.

        Args:
            pretrained_model_name_or_path: Folder or Hub id of an embedding model, or of an adapter on one.
            *args: As in transformers.
            **kwargs: As in transformers, and `base`: for an adapter, folder or Hub id of its base instead of the one
                that its configuration names.

        Raises:
            CheckpointError: A weight is missing, unexpected or of another shape, an adapter's base is gone, or a whole
                model has an adapter beside it.
        """
        adapter = find_adapter(pretrained_model_name_or_path, kwargs.pop("base", None), kwargs)
        if adapter is not None:
            return cls._from_adapter(adapter, base_options(adapter, kwargs))
        refuse_adapter(pretrained_model_name_or_path, kwargs)
        reference = references(pretrained_model_name_or_path, kwargs)
        if reference:
            return load_referenced(cls, pretrained_model_name_or_path, reference, kwargs)
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # check_loading names them all
        with readable_files(pretrained_model_name_or_path):
            loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model, info = loaded
        check_loading(info, pretrained_model_name_or_path)
        if pretrained_model_name_or_path is not None:
            model._processor_options = pinned(pretrained_model_name_or_path, kwargs)
        return (model, info) if wants_info else model

    @classmethod
    def _from_adapter(cls, adapter: Adapter, options: dict[str, Any]) -> XVLM2VecModel:
        """Loads the base of an adapter, with these options, and merges the adapter into it."""
        load = cls.from_pretrained if base_is_embedder(adapter, options) else cls.from_backbone
        model = load(adapter.base, **options)
        adapter.merge_into(model)
        model._processor_source = model._processor_source or adapter.base
        model.config.name_or_path = adapter.source
        return model

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Writes weights, configuration, this code, and what sentence-transformers needs to load it all.

        The weights keep this model's own key names whatever older names the backbone's checkpoints use.
        """
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, *args, **kwargs)
        write_sentence_transformers_files(save_directory, self.config)

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Part of `push_to_hub`: what sentence-transformers needs is written just before, so that it goes along."""
        write_sentence_transformers_files(working_dir, self.config)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        pack: Pack | None = None,
        **more_inputs: Any,
    ) -> XVLM2VecOutput | tuple[torch.Tensor, ...]:
        """Embeds a batch as the processor made it, or a pack.

        Args:
            input_ids: `(B, L)` int64.
            attention_mask: `(B, L)`, 1 at tokens and 0 at padding on either side; all ones if missing.
            return_dict: `False` gives a tuple.
            pack: Groups of rows instead of a batch, as `pack` made it. One row of the result is one text of the pack,
                in the order of `pack.rows`; `last_hidden_state` is `(1, N, H)`.
            **more_inputs: Images and whatever else the processor made for the backbone. With a pack: `image_states`
                (the function of this name; computed here if missing), `image_means=True` and `dense=True`.

        Returns:
            `XVLM2VecOutput`.

        Raises:
            ValueError: An input is missing without which the backbone would silently compute other vectors.
        """
        if pack is not None:
            options = {name: value for name, value in more_inputs.items() if value is not None}
            result = self._embed_pack(pack.to(self.device), **options)
            return result if return_dict is not False else result.to_tuple()
        if self.config.two_towers:
            result = self._result(tower_vectors(self.backbone, input_ids, attention_mask, more_inputs))
            return result if return_dict is not False else result.to_tuple()
        if attention_mask is None:
            reference = input_ids if input_ids is not None else more_inputs["inputs_embeds"]
            attention_mask = torch.ones(reference.shape[:2], dtype=torch.long, device=reference.device)
        family = family_of(backbone_type(self.config))
        states = backbone_states(self.backbone, family, input_ids, attention_mask, more_inputs)
        span = image_span(self.config, input_ids, attention_mask)
        result = self._result(pool(states, attention_mask, self.config.pooling, span), states)
        return result if return_dict is not False else result.to_tuple()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings; of two towers, those of the tower for texts, as not every class of them names any."""
        tower: Any = self.backbone.text_model if self.config.two_towers else super()
        return tower.get_input_embeddings()

    def pack(self, groups: Sequence[TokenGroup], max_tokens: int) -> list[Pack]:
        """Packs groups of rows for `forward`, without padding.

        Args:
            groups: What `token_groups` makes of rows.
            max_tokens: Tokens of a pack; a larger group is cut into several, its prefix repeated.
        """
        return pack_groups(groups, max_tokens, rope_limit_of(self.backbone.config))

    def _embed_pack(
        self,
        pack: Pack,
        image_states: Sequence[ImageStates] | None = None,
        image_means: bool = False,
        dense: bool = False,
    ) -> XVLM2VecOutput:
        family = family_of(backbone_type(self.config))
        hidden = run_pack(self.backbone, family, pack, image_states, dense)
        means = pack.averages(hidden, heads_only=True) if image_means else None
        return self._result(pack.pooled(hidden, self.config.pooling), hidden, means)

    def _result(
        self, pooled: torch.Tensor, hidden: torch.Tensor | None = None, image_means: torch.Tensor | None = None
    ) -> XVLM2VecOutput:
        """The output from pooled states: heads, then normalisation."""
        for head in self.heads:
            pooled = head(pooled)
        return XVLM2VecOutput(self.finish(pooled), pooled, hidden, image_means)

    def finish(self, pooled: torch.Tensor) -> torch.Tensor:
        """Embeddings from what the heads gave, `(B, H)`: of length 1 if `config.normalize`."""
        if not self.config.normalize:
            return pooled
        return nn.functional.normalize(pooled.float(), dim=-1).to(pooled.dtype)

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

        Returns:
            `(N, D)` float32, or `(D,)` when one string or one image was passed.

        Raises:
            BadRowsError: Rows cannot be embedded; a `ValueError` whose `problems` has them by number.
            ValueError: Rows of different number, a processor that writes prompts in another way than the model was
                trained with, or vectors of fewer than `dim` values.
        """
        dim = chosen_dim(dim, truncate_dim, self.config)
        if dim not in self._warned_dims:
            self._warned_dims.add(dim)
            warn_of_untrained_dim(dim, self.config)
        processor = processor or self.processor
        check_processor(processor, self.config)
        problems: dict[int, str] = {}
        rows, single = make_rows(text, images, self.config.prompts.get(instruction or "", instruction), problems)
        vectors = encode_rows(
            self,
            processor,
            rows,
            max_tokens_per_batch=max_tokens_per_batch,
            max_length=max_length,
            problems=problems,
            bad_rows=bad_rows,
            show_progress=show_progress,
        )
        if dim is not None:
            vectors = truncate_embeddings(vectors, dim, self.config.normalize)
        result = vectors[0] if single else vectors
        return result if convert_to_tensor else result.numpy()
