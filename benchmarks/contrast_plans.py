"""What `contrast --plan` says of the recipes for MMEB-train, from configurations of the published sizes.

    python benchmarks/contrast_plans.py --json benchmarks/results/contrast_plans.json

No weight is loaded, nothing is trained and no GPU is looked at: an estimate, see docs/scaling.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from transformers import Qwen2VLConfig, Qwen3VLConfig

from xvlm2vec.cli import main as xvlm2vec

RECIPES = Path(__file__).resolve().parents[1] / "configs" / "recipes"
QWEN2_TEXT = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
QWEN2_VISION = {
    "depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14,
}  # fmt: skip
QWEN3_TEXT = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
}  # fmt: skip
QWEN3_VISION = {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
    "deepstack_visual_indexes": [5, 11, 17],
}  # fmt: skip
SHAPES = {
    "mmeb-qwen2-vl-2b-lora-24gb": lambda: Qwen2VLConfig(
        text_config=QWEN2_TEXT, vision_config=QWEN2_VISION, dtype="bfloat16"
    ),
    "mmeb-qwen3-vl-2b-lora-24gb": lambda: Qwen3VLConfig(
        text_config=QWEN3_TEXT, vision_config=QWEN3_VISION, dtype="bfloat16"
    ),
}
TOKENS = {"mmeb-qwen2-vl-2b-lora-24gb": 1536, "mmeb-qwen3-vl-2b-lora-24gb": 1280}
ADAPTER = ("lora", "lora_rank", "dtype")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the tables go")
    flags = parser.parse_args()
    plans = {}
    for name, shape in SHAPES.items():
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
        whole = {key: value for key, value in recipe.items() if key not in ADAPTER}
        with tempfile.TemporaryDirectory() as folder:
            shape().save_pretrained(folder)
            plans[name] = plan(recipe, folder, TOKENS[name])
            plans[f"{name}, rows of 512 tokens"] = plan(recipe, folder, 512)
            plans[f"{name}, all weights"] = plan(whole, folder, TOKENS[name])
    flags.json.write_text(json.dumps({"name": "contrast_plans", "plans": plans}, indent=1) + "\n", encoding="utf-8")


def plan(recipe: dict[str, Any], folder: str, tokens: int) -> list[str]:
    """The lines of a plan."""
    config = Path(folder) / "recipe.yaml"
    config.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        if xvlm2vec(["contrast", "--config", str(config), "--model", folder, "--plan", str(tokens)]):
            raise SystemExit(f"failed: {recipe['output']}")
    return shown.getvalue().splitlines()


if __name__ == "__main__":
    main()
