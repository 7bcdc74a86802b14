"""`xvlm2vec distill` once more into the same folder: with more steps, with fewer, with other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.schema import parallel_features

TINY = TinyModelConfig(
    image_size=16, patch_size=4, hidden_size=32, vision_layers=1, text_layers=2, heads=2, intermediate_size=48,
    vocab_size=300,
)  # fmt: skip


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """The command without its number of steps."""
    rows = [
        {
            "id": f"row-{number}",
            "image": None,
            "text_en": f"a red dog, {number}",
            "translations": [{"lang": "de", "text": f"ein roter Hund, {number}"}],
            "source": "test",
        }
        for number in range(8)
    ]
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(str(tmp_path / "data"))
    model, processor = build_tiny_model(TINY, [row["text_en"] for row in rows])
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    places = {"model": "model", "data": "data", "output": "out", "teacher-store": "teacher"}
    flags = [word for name, place in places.items() for word in (f"--{name}", str(tmp_path / place))]
    return ["distill", *flags, "--per-device-train-batch-size", "4", "--use-cpu", "true"]


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in (folder / "checkpoints").glob("checkpoint-*"))


def test_more_steps_go_on_in_the_same_folder(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main([*command, "--max-steps", "2"]) == 0
    weights = (output / "model.safetensors").read_bytes()
    assert main([*command, "--max-steps", "5"]) == 0
    assert steps_of(output) == [2, 5]
    assert (output / "model.safetensors").read_bytes() != weights
    assert json.loads((output / "distillation.json").read_text())["settings"]["max_steps"] == 5

    assert main([*command, "--max-steps", "3"]) == 1
    assert "has taken 5 steps, and these settings ask for 3" in capsys.readouterr().err
    assert main([*command, "--max-steps", "5", "--seed", "1"]) == 1
    assert "holds another run" in capsys.readouterr().err
    assert steps_of(output) == [2, 5]
