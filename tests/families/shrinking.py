"""Makes the default configuration of any vision-language model tiny, with a layer of each kind left."""

from __future__ import annotations

import re
from typing import Any

WIDTH, HEADS, HEAD, INNER = 64, 2, 32, 96
"""Width of every stream, attention heads, their width, and that of feed-forward layers. Partial RoPE of a quarter of a
head still has 8 channels, for three axes."""
PATCHES = 4
"""Patches along each side of an image."""
COUNTS = (
    "num_hidden_layers", "num_layers", "depth", "layers", "encoder_layers", "decoder_layers", "n_layers",
    "num_decoder_layers", "conf_num_hidden_layers", "resampler_depth", "num_global_layers",
)  # fmt: skip
"""Settings that count layers."""
LEFT_OUT = (
    "transformers_version", "architectures", "dtype", "_name_or_path", "id2label", "label2id", "per_layer_config",
)  # fmt: skip

# Names of settings and their values; the first that matches counts. At most so much, unless it is 0 or None.
AT_MOST = (
    (r"max_(position_embeddings|source_positions|sequence_length|vit_seq_len)", 2048),
    (r"(kv_lora|q_lora|laurel)_rank|hc_lowrank", 16),
    (r"qk_(rope|nope)_head_dim", 16),
    (r"qk_head_dim|v_head_dim", HEAD),
    (r"(.*_)?head_dim|dim_head", HEAD),
    (r"linear_num_value_heads", 4),
    (r"linear_num_key_heads", 2),
    (r"(.*num_)?(attention_|n_)?heads|.*attention_heads|.*_n_heads|(linear|mamba)_num_heads", HEADS),
    (r"n_routed_experts|(moe_)?num_(local_)?experts", 4),
    (r"num_experts_per_tok|moe_(topk|k)|top_k_experts", 2),
    (r"n_group|topk_group|n_groups|first_k_dense_replace|n_layers_per_attn_res_block", 1),
    (r"sliding_window(_size)?|attention_chunk_size|chunk_size|index_(topk|local_blocks)", 8),
    (r"ssm_state_size|hidden_size_per_layer_input", 16),
    (r"moe_.*intermediate_size|moe_latent_size|share(d|d_expert)?_(intermediate_size|expert_dim)", HEAD),
    (r".*(intermediate_size(_mlp)?|ffn_dim|mlp_dim|d_ff|ffn_hidden_size)", INNER),
    (r".*(hidden_size|hidden_dim|d_model|output_dim|projection_dim|word_embed_proj_dim|output_proj_dims)", WIDTH),
)
SMALL_EMBEDDINGS = 300
"""An `embed_dim` up to this is one of several stages, and stays."""


def shrink(node: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """A tiny copy of a configuration as nested dictionaries."""
    count = next((node[name] for name in COUNTS if isinstance(node.get(name), int)), None)
    layers = kinds_of_layers(node, count)
    tiny: dict[str, Any] = {}
    for name, value in node.items():
        if name in LEFT_OUT:
            continue
        if isinstance(value, dict) and ("model_type" in value or name.endswith("_config")):
            tiny[name] = shrink(value, vocabulary)
        elif name in COUNTS and isinstance(value, int):
            tiny[name] = len(layers) if layers else min(value, 2)
        elif layers and isinstance(value, list) and len(value) == count:
            chosen = [value[place] for place in layers]
            tiny[name] = smaller(name, chosen, node, vocabulary) if name == "intermediate_size" else chosen
        else:
            tiny[name] = smaller(name, value, node, vocabulary)
    return tiny


def smaller(name: str, value: Any, node: dict[str, Any], vocabulary: int) -> Any:
    """The value of one setting in a tiny model."""
    special = {
        "image_size": image_size,
        "rope_parameters": lambda value, _: shrink_rope(value),
        "deepstack_visual_indexes": lambda value, _: value and [0],
        "fullatt_block_indexes": lambda value, _: value and [1],
        "global_attn_indexes": lambda value, _: value and [1],
        "embed_dim": lambda value, _: WIDTH if isinstance(value, int) and value > SMALL_EMBEDDINGS else value,
    }
    if name in special:
        return special[name](value, node)
    if re.fullmatch(r"(unpadded_|additional_)?vocab_size(_per_layer_input)?", name):
        return vocabulary if value else value
    if re.fullmatch(r"(swa_)?num_(key_value_|global_key_value_)heads|swa_num_key_value_heads", name):
        heads = next((v for k, v in node.items() if k.endswith(("num_attention_heads", "num_heads")) and v), 0)
        return HEADS if value in (heads, None) else 1
    most = next((most for pattern, most in AT_MOST if re.fullmatch(pattern, name)), None)
    return at_most(value, most) if most is not None else value


def at_most(value: Any, most: int) -> Any:
    """A number, or each of a list, no larger than this."""
    if isinstance(value, list):
        return [at_most(one, most) for one in value]
    return min(value, most) if isinstance(value, int) and not isinstance(value, bool) else value


def image_size(value: Any, node: dict[str, Any]) -> Any:
    """An image of few patches."""
    patch = node.get("patch_size")
    side = PATCHES * (patch if isinstance(patch, int) else 14)
    return [side] * len(value) if isinstance(value, list) else side if value else value


def kinds_of_layers(node: dict[str, Any], count: int | None) -> list[int]:
    """Numbers of layers that together have every combination of what is set layer by layer; empty without lists."""
    count = count or len(node.get("layers_block_type") or ())
    lists = {name: value for name, value in node.items() if isinstance(value, list) and len(value) == count > 2}
    if not lists:
        return []
    chosen = first_of_each(list(zip(*lists.values(), strict=True)))
    if len(chosen) > 8:  # a list that numbers the layers
        chosen = first_of_each(lists.get("layer_types") or next(iter(lists.values())))
    return chosen if len(chosen) > 1 else [0, 1]


def first_of_each(values: list[Any]) -> list[int]:
    """Where each value stands first."""
    return sorted({repr(value): place for place, value in reversed(list(enumerate(values)))}.values())


def shrink_rope(rope: Any) -> Any:
    """RoPE parameters whose sections fit the width of a head."""
    if not isinstance(rope, dict):
        return rope
    if any(isinstance(value, dict) for value in rope.values()):
        return {kind: shrink_rope(value) for kind, value in rope.items()}
    if "mrope_section" not in rope:
        return rope
    half = int(HEAD * rope.get("partial_rotary_factor", 1.0)) // 2
    return rope | {"mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}


def changed(node: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A nested dictionary with changes; a dictionary with `__replace__` takes the place of all that stood there."""
    result = dict(node)
    for name, value in changes.items():
        if not isinstance(value, dict):
            result[name] = value
        elif value.get("__replace__") or not isinstance(result.get(name), dict):
            result[name] = {key: item for key, item in value.items() if key != "__replace__"}
        else:
            result[name] = changed(result[name], value)
    return result
