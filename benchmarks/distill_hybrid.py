"""A model in the shape of Qwen3.5 for distill_step.py: three layers of linear attention to one of full attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from distill_cells import IMAGE_TOKEN, Image, Shape
from transformers import Qwen3_5Config, Qwen3_5Model

from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

START, END, VIDEO = 6, 7, 8
CHUNK = 64
"""Tokens over which transformers' kernel of the gated delta rule goes at once."""


@dataclass(frozen=True)
class HybridShape(Shape):
    """As `Shape`; keys are half as wide as values in linear attention, and one head in four has keys in full attention.

    Args:
        head: Width of a head of linear attention.
    """

    key_value_heads: int = 2
    head: int = 64

    @property
    def value_heads(self) -> int:
        """Heads of values in linear attention, together as wide as the model."""
        return self.hidden // self.head

    def forward_flops(self, tokens: int, before: int = 0) -> float:
        """As of `Shape`; linear attention goes over whole chunks, whatever stands before."""
        full = Shape(self.hidden, self.layers // 4, self.heads, self.intermediate, key_value_heads=self.key_value_heads)
        gates = 2 * full.layers * self.hidden * self.hidden * tokens
        weights = self.hidden * (4 * self.hidden + 3 * self.intermediate)
        # In a chunk: keys by keys and by queries, two triangular systems, values; and three products with the state.
        within, across = 8 * CHUNK * self.head, 6 * self.head * self.head
        chunked = math.ceil(tokens / CHUNK) * CHUNK * self.value_heads * (within + across)
        linear = (self.layers - full.layers) * (2 * weights * tokens + chunked)
        return full.forward_flops(tokens, before) + gates + linear


def build_hybrid(shape: HybridShape) -> XVLM2VecModel:
    """A random Qwen3.5 with a small vision tower."""
    text = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.hidden // shape.heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "linear_num_key_heads": shape.value_heads // 2,
        "linear_num_value_heads": shape.value_heads,
        "linear_key_head_dim": shape.head,
        "linear_value_head_dim": shape.head,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [3, 3, 2],
        },
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * (shape.layers // 4),
    }
    vision = {"depth": 2, "hidden_size": 64, "out_hidden_size": shape.hidden, "num_heads": 2, "intermediate_size": 128}
    config = Qwen3_5Config(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    torch.manual_seed(0)
    backbone = Qwen3_5Model(config)
    backbone.visual.requires_grad_(False)
    return XVLM2VecModel(XVLM2VecConfig(vlm_config=config, normalize=False), backbone=backbone)


def qwen_image(prefix: int) -> Image:
    """One image of so many tokens, as square as can be, for the model of `build_hybrid`."""
    height = next(size for size in range(math.isqrt(prefix), 0, -1) if prefix % size == 0)
    grid = torch.tensor([[1, 2 * height, 2 * prefix // height]])

    def make(generator: torch.Generator) -> tuple[list[int], dict[str, torch.Tensor]]:
        patches = torch.randn(int(grid.prod()), 3 * 2 * 16 * 16, generator=generator)
        return [IMAGE_TOKEN] * prefix, {"pixel_values": patches, "image_grid_thw": grid}

    return make
