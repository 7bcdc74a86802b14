"""The guide for users' own data: every command in it runs, in its order, on a small set and a tiny model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "your-own-model.md"
HUB_ID = "HuggingFaceTB/SmolVLM-256M-Instruct"
ROWS = 180


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line]


def make_set(folder: Path) -> None:
    world = EmojiWorld.load(EmojiWorldConfig(concepts=64, image_size=32, languages=("en", "de", "ja")))
    (folder / "images" / "birds").mkdir(parents=True)
    lines = ["image,en,de,ja"]
    pairs = [(a, b) for a in range(64) for b in range(a)][:: 2016 // ROWS][:ROWS]
    for number, pair in enumerate(pairs, start=1):
        name = f"birds/{number:04d}.jpg"
        world.render(world.compose(pair, number)).save(folder / "images" / name)
        lines.append(",".join([name, *(f'"{world.caption(pair, code)}"' for code in ("en", "de", "ja"))]))
    lines += [",wingspan,Flügelspannweite,翼幅", "birds/none.jpg,a,b,c"]
    (folder / "texts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "queries.txt").write_text("ein Hund\nネコ\n", encoding="utf-8")
    (folder / "rows.csv").write_text("text,image\na dog,\n,birds/0001.jpg\nwhat is it?,birds/0002.jpg\n")
    (folder / "teacher.yaml").write_text(blocks("yaml")[0].replace(HUB_ID, "plain"), encoding="utf-8")
    (folder / "templates.json").write_text(blocks("json")[0], encoding="utf-8")
    texts = [world.caption(pair, code) for pair in pairs for code in ("en", "de", "ja")]
    sizes = TinyModelConfig(image_size=32, vision_layers=1, text_layers=1, vocab_size=600)
    model, processor = build_tiny_model(sizes, texts)
    model.backbone.save_pretrained(folder / "plain")
    processor.inner.save_pretrained(folder / "plain")


def test_guide_shows_the_whole_way() -> None:
    shown = [shlex.split(line)[1] for line in commands()]

    assert list(dict.fromkeys(shown)) == [
        "corpus", "contrast", "distill", "evaluate", "report", "release", "verify", "encode",
    ]  # fmt: skip
    assert all(line.startswith("xvlm2vec ") for line in commands())


@pytest.mark.slow
def test_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XVLM2VEC_TRACEBACK", "1")

    for line in commands():
        words = shlex.split(line.replace(HUB_ID, "plain"))[1:]
        few = ["--languages", "en,sw"] if "emoji-languages" in words else []  # all have 140,000 rows
        assert main([*words, *few]) == 0, line
    for block in blocks("python"):
        exec(block, {})

    report = json.loads(Path("data/bad-rows.json").read_text(encoding="utf-8"))
    assert report["kept"] == ROWS + 1
    assert [row["problem"] for row in report["bad_rows"]] == ["there is no file images/birds/none.jpg"]
    scored = json.loads(Path("scores/student/results.json").read_text(encoding="utf-8"))["rows"]
    assert {(row["task"], row["language"], row["n"]) for row in scored} == {
        (task, code, 40) for task in ("t2i", "i2t") for code in ("en", "de", "ja")
    }
    assert " -> " in Path("report.md").read_text(encoding="utf-8")
    card = Path("release/model/README.md").read_text(encoding="utf-8")
    assert "bird-search" in card
    assert f"{100 * scored[0]['p_at_1']:.1f}" in card
    assert np.load("queries.npy").shape == load_file("rows.safetensors")["embeddings"][:2].shape
    assert Path("release-lora/adapter/adapter_model.safetensors").is_file()
