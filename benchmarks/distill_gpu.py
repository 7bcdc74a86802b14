"""A step of self-distillation on one GPU in bfloat16: random models of the shapes of Phi-3.5-V and Qwen2-VL-2B.

    python benchmarks/distill_gpu.py --json benchmarks/results/distill_gpu.json
    python benchmarks/distill_gpu.py --tiny        # small models, on a CPU, to see that it runs

The variants are those of distill_step.py. Here the vision towers have their real sizes and count with the rest, frozen
as in the trainer's defaults; the language-model head, which only the reference runs, and the optimiser stay rows of
their own.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from distill_cells import Bench, Cell, Image, Shape, compare
from transformers import PretrainedConfig, PreTrainedModel, Qwen2VLConfig, Qwen2VLModel

from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig
from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.image_processing_phi3_v import count_tokens
from xvlm2vec.modeling.modeling_phi3_v import Phi3VModel
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.vision_parameters import freeze_vision

LANGUAGES = (1, 4, 12)
BUDGET = 8_192
Family = tuple[Callable[[PretrainedConfig], PreTrainedModel], PretrainedConfig, Shape, Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", type=int, nargs="*", default=LANGUAGES, help="translations (default 1 4 12)")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES), help="by default both")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each kind (default 5)")
    parser.add_argument("--tiny", action="store_true", help="small models, also on a CPU")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    flags = parser.parse_args()
    if not flags.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny runs on a CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    machine = {"device": name, "python": platform.python_version(), "torch": torch.__version__}
    content: dict[str, Any] = {"name": "distill_gpu", "machine": machine, "tiny": flags.tiny, "rows": [], "ratios": {}}
    for family in flags.families:
        for languages in flags.languages:
            rows, ratios = measure(family, languages, flags.repeats, flags.tiny, device)
            content["rows"] += [{"family": family, **row} for row in rows]
            content["ratios"] |= {f"{family} K={languages} {name}": value for name, value in ratios.items()}
            print(json.dumps({"family": family, "languages": languages, "ratios": ratios}), flush=True)
    if flags.json:
        flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(
    family: str, languages: int, repeats: int, tiny: bool, device: torch.device
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows and ratios of one family and number of languages."""
    build, config, shape, image = FAMILIES[family](tiny)
    prefix = len(image(torch.Generator())[0])
    torch.manual_seed(0)
    with torch.device(device):
        backbone = build(config)
    # A GPU trains in bfloat16 throughout; on a CPU the comparison of gradients needs float32.
    backbone = backbone.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    model = XVLM2VecModel(XVLM2VecConfig(vlm_config=config, normalize=False), backbone=backbone)
    freeze_vision(model)
    bench = Bench(Cell(prefix, languages, budget=1_024 if tiny else BUDGET), model, image)
    bench.check(0.1 if device.type == "cuda" else 1e-3)
    return compare(bench, shape, repeats)


def phi(tiny: bool) -> Family:
    """Phi-3.5-V: an image of 1344 x 1344 becomes 757 tokens."""
    shape = Shape(64, 2, 4, 128, 300) if tiny else Shape(3_072, 32, 32, 8_192, 32_064)
    side = 336 if tiny else 672
    half = shape.hidden // shape.heads // 2
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    large = {"hidden_size": 1_024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4_096}
    vision = (tower if tiny else large) | {"image_size": 336, "patch_size": 14}
    config = Phi3VConfig(
        **text_settings(shape),
        original_max_position_embeddings=4_096,
        max_position_embeddings=131_072,
        rope_theta=10_000.0,
        rope_scaling={"type": "longrope", "short_factor": [1.0] * half, "long_factor": [2.0] * half},
        pad_token_id=0,
        img_processor={"image_dim_out": vision["hidden_size"]},
        vision_config=vision,
    )

    def image(generator: torch.Generator) -> tuple[list[int], dict[str, torch.Tensor]]:
        crops = 1 + (side // 336) ** 2
        pixels = torch.randn(1, crops, 3, 336, 336, generator=generator)
        sizes = torch.tensor([[side, side]])
        return [1] + [-1] * count_tokens(side, side) + [1], {"pixel_values": pixels, "image_sizes": sizes}

    return Phi3VModel, config, shape, image


def qwen(tiny: bool) -> Family:
    """Qwen2-VL-2B: an image of 784 x 784 becomes 784 tokens."""
    shape = Shape(64, 2, 4, 128, 300, 2) if tiny else Shape(1_536, 28, 12, 8_960, 151_936, 2)
    grid = 16 if tiny else 56
    tower = (
        {"depth": 1, "embed_dim": 32, "num_heads": 2} if tiny else {"depth": 32, "embed_dim": 1_280, "num_heads": 16}
    )
    sections = [2, 3, 3] if tiny else [16, 24, 24]
    start, token, end = 3, 4, 5
    config = Qwen2VLConfig(
        text_config=text_settings(shape)
        | {"rope_parameters": {"rope_type": "default", "mrope_section": sections, "rope_theta": 1_000_000.0}},
        vision_config=tower | {"hidden_size": shape.hidden, "mlp_ratio": 4},
        image_token_id=token,
        video_token_id=6,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )

    def image(generator: torch.Generator) -> tuple[list[int], dict[str, torch.Tensor]]:
        patches = torch.randn(grid * grid, 3 * 2 * 14 * 14, generator=generator)
        shown = {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, grid, grid]])}
        return [start] + [token] * (grid * grid // 4) + [end], shown

    return Qwen2VLModel, config, shape, image


def text_settings(shape: Shape) -> dict[str, Any]:
    """A shape by the names of transformers."""
    return {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads or shape.heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
    }


FAMILIES: dict[str, Callable[[bool], Family]] = {"phi-3.5-v": phi, "qwen2-vl-2b": qwen}


if __name__ == "__main__":
    main()
