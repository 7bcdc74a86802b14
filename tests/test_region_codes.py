"""Codes with regions and scripts from a CSV to a card: one form everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from PIL import Image

from xvlm2vec.cli import main
from xvlm2vec.corpus.stored import load_parallel
from xvlm2vec.eval.benchmarks.reading import read_benchmark
from xvlm2vec.hub.card import ReleaseCard, card_data
from xvlm2vec.hub.space import read_gallery
from xvlm2vec.trainer.language_sampling import language_sampler

HEADER = ("pt-BR", "zh-Hans", "sr-Latn", "zh_TW")
CODES = ("pt-BR", "zh-Hans", "sr-Latn", "zh-TW")
MODEL = """
import numpy as np

fingerprint = "1"


def embed(texts, images):
    vectors = np.zeros((len(texts), 8))
    for vector, text, image in zip(vectors, texts, images):
        place = image.getpixel((0, 0))[0] // 20 if image is not None else int(text.split()[-1])
        vector[place] = 1
    return vectors
"""


def test_region_and_script_codes_work_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["image,en," + ",".join(HEADER)]
    for number in range(8):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(f"{number}.png")
        lines.append(f"{number}.png,text {number}," + ",".join(f"{code} {number}" for code in HEADER))
    Path("texts.csv").write_text("\n".join(lines), encoding="utf-8")

    assert main(["corpus", "csv", "texts.csv", "--images", ".", "--output", "data", "--test-rows", "4"]) == 0
    assert main(["corpus", "check", "data/parallel"]) == 0
    assert "normal form" not in capsys.readouterr().out
    rows = load_parallel("data/parallel")
    assert [item["lang"] for item in rows[0]["translations"]] == list(CODES)
    sampler = language_sampler(rows, 2.0)
    assert sampler is not None
    assert set(sampler.counts) == set(CODES)

    folder = Path("data/benchmark")
    assert {path.stem for path in (folder / "t2i").iterdir()} == {"en", *(code.replace("-", "_") for code in CODES)}
    assert len(load_dataset(str(folder.resolve()), "t2i", split="pt_BR", cache_dir="cache")) == 4
    metadata = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert metadata["language"] == ["en", "pt", "zh", "sr"]
    assert metadata["language_bcp47"] == list(CODES)
    assert set(read_gallery(folder)[0]["captions"]) == {"en", *CODES}
    assert [task.language for task in read_benchmark("folder", folder, tasks=["t2i"], languages=["pt_br", "zh"])] == [
        "pt-BR", "zh-Hans", "zh-TW",
    ]  # fmt: skip

    Path("model.py").write_text(MODEL, encoding="utf-8")
    command = ["evaluate", "model:embed", "--benchmark", "folder", "--data", "data/benchmark", "--output", "scores"]
    assert main([*command, "--languages", "en,pt-br,zh_Hans,sr-Latn,zh-TW", "--templates", "none"]) == 0
    results = json.loads(Path("scores/results.json").read_text(encoding="utf-8"))
    assert {row["language"] for row in results["rows"]} == {"en", *CODES}
    assert main(["report", "scores", "--html", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    for name in ("Portuguese (Brazil)", "Chinese (simplified)", "Serbian (Latin script)", "Chinese (Taiwan)"):
        assert name in page
    card = card_data(ReleaseCard(name="x", description="y", languages=("en", *CODES))).to_dict()
    assert (card["language"], card["language_bcp47"]) == (["en", "pt", "zh", "sr"], list(CODES))
