"""The embedding model: any vision-language backbone of transformers, pooled into one vector a row."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from .activated import acting, follow_routes
from .adapters import base_is_embedder, base_options, find_adapters, holds_base, refuse_adapter
from .adopted import load_referenced, references
from .backbone_forward import backbone_states
from .backbones import load_backbone, new_backbone
from .batch_routes import batch_routes
from .configuration_xvlm2vec import XVLM2VecConfig
from .encoder import RowEncoder
from .families import backbone_type, family_of
from .heads import make_heads
from .hub_files import pinned
from .language_adapters import LanguageAdapter, adapter_for, load_language_adapter, save_language_adapters
from .loading import CheckpointError, check_loading, readable_files
from .lora_weights import Adapter
from .output import XVLM2VecOutput
from .packing import ImageStates, Pack, PrefixStates, TokenGroup, pack_groups, rope_limit_of, run_pack, run_texts
from .pooling import image_span, pool
from .processing_xvlm2vec import XVLM2VecProcessor
from .processor_checks import prove_backbone
from .published_checkpoints import find_published
from .sentence_transformers_files import write_sentence_transformers_files
from .towers import tower_vectors


class XVLM2VecModel(RowEncoder, PreTrainedModel):
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
    is_black_box = False
    """Whether somebody's own code makes the vectors, so that rows can be passed whole only; see `adoption`."""
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
        self.language_adapters: dict[str, LanguageAdapter] = {}
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Only heads are the wrapper's own, and torch initialises these; the backbone's classes do their own."""

    def train(self, mode: bool = True) -> XVLM2VecModel:
        """As in torch, but batch normalisation keeps its statistics: in training, too, no vector depends on its batch.

        A frozen vision tower would otherwise see images in another way than after the training, and forget its own.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

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

        An activated adapter stays beside its base, see `encode` and `add_languages`. Another adapter of this package
        (LoRA or DoRA, as PEFT saves it) is put on the model that its configuration names, at
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
        adapters = find_adapters(pretrained_model_name_or_path, kwargs.pop("base", None), kwargs)
        if adapters:
            return cls._from_adapters(adapters, kwargs)
        return cls._from_weights(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def base_of(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> XVLM2VecModel:
        """The model below adapters, without them, as a stored index knows it.

        Args:
            pretrained_model_name_or_path: Folder or Hub id of an adapter, or of a base together with its adapters.
            **kwargs: As for `from_pretrained`.

        Raises:
            CheckpointError: It holds no adapter, or the base is gone.
        """
        adapters = find_adapters(pretrained_model_name_or_path, kwargs.pop("base", None), kwargs)
        if not adapters:
            raise CheckpointError(f"{os.fspath(pretrained_model_name_or_path)!r} holds no adapter.")
        return cls._load_base(next(iter(adapters.values())), kwargs)

    @classmethod
    def _from_weights(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """A model from the weights that lie in a place, without adapters that may lie beside them."""
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
    def _load_base(cls, adapter: Adapter, options: dict[str, Any]) -> XVLM2VecModel:
        """The base of an adapter that was found with these options."""
        here = base_options(adapter, options)
        is_embedder = base_is_embedder(adapter, here)  # which tells a base that is gone
        if holds_base(adapter.base, here):
            model: XVLM2VecModel = cls._from_weights(adapter.base, **here)
            return model
        return (cls.from_pretrained if is_embedder else cls.from_backbone)(adapter.base, **here)

    @classmethod
    def _from_adapters(cls, adapters: dict[str, Adapter], options: dict[str, Any]) -> XVLM2VecModel:
        """Loads the base of adapters, with these options, and merges the one into it, or puts them beside it."""
        adapter = next(iter(adapters.values()))
        model = cls._load_base(adapter, options)
        if len(adapters) > 1 or adapter.settings.is_activated:
            for name, part in adapters.items():
                load_language_adapter(model, part, name)
        else:
            adapter.merge_into(model)
        model._processor_source = model._processor_source or adapter.base
        model.config.name_or_path = adapter.source
        return model

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """As in transformers; adapters act in a layer alike when it is run again."""
        super()._set_gradient_checkpointing(
            enable, partial(follow_routes, gradient_checkpointing_func), *args, **kwargs
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Writes weights, configuration, this code, and what sentence-transformers needs to load it all.

        The weights keep this model's own key names whatever older names the backbone's checkpoints use. Of a model with
        adapters beside it these are written, and not their base, whose name they hold.
        """
        if self.language_adapters:
            save_language_adapters(self, save_directory, kwargs.get("state_dict"))
            return
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
        language: str | None = None,
        adapter_starts: torch.Tensor | None = None,
        **more_inputs: Any,
    ) -> XVLM2VecOutput | tuple[torch.Tensor, ...]:
        """Embeds a batch as the processor made it, or a pack.

        Args:
            input_ids: `(B, L)` int64.
            attention_mask: `(B, L)`, 1 at tokens and 0 at padding on either side; all ones if missing.
            return_dict: `False` gives a tuple.
            pack: Groups of rows instead of a batch, as `pack` made it. One row of the result is one text of the pack,
                in the order of `pack.rows`; `last_hidden_state` is `(1, N, H)`.
            language: Of the texts of a batch, for a model with adapters, see `encode`.
            adapter_starts: `(B, 3)`, where an adapter begins in each row, as the processor says for `prompts=`.
            **more_inputs: Images and whatever else the processor made for the backbone. With a pack: `image_states`
                (the function of this name; computed here if missing), `image_means=True` and `dense=True`; `adapters`,
                for each text the adapter that acts on it, or `None`; `keep`, which keeps what the pass makes of
                prefixes, or `over`, which holds it, so that only texts are run.

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
            adapter_for(self, language)  # there is none
            result = self._result(tower_vectors(self.backbone, input_ids, attention_mask, more_inputs))
            return result if return_dict is not False else result.to_tuple()
        if attention_mask is None:
            reference = input_ids if input_ids is not None else more_inputs["inputs_embeds"]
            attention_mask = torch.ones(reference.shape[:2], dtype=torch.long, device=reference.device)
        family = family_of(backbone_type(self.config))
        routes = batch_routes(self, language, adapter_starts, attention_mask)
        with nullcontext() if routes is None else acting(routes):
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
        adapters: Sequence[str | None] | None = None,
        keep: PrefixStates | None = None,
        over: PrefixStates | None = None,
    ) -> XVLM2VecOutput:
        family = family_of(backbone_type(self.config))
        if over is None:
            hidden = run_pack(self.backbone, family, pack, image_states, dense, adapters, keep)
        else:
            hidden = run_texts(self.backbone, family, pack, over, adapters or ())
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
