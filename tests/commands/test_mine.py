"""`xvlm2vec mine`: what it writes is what `contrast` reads, and the same image under two names is no negative."""

import io
import json

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value, load_from_disk
from PIL import Image as PIL

from xvlm2vec.cli import main
from xvlm2vec.common.pair_checks import check_pairs
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.stored_pairs import load_pairs

FEATURES = Features(
    {"qry": Value("string"), "pos_image": Image(), "neg_text": Value("string"), "lang": Value("string")}
)


def encoded(seed, kind):
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.fromarray(pixels).save(file, kind)
    return {"bytes": file.getvalue(), "path": f"{seed}.{kind.lower()}"}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    texts = [f"thing number {index}" for index in range(8)]
    model, processor = build_tiny_model(TinyModelConfig(image_size=16, vision_layers=1, text_layers=1), texts)
    model.save_pretrained(folder / "tiny")
    processor.save_pretrained(folder / "tiny")
    rows = [
        {"qry": text, "pos_image": encoded(index, "PNG"), "neg_text": "no" if index else None, "lang": "en"}
        for index, text in enumerate(texts)
    ]
    rows[5]["pos_image"] = encoded(4, "BMP")  # the image of row 4 under another name and in another format
    Dataset.from_list(rows, features=FEATURES).save_to_disk(str(folder / "pairs"))
    return folder


def test_negatives_are_lists_behind_those_that_were_there_and_contrast_reads_them(work, capsys):
    flags = ["--negatives", "9", "--range-max", "9", "--candidates", "any", "--per-language", "--max-score", "2"]
    command = ["mine", str(work / "tiny"), "--data", str(work / "pairs"), "--output", str(work / "out"), *flags]
    assert main([*command, "--absolute-margin", "0", "--relative-margin", "0"]) == 0
    report = json.loads((work / "out" / "mining.json").read_text())
    assert report["pool"] == 7  # of eight images one is there twice
    mined = load_pairs(work / "out" / "pairs")
    check_pairs(mined)
    pixels = [np.asarray(image).tobytes() for image in mined["pos_image"]]
    found = 0
    for index, row in enumerate(mined):
        texts, images = row["neg_text"], row["neg_image"]
        assert len(texts) == len(images)
        assert (texts[0], images[0]) == ("no", None) if index else "no" not in texts
        shown = [np.asarray(image).tobytes() for image in images if image is not None]
        found += len(shown)
        assert len(set(shown)) == len(shown)
        assert pixels[index] not in shown
    assert found == round(report["negatives_per_pair"] * 8) > 0
    scores = load_from_disk(str(work / "out" / "pairs"))["negative_scores"]
    assert all(list(row) == sorted(row, reverse=True) for row in scores)
    shards = sorted((work / "out" / "embeddings").rglob("*.npy"))
    assert main([*command, "--absolute-margin", "0", "--relative-margin", "0"]) == 0
    assert sorted((work / "out" / "embeddings").rglob("*.npy")) == shards
    assert main(command) == 1
    assert "holds another run (absolute_margin: there 0.0, now None" in capsys.readouterr().err


def test_flags_that_cannot_be_are_usage_errors(work, capsys):
    with pytest.raises(SystemExit):
        main(["mine", "m", "--data", "d", "--output", str(work / "none"), "--negatives", "0"])
    assert "negatives=0 must be at least 1" in capsys.readouterr().err
