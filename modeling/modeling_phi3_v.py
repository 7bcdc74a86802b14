"""Phi-3.5-V as an embedding backbone: CLIP and Phi-3 of transformers, joined as the original does, without an LM head.

Module names are those of the original checkpoints below their `model.` prefix, so that published weights and adapters
land unchanged. Two things differ from the original on purpose: the long or short RoPE factors follow the length of each
row, not of the padded batch, and placeholders without images (or the reverse) are an error.
"""

import os
from typing import Any

import torch
from torch import nn
from transformers import Phi3PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer, Phi3RMSNorm, Phi3RotaryEmbedding
from transformers.utils.output_capturing import capture_outputs

from .configuration_phi3_v import Phi3VConfig
from .loading import check_loading
from .loading_phi3_v import IGNORED_KEYS, inspect_checkpoint
from .vision_phi3_v import Phi3VImageEmbedding


class Phi3VRotaryEmbedding(nn.Module):
    """RoPE whose factors are chosen per token by the length of the row that the token belongs to.

    The frequencies are computed from the configuration and kept out of the module's buffers: casting the model to half
    precision must not round them.
    """

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        self.config = config

    def frequencies(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Inverse frequencies of short and of long rows, `(head_dim / 2,)` float32 each, and the attention scale."""
        parameters: Any = self.config.rope_parameters
        if parameters["rope_type"] == "default":
            plain, scale = Phi3RotaryEmbedding.compute_default_rope_parameters(self.config, device)
            return plain, plain, scale
        longrope = ROPE_INIT_FUNCTIONS["longrope"]
        limit = self.config.original_max_position_embeddings
        short, scale = longrope(self.config, device, seq_len=limit)
        long, _ = longrope(self.config, device, seq_len=limit + 1)
        return short, long, scale

    @torch.no_grad()
    def forward(
        self, states: torch.Tensor, position_ids: torch.Tensor, row_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines.

        Args:
            states: Gives device and dtype.
            position_ids: `(B, L)` int64.
            row_lengths: `(B, L)` or `(B, 1)` int64, tokens of the row that each token belongs to.

        Returns:
            Two `(B, L, head_dim)` tensors of the dtype of `states`.
        """
        short, long, scale = self.frequencies(states.device)
        is_long = row_lengths > self.config.original_max_position_embeddings
        angles = position_ids[..., None].float() * torch.where(is_long[..., None], long, short)
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * scale).to(states.dtype), (angles.sin() * scale).to(states.dtype)


class Phi3VPreTrainedModel(Phi3PreTrainedModel):
    """Loading and initialisation of Phi-3.5-V."""

    config_class = Phi3VConfig
    config: Phi3VConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    # lists, as transformers declares them
    input_modalities = ["image", "text"]  # noqa: RUF012
    _no_split_modules = ["Phi3DecoderLayer", "CLIPEncoderLayer", "CLIPVisionEmbeddings"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = list(IGNORED_KEYS)  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Phi3VImageEmbedding):
            init.zeros_(module.glb_GN)
            init.zeros_(module.sub_GN)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """As in transformers, with the original's key names, and an error where transformers only warns.

        Args:
            pretrained_model_name_or_path: Folder or Hub id with safetensors or `.bin` weights, full or sharded, under
                the original's key names (with or without `vision_embed_tokens.wte` and `lm_head`) or under ours.
            *args: Passed on.
            **kwargs: Passed on; `output_loading_info=True` returns `(model, info)`.

        Raises:
            FileNotFoundError: There are no weights, or a shard is missing.
            ValueError: A weight is missing, unexpected or of another shape.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        rename = {}
        if pretrained_model_name_or_path is not None and kwargs.get("state_dict") is None:
            rename = inspect_checkpoint(pretrained_model_name_or_path, kwargs)
        kwargs["key_mapping"] = {**rename, **(kwargs.get("key_mapping") or {})} or None
        kwargs["ignore_mismatched_sizes"] = True  # so that the check below names them; transformers' own error does not
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        check_loading(info, pretrained_model_name_or_path)
        if rename:  # saving must write our names, not undo the renaming
            model._weight_conversions = None
        return (model, info) if wants_info else model


class Phi3VModel(Phi3VPreTrainedModel):
    """Phi-3.5-V without its language-model head."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.embed_dropout = nn.Dropout(config.embd_pdrop)
        self.vision_embed_tokens = Phi3VImageEmbedding(config)
        self.layers = nn.ModuleList(Phi3DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = Phi3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Phi3VRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    def get_image_features(
        self, pixel_values: torch.Tensor, image_sizes: torch.Tensor, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Features of images, to be computed once and passed to `forward` as `mm_encoder_outputs={"image": ...}`.

        Args:
            pixel_values: `(P, crops, 3, S, S)`: the global view, then the crops row by row, then padding.
            image_sizes: `(P, 2)` int64, height and width of the padded images.
            **_: Settings that other models know (`return_dict`).

        Returns:
            `pooler_output` holds one `(tokens, hidden_size)` tensor an image.
        """
        return BaseModelOutputWithPooling(pooler_output=self.vision_embed_tokens(pixel_values, image_sizes))

    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        row_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Runs the model; the caller's tensors are never changed.

        Args:
            input_ids: `(B, L)` int64; placeholders of the row's i-th image are `-i`, one a feature.
            attention_mask: `(B, L)`, 0 at padding on either side; or a prepared 4-D mask, with explicit `position_ids`.
            position_ids: `(B, L)` int64; by default counted along the tokens that are not padding. Where they restart
                at 0, a new row begins.
            past_key_values: Keys and values of earlier tokens; pass `row_lengths` with a prefix whose rows are longer.
            inputs_embeds: `(B, L, H)` instead of `input_ids`, images already in place.
            pixel_values: `(P, crops, 3, S, S)`, the images of all rows in order.
            image_sizes: `(P, 2)` int64.
            use_cache: Return `past_key_values`.
            mm_encoder_outputs: `{"image": get_image_features(...)}` instead of `pixel_values`.
            row_lengths: `(B,)` or `(B, L)` int64, tokens of the full row that each token belongs to; chooses the RoPE
                factors. By default the largest position of the row (of tokens that are not padding) plus one. Needed
                where several texts continue one prefix.
            **kwargs: Passed to the attention function.

        Returns:
            `last_hidden_state` `(B, L, H)`, after the final norm.

        Raises:
            ValueError: Arguments contradict each other, or placeholders and images do not match.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either input_ids or inputs_embeds.")
        if input_ids is not None:
            features = self._image_features(pixel_values, image_sizes, mm_encoder_outputs)
            inputs_embeds = place_features(input_ids, self.embed_tokens, features)
        elif pixel_values is not None or mm_encoder_outputs is not None:
            raise ValueError("Images must already be in place in inputs_embeds; pass input_ids to have them placed.")
        hidden = self.embed_dropout(inputs_embeds)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        position_ids = self._positions(position_ids, attention_mask, hidden, past)
        row_lengths = self._row_lengths(row_lengths, position_ids, attention_mask)
        make_mask = create_causal_mask if self.config.sliding_window is None else create_sliding_window_causal_mask
        causal_mask = make_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        position_embeddings = self.rotary_emb(hidden, position_ids, row_lengths)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=causal_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                position_embeddings=position_embeddings,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=past_key_values if use_cache else None
        )

    def _image_features(
        self,
        pixel_values: torch.Tensor | None,
        image_sizes: torch.Tensor | None,
        mm_encoder_outputs: dict[str, Any] | None,
    ) -> tuple[torch.Tensor, ...]:
        computed = (mm_encoder_outputs or {}).get("image")
        if computed is not None and pixel_values is not None:
            raise ValueError("Pass either pixel_values or mm_encoder_outputs.")
        if computed is not None:
            return tuple(computed.pooler_output)
        if pixel_values is None:
            return ()
        if image_sizes is None:
            raise ValueError("pixel_values need image_sizes.")
        return self.vision_embed_tokens(pixel_values, image_sizes)

    def _positions(
        self, position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, states: torch.Tensor, past: int
    ) -> torch.Tensor:
        rows, length = states.shape[:2]
        if position_ids is not None:
            return position_ids.expand(rows, -1)
        if attention_mask is not None and getattr(attention_mask, "ndim", 4) != 2:
            raise ValueError("A prepared attention mask needs explicit position_ids: padding cannot be read from it.")
        if attention_mask is None or self.config.legacy_rope_by_batch:
            return torch.arange(past, past + length, device=states.device).expand(rows, -1)
        counted = attention_mask.long().cumsum(-1) - 1
        return counted.clamp(min=0)[:, -length:].to(states.device)

    def _row_lengths(
        self, row_lengths: torch.Tensor | None, position_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        if self.config.legacy_rope_by_batch:
            return (position_ids.max() + 1).expand(len(position_ids), 1)
        if row_lengths is not None:
            lengths = row_lengths.to(position_ids.device)
            return lengths[:, None] if lengths.dim() == 1 else lengths
        is_token = attention_mask if getattr(attention_mask, "ndim", 4) == 2 else None
        return count_row_lengths(position_ids, is_token)


def count_row_lengths(position_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Length `(B, L)` int64 of the row that each token belongs to; a row begins wherever the positions restart at 0.

    Args:
        position_ids: `(B, L)` int64.
        attention_mask: `(B, >= L)`, 0 at padding, or `None`.
    """
    ends = position_ids + 1
    if attention_mask is not None:
        mask = attention_mask[:, -position_ids.shape[1] :].to(position_ids.device)
        ends = ends.masked_fill(mask == 0, 0)
    rows = (position_ids == 0).cumsum(-1)
    lengths = ends.new_zeros(len(ends), ends.shape[1] + 1).scatter_reduce(1, rows, ends, reduce="amax")
    return lengths.gather(1, rows)


def place_features(
    input_ids: torch.Tensor, embed_tokens: nn.Embedding, features: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Token embeddings with the images' features in place of their placeholders.

    Args:
        input_ids: `(B, L)` int64; in each row the placeholders of image i are a run of `-i`, and the images come in
            order. A packed row may begin again at `-1`.
        embed_tokens: The embedding of the vocabulary.
        features: One `(tokens, H)` tensor an image, in the order of the batch.

    Returns:
        `(B, L, H)`.

    Raises:
        ValueError: Placeholders and features do not match.
    """
    embeds: torch.Tensor = embed_tokens(input_ids.clamp(min=0))
    is_placeholder = input_ids < 0
    check_placeholders(input_ids.cpu(), [len(feature) for feature in features])
    if not features:
        return embeds
    joined = torch.cat(features).to(embeds)
    return embeds.masked_scatter(is_placeholder[..., None], joined)


def check_placeholders(input_ids: torch.Tensor, counts: list[int]) -> None:
    """Compares the runs of placeholders in `(B, L)` ids on the CPU with the number of features of each image.

    Raises:
        ValueError: A run is missing, out of order or of another length; the message names the row.
    """
    is_placeholder = input_ids < 0
    before = nn.functional.pad(input_ids, (1, 0))[:, :-1]
    starts = is_placeholder & (input_ids != before)
    rows = starts.nonzero()[:, 0].tolist()
    numbers = (-input_ids[starts]).tolist()
    if len(numbers) != len(counts):
        raise ValueError(f"The ids have placeholders for {len(numbers)} image(s), but {len(counts)} were given.")
    runs = starts.flatten().cumsum(0)[is_placeholder.flatten()] - 1
    lengths = torch.bincount(runs, minlength=len(counts)).tolist()
    last_row, last_number = -1, 0
    for image, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        expected = last_number + 1 if row == last_row else 1
        if number not in (expected, 1):
            raise ValueError(f"Row {row}: placeholders of image {number} where image {expected} should come.")
        if lengths[image] != counts[image]:
            raise ValueError(
                f"Row {row}: image {number} has {lengths[image]} placeholders, but {counts[image]} features."
            )
        last_row, last_number = row, number


__all__ = ["Phi3VModel", "Phi3VPreTrainedModel"]
