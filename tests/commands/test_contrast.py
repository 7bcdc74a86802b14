"""`xvlm2vec contrast` on several data sets, with a guide."""

import json

import pytest
from datasets import Dataset

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model

WORDS = ("dog", "cat", "bird", "fish", "tree", "house", "river", "cloud")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrast")
    model, processor = build_tiny_model(
        TinyModelConfig(image_size=16, vision_layers=1, text_layers=1, vocab_size=300), [f"a {word}" for word in WORDS]
    )
    model.save_pretrained(folder / "tiny")
    processor.save_pretrained(folder / "tiny")
    rows = [{"qry": f"a {word}", "pos_text": f"the {word}", "neg_text": [WORDS[0]]} for word in WORDS]
    for name in ("first", "second"):
        Dataset.from_list(rows).save_to_disk(str(folder / name))
    rows[3]["pos_text"] = rows[3]["qry"]
    Dataset.from_list(rows).save_to_disk(str(folder / "faulty"))
    return folder


def test_data_sets_in_sub_batches_with_a_guide(work, capsys):
    (work / "run.yaml").write_text(
        f"model: {work / 'tiny'}\ndata: [{work / 'first'}, {work / 'second'}]\noutput: {work / 'out'}\n"
        f"guide: {work / 'tiny'}\nper_device_train_batch_size: 8\nsub_batch_size: 4\nbf16: false\nmax_steps: 2\n"
        "loss: info-nce:1,spreading:0.1\n"
    )
    assert main(["contrast", "--config", str(work / "run.yaml")]) == 0
    state = json.loads((work / "out" / "checkpoints" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    assert list((work / "out" / "guide").glob("*/*.npy"))
    assert (work / "out" / "model.safetensors").is_file()
    assert main(["contrast", "--config", str(work / "run.yaml"), "--temperature", "0.1"]) == 1
    assert "temperature: there None, now 0.1" in capsys.readouterr().err


def test_faulty_rows_stop_it_before_anything_is_embedded(work, capsys):
    flags = ["--model", str(work / "tiny"), "--guide", str(work / "tiny"), "--per-device-train-batch-size", "4"]
    data = ["--data", str(work / "first"), str(work / "faulty")]
    assert main(["contrast", *flags, *data, "--output", str(work / "none")]) == 1
    assert "1 of 8 pairs of faulty are faulty: Row 3: query and positive are the same" in capsys.readouterr().err
    assert not (work / "none" / "guide").exists()
    assert main(["contrast", *flags, *data, str(work / "first"), "--output", str(work / "none")]) == 1
    assert "--data names a data set twice" in capsys.readouterr().err
