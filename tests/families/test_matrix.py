"""Every vision-language type of transformers is right or refused in one sentence; a dozen by default, all if slow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from building import NAMES, TYPES
from judging import Prompt, Trial, judge, rows_of_every_kind
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from xvlm2vec.modeling.families import FAMILIES
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "families.json"

# One of each kind: a plain tower, marks around an image, M-RoPE, four axes, two images a mark, cross-attention, two
# towers in one, an encoder and decoder, a whole model whose base does not load, linear attention, short convolutions.
DEFAULT = (
    "llava", "glm4v", "qwen3_5", "hunyuan_vl", "ovis2", "mllama", "deepseek_vl", "florence2", "t5gemma2",
    "lighton_ocr", "paddleocr_vl", "lfm3_vl",
)  # fmt: skip
REFUSED = (
    "blip", "blip-2", "fuyu", "git", "idefics", "instructblip", "instructblipvideo", "kosmos-2", "mistral4",
    "pp_chart2table",
)  # fmt: skip


def marked(name: str) -> Any:
    marks = [] if name in DEFAULT else [pytest.mark.slow]
    if TYPES[name].get("needs_vision"):
        marks.append(pytest.mark.vision)
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [marked(name) for name in NAMES])
def test_right_or_refused(name: str, checkpoint: Callable[[str], Path]) -> None:
    most = 5 if name in DEFAULT else 1 if TYPES[name].get("slow") else 2
    verdict = judge(name, checkpoint(name), Prompt(**TYPES[name]["prompt"]), most)
    assert verdict.status == ("refused" if name in REFUSED else "right"), verdict.reason
    if name in REFUSED:
        assert verdict.reason.startswith("'")  # names the checkpoint
        assert "\n" not in verdict.reason


@pytest.mark.parametrize("name", ["llava", "lighton_ocr", pytest.param("nemotron_h_omni", marks=pytest.mark.vision)])
def test_saved_and_loaded_again(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = checkpoint(name)
    model = XVLM2VecModel.from_backbone(folder, dtype=torch.float32)
    rows = rows_of_every_kind()["both"][:2]
    trial = Trial(name, folder, model, Prompt(**TYPES[name]["prompt"]))
    before = trial.embed(rows)
    model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    trial.model = XVLM2VecModel.from_pretrained(tmp_path)
    assert torch.equal(trial.embed(rows), before)


def test_encode_packs_what_was_proven() -> None:
    """What texts share in a pack was compared with the rows alone (`sharing`); rows that must not meet stay apart."""
    proven = {name for name, verdict in json.loads(RESULTS.read_text("utf-8")).items() if verdict["sharing"] == "yes"}
    apart = {name for name in proven if FAMILIES[name].mixes} | {"ernie4_5_vl_moe"}  # wrong for images alone
    assert {name for name in NAMES if FAMILIES[name].causal} == proven - apart


def test_all_types_are_here() -> None:
    """A new transformers has new types: they want an entry in types.json, and in the table of families."""
    assert set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES) == set(TYPES)
    assert set(NAMES) <= set(FAMILIES)
