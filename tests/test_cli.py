"""The command line: help that is quick and teaches, exit codes, errors that name file and row, runs that go on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from xvlm2vec.cli import COMMANDS, main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.readers.layouts import LAYOUTS

SMALL_EMOJI = ("--concepts", "64", "--image-size", "32", "--languages", "de,ja", "--rows", "64", "--test-rows", "8")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    texts = ["a dog and a cat", "ein Hund und eine Katze", "猫と犬"]
    made, processor = build_tiny_model(
        TinyModelConfig(image_size=32, vision_layers=1, text_layers=1, vocab_size=400), texts
    )
    made.config.prompts = {"query": "Find: "}
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "emoji"
    assert main(["corpus", "emoji", *SMALL_EMOJI, "--output", str(folder)]) == 0
    return folder


def call(*arguments: object) -> int:
    """The exit code of a command, also where argparse ends it."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from xvlm2vec.cli import main; sys.argv = ['xvlm2vec']\ntry: main(['--help'])\n"
    code += "finally: assert not {'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules), 'heavy imports'"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert all(name in child.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        *(f"cache {action}" for action in ("ls", "rm", "prune")),
        *(f"corpus {kind}" for kind in ("csv", "jsonl", "emoji", "check", "contamination", "build-emoji", "read")),
        *(f"corpus read {name}" for name in LAYOUTS),
    ],
)
def test_every_command_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*command.split(), "--help") == 0

    text = capsys.readouterr().out
    assert f"example:\n  xvlm2vec {command.split()[0]}" in text
    entries = re.split(r"\n  (?=-)", text.partition("example:")[0])[1:]
    for entry in entries:  # the flag, two spaces or a new line, and what it does
        assert re.search(r"(  |\n) *[\w`(:{]", entry), f"{command}: nothing is said of {entry}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["corpus", "no-such-kind"],
        ["evaluate", "model"],
        ["evaluate", "model", "--benchmark", "mmmeb", "--output", "x"],
        ["evaluate", "model", "--benchmark", "other", "--output", "x"],
        ["encode", "model", "--output", "x.npy"],
        ["encode", "model", "--text", "x.txt", "--output", "x.txt"],
        ["release", "model", "--to", "./folder", "--private"],
        ["contrast", "--model", "m", "--data", "d"],
        ["contrast", "--model", "m", "--data", "d", "--output", "o", "--num-train-epochs", "many"],
        ["distill", "--model", "m", "--data", "d", "--output", "o", "--no-such-flag", "1"],
        ["distill", "--config", "no-such-file.yaml"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "no-such-folder"], "no results file no-such-folder"),
        (["corpus", "check", "./none"], "no folder or file ./none"),
        (["corpus", "csv", "none.csv", "--output", "out"], "no file none.csv"),
        (["corpus", "jsonl", "none.jsonl", "--output", "out"], "no file none.jsonl"),
        (["corpus", "emoji", "--languages", "xx", "--output", "out"], "Unknown language code 'xx'"),
        (["corpus", "build-emoji", "none.ttf"], "none.ttf"),
        (["encode", "./none", "--text", "none.txt", "--output", "x.npy"], "no file none.txt"),
        (["verify", "./none"], "no folder ./none"),
        (["release", "./none", "--to", "./out"], "no folder ./none"),
        (["release", "./none", "--to", "user/model", "--dry-run"], "no folder ./none"),
        (["evaluate", "m", "--benchmark", "folder", "--data", "./none", "--output", "out"], "no folder ./none"),
        (["distill", "--model", "./m", "--data", "./none", "--output", "out"], "no folder or file ./none"),
        (["distill", "--model", "./m", "--data", "d", "--output", "o", "--lora-rank", "4"], "without --lora"),
        (["distill", "--model", "./m", "--data", "d", "--output", "o", "--keep-best"], "pass --eval-data, too"),
    ],
)
def test_failures_are_1_and_say_why(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert call(*arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_corpus_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xvlm2vec.corpus.stored import load_parallel
    from xvlm2vec.corpus.stored_pairs import load_pairs

    (tmp_path / "images").mkdir()
    lines = ["image,en,de"]
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
        lines.append(f"{number}.png,text {number},Text {number}")
    (tmp_path / "texts.csv").write_text("\n".join([*lines, "none.png,a,b", ",word,Wort"]) + "\n")
    command = ["corpus", "csv", tmp_path / "texts.csv", "--images", tmp_path / "images", "--output", tmp_path / "out"]

    assert call(*command, "--test-rows", 4) == 0

    report = json.loads((tmp_path / "out" / "bad-rows.json").read_text())
    assert [(row["line"], row["kind"]) for row in report["bad_rows"]] == [(14, "missing image")]
    assert len(load_parallel(tmp_path / "out" / "parallel")) == 2 * 8 + 1
    assert len(load_pairs(tmp_path / "out" / "pairs")) == 8
    assert (tmp_path / "out" / "benchmark" / "t2i" / "de.parquet").is_file()
    assert call("corpus", "check", tmp_path / "out" / "parallel") == 0
    assert "can be used" in capsys.readouterr().out
    assert call(*command, "--test-rows", 4) == 0  # again: nothing left to do
    assert call(*command, "--test-rows", 5) == 1
    assert "holds another run (test_rows: there 4, now 5)" in capsys.readouterr().err


def test_corpus_csv_without_a_good_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.csv").write_text("en,de\n,a\n")

    assert call("corpus", "csv", tmp_path / "texts.csv", "--output", tmp_path / "out") == 1
    assert "has no row that can be used: line 2: the English text is empty" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_corpus_csv_in_english(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from xvlm2vec.corpus.stored import load_parallel
    from xvlm2vec.corpus.stored_pairs import load_pairs

    for number in range(4):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    lines = ["image,en", *(f"{number}.png,text {number}" for number in range(4)), ",word"]
    (tmp_path / "texts.csv").write_text("\n".join(lines) + "\n")
    command = ["corpus", "csv", tmp_path / "texts.csv", "--images", tmp_path, "--output", tmp_path / "out"]

    assert call(*command, "--test-rows", 2) == 0

    assert "`xvlm2vec translate`" in caplog.text
    parallel = load_parallel(tmp_path / "out" / "parallel")
    assert [row["translations"] for row in parallel] == [[]] * 5
    assert len(load_pairs(tmp_path / "out" / "pairs")) == 2
    assert (tmp_path / "out" / "benchmark" / "t2i" / "en.parquet").is_file()


def test_corpus_jsonl(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    from xvlm2vec.corpus.stored import load_parallel

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    rows = [("a cat", "un gatto", "it", "red.png"), ("a cat", "ein Kater", "de", "red.png"), ("a dog", "", "de", None)]
    lines = [json.dumps(dict(zip(("text_en", "text", "code", "image"), row, strict=True))) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, "{"]) + "\n")
    command = ["corpus", "jsonl", tmp_path / "rows.jsonl", "--language-field", "code", "--output", tmp_path / "out"]

    assert call(*command, "--images", tmp_path) == 0

    assert f"{tmp_path / 'rows.jsonl'}, line 3: the translation is empty" in caplog.text
    assert "1 rows in en, it, de (1 with an image); 2 lines left out" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "bad-rows.json").read_text())
    assert [(row["line"], row["kind"]) for row in report["bad_rows"]] == [(3, "empty translation"), (4, "no JSON")]
    (row,) = load_parallel(tmp_path / "out" / "parallel")
    assert [item["lang"] for item in row["translations"]] == ["it", "de"]
    assert row["source"] == "rows"
    assert call(*command, "--images", tmp_path) == 0  # again: nothing left to do
    assert call(*command) == 1  # the image has no folder now
    assert "line 1: the image 'red.png' lies somewhere" in capsys.readouterr().err


def test_corpus_check_fails_on_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datasets import Dataset

    from xvlm2vec.corpus.schema import parallel_features

    row = {"id": "a", "image": None, "text_en": "", "translations": [{"lang": "de", "text": "b"}], "source": "s"}
    Dataset.from_list([row], features=parallel_features()).save_to_disk(str(tmp_path / "corpus"))

    assert call("corpus", "check", tmp_path / "corpus") == 1
    assert "FAULT: Parallel corpus, row 0, column 'text_en'" in capsys.readouterr().out


def test_evaluate_and_report(model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", model, "--benchmark", "emoji", "--data", data / "benchmark", "--languages", "de,en"]

    assert call(*command, "--tasks", "c,t2i", "--output", tmp_path / "scores") == 0

    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert {(row["dataset"], row["task"], row["language"]) for row in results["rows"]} == {
        (dataset, task, code)
        for dataset, task in (("emoji", "c"), ("emoji", "t2i"), ("withheld", "c"))
        for code in ("de", "en")
    }
    assert "de" in capsys.readouterr().out
    shards = sorted((tmp_path / "scores" / "embeddings").rglob("*.npy"))
    assert call(*command, "--tasks", "c", "--output", tmp_path / "scores") == 0
    assert sorted((tmp_path / "scores" / "embeddings").rglob("*.npy")) == shards  # nothing was embedded again
    assert call("report", tmp_path / "scores", tmp_path / "scores", "--output", tmp_path / "report.md") == 0
    assert " -> " in (tmp_path / "report.md").read_text()
    capsys.readouterr()
    assert call("report", tmp_path / "scores", "--yaml") == 0
    assert capsys.readouterr().out.startswith("model-index:")


def test_evaluate_refuses_a_plain_backbone(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from xvlm2vec import XVLM2VecModel

    XVLM2VecModel.from_pretrained(model).backbone.save_pretrained(tmp_path / "plain")
    command = ["evaluate", tmp_path / "plain", "--benchmark", "emoji", "--data", data / "benchmark"]

    assert call(*command, "--tasks", "c", "--output", tmp_path / "scores") == 1
    assert f"`xvlm2vec contrast --model {tmp_path / 'plain'}`" in capsys.readouterr().err


def test_encode(model: str, tmp_path: Path) -> None:
    from xvlm2vec import XVLM2VecModel

    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "red.png").read_bytes()[:50])
    rows = tmp_path / "rows.csv"
    rows.write_text("image,text\nred.png,\n,ein Hund\nbroken.png,x\n,\nred.png,a dog\n,ein Hund\n", encoding="utf-8")

    assert call("encode", model, "--csv", rows, "--output", tmp_path / "v.safetensors") == 1

    vectors = load_file(tmp_path / "v.safetensors")["embeddings"]
    bad = json.loads((tmp_path / "v.safetensors.bad.json").read_text())
    assert [item["row"] for item in bad] == [2, 3]
    assert "broken.png" in bad[0]["problem"]
    assert np.isnan(vectors).all(axis=1).tolist() == [False, False, True, True, False, False]
    red = Image.open(tmp_path / "red.png")
    expected = XVLM2VecModel.from_pretrained(model).encode(text=[None, "ein Hund", "a dog"], images=[red, None, red])
    np.testing.assert_allclose(vectors[[0, 1, 4, 5]], expected[[0, 1, 2, 1]], atol=1e-5)


def test_encode_goes_on_past_rows_that_the_model_refuses(model: str, tmp_path: Path) -> None:
    lines = ["ein Hund", "an image <image> of a dog", "ネコ", "", "an image <image> of a dog"]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")

    assert call("encode", model, "--text", tmp_path / "lines.txt", "--output", tmp_path / "v.npy") == 1

    bad = json.loads((tmp_path / "v.npy.bad.json").read_text())
    assert [item["row"] for item in bad] == [1, 3, 4]
    assert bad[0]["problem"].startswith("the text holds '<image>'")
    assert np.isnan(np.load(tmp_path / "v.npy")).all(axis=1).tolist() == [False, True, False, True, True]
    (tmp_path / "bad.txt").write_text(lines[1], encoding="utf-8")
    assert call("encode", model, "--text", tmp_path / "bad.txt", "--output", tmp_path / "w.npy") == 1
    assert not (tmp_path / "w.npy").exists()


def test_encode_lines_with_a_named_prompt(model: str, tmp_path: Path) -> None:
    (tmp_path / "named.txt").write_text("ein Hund\r\nネコ\n", encoding="utf-8")
    (tmp_path / "written.txt").write_text("Find: ein Hund\nFind: ネコ\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"one\nH\xfcndin\n")

    def encode(name: str, output: str, *flags: str) -> int:
        return call("encode", model, "--text", tmp_path / name, "--output", tmp_path / output, *flags)

    assert encode("named.txt", "a.npy", "--instruction", "query") == 0
    assert encode("written.txt", "b.npy", "--dim", "128") == 0
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"), atol=1e-6)
    assert encode("latin.txt", "c.npy") == 1


def test_training_refuses_other_settings_and_does_nothing_twice(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {model}\ndata: {data / 'pairs'}\noutput: {tmp_path / 'teacher'}\n"
        "per_device_train_batch_size: 32\nlearning_rate: 1e-4\n"
    )

    assert call("contrast", "--config", config, "--train-sampling-strategy", "sequential") == 0

    weights = tmp_path / "teacher" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert not np.array_equal(*(load_file(path)[KEY] for path in (weights, Path(model, "model.safetensors"))))
    assert call("contrast", f"--config={config}", "--no_shuffle", "--save-steps", "7") == 0
    assert weights.stat().st_mtime_ns == written
    assert call("contrast", "--config", config) == 1
    assert "train_sampling_strategy: there 'sequential', now None" in capsys.readouterr().err
    config.write_text(config.read_text() + "no_such_setting: 1\n")
    assert call("contrast", "--config", config) == 2
    assert "no_such_setting" in capsys.readouterr().err
    config.write_text("model: [\n")
    assert call("contrast", "--config", config) == 2


KEY = "backbone.text_model.layers.0.self_attn.q_proj.weight"


def test_models_of_sentence_transformers_embed(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    from xvlm2vec.corpus.emoji.tiny_model import train_tokenizer

    tokenizer = train_tokenizer(["a dog", "ein Hund"], 300)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    other = SentenceTransformer(modules=[Transformer(str(tmp_path / "bert")), Pooling(16)], device="cpu")
    other.save_pretrained(str(tmp_path / "other"), create_model_card=False)
    (tmp_path / "texts.txt").write_text("a dog\nein Hund\n")

    assert call("encode", tmp_path / "other", "--text", tmp_path / "texts.txt", "--output", tmp_path / "v.npy") == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), other.encode(["a dog", "ein Hund"]), atol=1e-5)


def test_hub_ids_without_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "texts.txt").write_text("a dog\n")

    assert call("encode", "no/model", "--text", tmp_path / "texts.txt", "--output", tmp_path / "v.npy") == 1
    assert "no/model is no folder here, and the Hub cannot be reached" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_training_goes_on(model: str, data: Path, tmp_path: Path) -> None:
    def command(output: Path) -> list[str]:
        # Behind its first checkpoint a run must last until the kill, on the quickest machine.
        flags = [
            "--per-device-train-batch-size",
            "16",
            "--num-train-epochs",
            "20",
            "--learning-rate",
            "1e-3",
            "--save-steps",
            "5",
        ]
        return ["contrast", "--model", model, "--data", str(data / "pairs"), "--output", str(output), *flags]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = subprocess.Popen([sys.executable, "-m", "xvlm2vec", *command(killed)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (saved := list(killed.glob("checkpoints/*/trainer_state.json"))) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert saved
    assert not (killed / "model.safetensors").exists()

    assert main(command(killed)) == 0
    assert main(command(whole)) == 0

    first, second = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    for name, tensor in first.items():
        np.testing.assert_allclose(tensor, second[name], atol=1e-4, err_msg=name)


def test_distill_with_an_adapter(
    model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from xvlm2vec.flags.models import load_embedder

    monkeypatch.chdir(Path(model).parent)
    command = ["distill", "--model", "tiny", "--data", data / "parallel", "--output", tmp_path / "student", "--lora"]

    assert call(*command, "--lora-rank", 4, "--max-steps", 2, "--learning-rate", "1e-2") == 0

    settings = json.loads((tmp_path / "student" / "adapter" / "distillation.json").read_text())["settings"]
    assert settings["teacher"] == "cached"
    monkeypatch.chdir(tmp_path)  # the adapter finds its base from any folder
    texts = ["ein Hund", "a cat"]
    alone, merged, base = (
        load_embedder(str(path))[0].encode(text=texts)
        for path in (tmp_path / "student" / "adapter", tmp_path / "student" / "merged", model)
    )
    np.testing.assert_allclose(alone, merged, atol=1e-5)
    assert np.abs(alone - base).max() > 1e-3
    other = ["release", data, "--adapter", tmp_path / "student" / "adapter", "--to", "./out"]
    assert call(*other) == 1
    capsys.readouterr()
    load_embedder(model)[0].save_pretrained(tmp_path / "copy")
    load_embedder(model)[1].save_pretrained(tmp_path / "copy")
    assert call("release", "copy", *other[2:]) == 1
    assert "was trained on" in capsys.readouterr().err


def test_distill_foresees_the_room_for_a_merged_adapter(
    model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = sum(tensor.nbytes for tensor in load_file(Path(model) / "model.safetensors").values())
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=base, used=0, free=base))
    command = ["distill", "--model", model, "--data", data / "parallel", "--output", tmp_path / "student", "--lora"]

    assert call(*command, "--lora-rank", 1, "--max-steps", 1) == 1
    assert "the final model, alone and merged, need room" in capsys.readouterr().err


def test_distill_with_held_out_rows(model: str, data: Path, tmp_path: Path) -> None:
    command = ["distill", "--model", model, "--data", data / "parallel", "--eval-data", data / "parallel"]

    best = ["--max-steps", 2, "--save-steps", 1, "--keep-best"]
    assert call(*command, "--output", tmp_path / "student", *best) == 0
    assert (tmp_path / "student" / "model.safetensors").is_file()
    state = json.loads((tmp_path / "student" / "checkpoints" / "checkpoint-2" / "trainer_state.json").read_text())
    measured = [entry["eval_worst_distance"] for entry in state["log_history"] if "eval_worst_distance" in entry]
    assert len(measured) == 2
    assert state["best_metric"] == min(measured)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("me/model", ("me/model", True)),
        ("hf://me/model", ("me/model", True)),
        ("hf://runs/model", ("runs/model", True)),
        ("./runs/model", ("./runs/model", False)),
        ("out", ("out", False)),
        ("a/b/c", ("a/b/c", False)),
    ],
)
def test_a_place_to_release_to(
    place: str, expected: tuple[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xvlm2vec.commands.release import release_place

    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert release_place(place) == expected


@pytest.mark.parametrize("place", ["runs/new", "runs/old", "hf://a/b/c", "hf://./x"])
def test_a_place_that_may_be_either_is_asked_for(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "old").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert call("release", "./model", "--to", place) == 2
    told = capsys.readouterr().err
    assert f"write ./{place} for the folder, or hf://{place} for the Hub" in told or "is no Hub id" in told


def test_contrast_with_an_adapter_and_held_out_pairs(
    model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from xvlm2vec.flags.models import load_embedder

    monkeypatch.chdir(Path(model).parent)
    command = ["contrast", "--model", "tiny", "--data", data / "pairs", "--output", tmp_path / "teacher", "--lora"]
    flags = ["--lora-rank", 4, "--lora-dora", "--max-steps", 4, "--learning-rate", "1e-2", "--bf16", "false"]
    flags += ["--per-device-train-batch-size", 8, "--gradient-accumulation-steps", 2, "--matryoshka-dims", 64, 128]
    held_out = ["--eval-data", data / "pairs", "--eval-steps", 2]

    assert call(*command, *flags, *held_out) == 0

    assert "On held-out pairs: loss" in caplog.text
    state = json.loads((tmp_path / "teacher/adapter/checkpoints/checkpoint-4/trainer_state.json").read_text())
    assert len([entry for entry in state["log_history"] if "eval_loss" in entry]) == 2
    assert json.loads((tmp_path / "teacher" / "merged" / "config.json").read_text())["matryoshka_dims"] == [128, 64]
    monkeypatch.chdir(tmp_path)
    alone, merged, base = (
        load_embedder(str(path))[0].encode(text=["a dog", "a cat"])
        for path in (tmp_path / "teacher" / "adapter", tmp_path / "teacher" / "merged", model)
    )
    np.testing.assert_allclose(alone, merged, atol=1e-5)
    assert np.abs(alone - base).max() > 1e-3
    stages = json.loads((tmp_path / "teacher" / "state.json").read_text())["stages"]
    assert stages.keys() == {"training", "merging"}


def test_a_run_of_an_earlier_version_goes_on(model: str, data: Path, tmp_path: Path) -> None:
    flags = ["--max-steps", 1, "--learning-rate", "1e-4"]
    command = ["contrast", "--model", model, "--data", data / "pairs", "--output", tmp_path / "run", *flags]
    assert call(*command, "--per-device-train-batch-size", 16, "--train-sampling-strategy", "sequential") == 0
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    settings = state["settings"]
    del settings["train_sampling_strategy"]
    settings |= {"batch_size": settings.pop("per_device_train_batch_size"), "shuffle": False}
    settings["data"] = settings["data"][0]  # earlier versions had one data set
    (tmp_path / "run" / "state.json").write_text(json.dumps(state))
    assert call(*command, "--per-device-train-batch-size", 16, "--train-sampling-strategy", "sequential") == 0
    assert call(*command, "--batch-size", 16, "--no-shuffle") == 0
    assert call(*command, "--batch-size", 8, "--no-shuffle") == 1


def test_dry_release_writes_nothing(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("release", model, "--to", tmp_path / "out", "--languages", "english", "--dry-run") == 2
    assert "'english' is no code of a language; did you mean 'en'?" in capsys.readouterr().err

    card = ["--name", "my-model", "--languages", "en,pt-BR", "--license", "Apache-2.0"]
    assert call("release", model, "--to", tmp_path / "out", *card, "--dry-run") == 0

    text = capsys.readouterr().out
    assert f"{tmp_path / 'out'}/model/model.safetensors" in text
    assert "# my-model" in text
    assert "'Apache-2.0' is not on the Hub's list; did you mean 'apache-2.0'?" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_verify(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "released"
    assert call("release", model, "--to", folder, "--name", "my-model") == 0
    weights = folder / "model" / "model.safetensors"
    tensors = load_file(weights)
    tensors[KEY] = tensors[KEY] + 0.1
    save_file(tensors, weights, metadata={"format": "pt"})
    capsys.readouterr()

    assert call("verify", folder / "model", "--dtypes", "float32", "--loaders", "automodel") == 1
    assert "DOES NOT give its golden vectors" in capsys.readouterr().out
    assert call("verify", "--write", folder / "model") == 0
    assert call("verify", folder / "model", "--dtypes", "float32", "--loaders", "automodel") == 0


def test_a_terminal_that_lacks_a_script_shows_marks(tmp_path: Path) -> None:
    """As the console of Windows does; the command goes on."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "xvlm2vec", "report", str(tmp_path / "日本語")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 1
    assert "???" in done.stderr
    assert "Traceback" not in done.stderr
