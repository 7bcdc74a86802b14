"""`xvlm2vec distill`: augmentation, streams, plans, number formats, and two processes that end with one model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.schema import parallel_features

TINY = TinyModelConfig(
    image_size=16, patch_size=4, hidden_size=32, vision_layers=1, text_layers=2, heads=2, intermediate_size=48,
    vocab_size=400,
)  # fmt: skip
TEXTS = [
    ("a red dog", "ein roter Hund", "un cane rosso"),
    ("two dogs in the park", "zwei Hunde im Park", "due cani nel parco"),
    ("rain over the sea", "Regen über dem Meer", "pioggia sul mare"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    made, processor = build_tiny_model(TINY, [text for texts in TEXTS for text in texts])
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "parallel"
    rows = [
        {
            "id": f"row-{number}",
            "image": None,
            "text_en": f"{english}, {number}",
            "translations": [{"lang": "de", "text": german}, {"lang": "it", "text": italian}],
            "source": "test",
        }
        for number in range(12)
        for english, german, italian in [TEXTS[number % 3]]
    ]
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def with_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "imaged"
    rows = [
        {
            "id": f"row-{number}",
            "image": Image.new("RGB", (16, 16), (20 * number, 90, 200 - 20 * number)),
            "text_en": TEXTS[number % 3][0],
            "translations": [{"lang": "de", "text": TEXTS[number % 3][1]}],
            "source": "test",
        }
        for number in range(6)
    ]
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(str(folder))
    return str(folder)


@pytest.fixture
def lexicon(tmp_path: Path) -> str:
    path = tmp_path / "words.csv"
    path.write_text("en,de,it\ndog,Hund,cane\ndogs,Hunde,cani\nsea,Meer,mare\n", encoding="utf-8")
    return str(path)


def call(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def log_of(folder: Path) -> list[dict[str, float]]:
    """What was logged until the last checkpoint."""
    states = folder.glob("checkpoints/checkpoint-*/trainer_state.json")
    newest = max(states, key=lambda path: int(path.parent.name.rpartition("-")[2]))
    return json.loads(newest.read_text(encoding="utf-8"))["log_history"]


def settings(model: str, data: str, output: Path, *more: object) -> list[object]:
    quiet = ["--use-cpu", "--logging-steps", 1, "--save-steps", 1, "--learning-rate", "1e-3"]
    store = ["--teacher-store", output.parent / "store", "--per-device-train-batch-size", 4]
    return ["distill", "--model", model, "--data", data, "--output", output, *quiet, *store, *more]


def test_code_switched_texts_are_one_more_translation(model: str, data: str, lexicon: str, tmp_path: Path) -> None:
    switching = ["--code-switching", 1.0, "--lexicon", lexicon, "--max-steps", 2]
    assert call(*settings(model, data, tmp_path / "run", *switching)) == 0
    assert all({"distance/mul", "distance/de", "distance/it"} <= set(entry) for entry in log_of(tmp_path / "run")[:2])


def test_a_stream_needs_no_teacher_and_no_length(model: str, data: str, lexicon: str, tmp_path: Path) -> None:
    stream = ["--streaming", "--max-steps", 2, "--code-switching", 0.9, "--lexicon", lexicon]
    assert call(*settings(model, data, tmp_path / "run", *stream)) == 0
    assert json.loads((tmp_path / "run" / "distillation.json").read_text())["settings"]["teacher"] == "copy"
    assert any("distance/mul" in entry for entry in log_of(tmp_path / "run"))


def test_all_weights_are_trained_in_float32_and_a_base_keeps_its_format(model: str, data: str, tmp_path: Path) -> None:
    from xvlm2vec.flags.models import load_embedder

    half, processor = load_embedder(model, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    processor.save_pretrained(tmp_path / "half")
    short = ["--max-steps", 1]
    assert call(*settings(str(tmp_path / "half"), data, tmp_path / "full", *short)) == 0
    kinds = {weight.dtype for weight in load_file(tmp_path / "full" / "model.safetensors").values()}
    assert kinds == {torch.float32}
    assert call(*settings(str(tmp_path / "half"), data, tmp_path / "lora", "--lora", *short)) == 0
    merged = load_file(tmp_path / "lora" / "merged" / "model.safetensors")
    assert {weight.dtype for weight in merged.values()} == {torch.bfloat16}


def test_symile_beside_the_paper_s_loss_and_what_the_summary_tells_of_languages(
    model: str, with_image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    flags = ["--loss", "self-distillation:1,symile:0.1", "--max-steps", 3, "--bf16", "false"]
    assert call(*settings(model, with_image, tmp_path / "run", *flags, "--eval-data", with_image)) == 0
    steps = [entry for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert len(steps) == 3
    for step in steps:
        assert step["loss/symile"] > 0
        assert step["loss"] == pytest.approx(step["loss/self-distillation"] + 0.1 * step["loss/symile"], rel=1e-3)
    summary = json.loads((tmp_path / "run" / "distillation.json").read_text())
    assert "2411.01053" in summary["loss"]["citation"]
    assert summary["languages"]["de"]["rows"] == 10  # batches of 4 and 2 of the six rows, and 4 of the next epoch
    assert f"Translations seen: de 10 of {summary['languages']['de']['tokens']} tokens" in caplog.text
    held_out = summary["held_out"]
    assert held_out.keys() == {"loss", "english_drift", "distance/de", "worst_distance"}
    assert f"English drift {held_out['english_drift']:.4f}, worst language" in caplog.text


def test_a_row_for_each_language_becomes_one_row(
    model: str, with_image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = Dataset.load_from_disk(with_image)
    apart = [
        {**row, "id": f"{row['id']}-{item['lang']}", "translations": [item]}
        for row in corpus
        for item in (*row["translations"], {"lang": "it", "text": "un cane"})
    ]
    Dataset.from_list(apart, features=parallel_features()).save_to_disk(str(tmp_path / "apart"))
    assert call(*settings(model, str(tmp_path / "apart"), tmp_path / "run", "--max-steps", 2)) == 0
    assert "rows of one English text and image are joined, 12 to 6" in caplog.text


def test_an_adapter_reaches_the_vision_tower_where_it_is_not_frozen(
    model: str, with_image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--max-steps", 2, "--lora", "--lora-dora", "--lora-rank", 2]
    seeing = [*flags, "--freeze-vision", "false"]
    for name, chosen in (("language", flags), ("vision", seeing)):
        assert call(*settings(model, with_image, tmp_path / name, *chosen)) == 0
        adapter = load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        learned = [key for key, weight in adapter.items() if "lora_B" in key and weight.any()]
        assert any("vision_model" in key for key in learned) is (name == "vision")
        assert any("connector" in key for key in learned) is (name == "vision")
    before, language, vision = (
        load_file(folder / "model.safetensors")["backbone.vision_model.encoder.layers.0.mlp.fc1.weight"]
        for folder in (Path(model), tmp_path / "language" / "merged", tmp_path / "vision" / "merged")
    )
    assert torch.equal(language, before)
    assert not torch.equal(vision, before)
    assert (
        json.loads((tmp_path / "vision" / "adapter" / "distillation.json").read_text())["settings"]["freeze_vision"]
        is False
    )
    capsys.readouterr()
    counts = []
    for chosen in (flags, seeing):
        assert call(*settings(model, with_image, tmp_path / "plan", *chosen, "--plan")) == 0
        counts.append(capsys.readouterr().out)
    assert counts[0] != counts[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lexicon", "words.csv"], "--lexicon has no effect without --code-switching"),
        (["--streaming"], "--streaming needs --max-steps"),
        (["--streaming", "--max-steps", "2", "--teacher", "cached"], "use --teacher adapter-off (with --lora) or"),
        (["--lora-4bit"], "--lora-4bit has no effect without --lora"),
        (["--code-switching", "1.5"], "must be above 0 and at most 1"),
        (["--code-switching", "0.5", "--lexicon", "./none.csv"], "no lexicon none.csv"),
    ],
)
def test_flags_that_do_not_go_together_are_named(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert call(*settings(model, data, tmp_path / "run", *flags)) == 1
    assert message in capsys.readouterr().err


def test_a_file_that_asks_for_the_store_is_no_way_to_stream(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("teacher: cached\nmax_steps: 2\n", encoding="utf-8")
    flags = ["--config", recipe, "--streaming"]
    assert call(*settings(model, data, tmp_path / "run", *flags)) == 1
    assert "--teacher copy, or leave --teacher out" in capsys.readouterr().err
    assert call(*settings(model, data, tmp_path / "run", *flags, "--teacher", "copy", "--plan")) == 0


def test_losses_are_chosen_by_name_and_a_run_keeps_them(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("loss: self-distillation:1,language-disentanglement:0.1\nmatryoshka_dims: [8, 16]\n")
    command = settings(model, data, tmp_path / "run", "--config", recipe, "--max-steps", 2)
    assert call(*command) == 0
    loss = json.loads((tmp_path / "run" / "distillation.json").read_text())["loss"]
    assert loss["name"] == "MatryoshkaLoss"
    assert loss["settings"]["dims"] == [32, 16, 8]
    assert loss["settings"]["loss"]["settings"]["language-disentanglement"]["weight"] == 0.1
    assert any("loss/language-disentanglement" in entry for entry in log_of(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["matryoshka_dims"] == [16, 8]
    capsys.readouterr()
    assert call(*command, "--loss", "self-distillation") == 1
    told = capsys.readouterr().err
    assert "holds another run (loss: there 'self-distillation:1,language-disentanglement:0.1', now None)" in told
    assert call(*command, "--matryoshka-dims", 8) == 1
    assert "matryoshka_dims: there [8, 16], now [8]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss", "self-destillation"], "There is no loss called 'self-destillation'"),
        (["--loss", "language-disentanglement", "--language-weight", "0.3"], "language_weight is no setting of"),
        (["--matryoshka-dims", "8", "-4"], "do not fit"),
    ],
)
def test_a_loss_that_cannot_be_is_told_before_the_training(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert call(*settings(model, data, tmp_path / "run", *flags)) in {1, 2}
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_adapter_s_sizes_are_told_by_the_merged_model(model: str, data: str, tmp_path: Path) -> None:
    flags = ["--lora", "--lora-rank", 2, "--matryoshka-dims", 8, "--max-steps", 1]
    assert call(*settings(model, data, tmp_path / "run", *flags)) == 0
    assert json.loads((tmp_path / "run" / "merged" / "config.json").read_text())["matryoshka_dims"] == [8]


def test_help_names_where_a_run_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("distill", "--help") == 0
    assert "--report-to" in capsys.readouterr().out


def test_four_bits_need_a_gpu(model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--lora", "--lora-4bit"]
    if not torch.cuda.is_available():
        assert call(*settings(model, data, tmp_path / "run", *flags)) == 1
        assert "needs a CUDA GPU" in capsys.readouterr().err
    assert call(*settings(model, data, tmp_path / "run", *flags, "--plan")) == 0
    assert not (tmp_path / "run").exists()


def test_a_plan_tells_the_whole_run(model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*settings(model, data, tmp_path / "run", "--plan", "--teacher", "copy")) == 0
    text = capsys.readouterr().out
    for name in ("weights", "gradients", "optimizer states", "activations", "teacher", "gathered weights", "in all"):
        assert f"\n{name} " in text
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--lora", "--freeze-vision", "false"]], ids=["all weights", "adapter"])
def test_the_command_goes_on_with_the_same_bits_after_a_kill(
    model: str, with_image: str, tmp_path: Path, more: list[str]
) -> None:
    flags = ["--max-steps", 30, "--save-steps", 3, "--save-total-limit", 2, "--logging-steps", 1, *more]
    killed = settings(model, with_image, tmp_path / "killed", *flags)
    command = [sys.executable, "-m", "xvlm2vec", *map(str, killed)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed" / ("adapter" if more else ".") / "checkpoints"
    while not any(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not list((tmp_path / "killed").glob("**/distillation.json"))  # it was not through
    for words in (
        command,
        [sys.executable, "-m", "xvlm2vec", *map(str, settings(model, with_image, tmp_path / "whole", *flags))],
    ):
        subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    logs = [log_of(tmp_path / name / ("adapter" if more else ".")) for name in ("killed", "whole")]
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 30
    place = Path("merged" if more else ".") / "model.safetensors"
    resumed, whole = (load_file(tmp_path / name / place) for name in ("killed", "whole"))
    for name, weight in whole.items():
        assert torch.equal(resumed[name], weight), name


def launch(config: str, words: list[object]) -> str:
    """What two processes print."""
    root = Path(__file__).parents[2]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", port]
    command += ["--config_file", f"{root}/configs/accelerate/{config}.yaml", "-m", "xvlm2vec"]
    child = subprocess.run(
        [*command, *map(str, words)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    return child.stdout + child.stderr


@pytest.mark.slow
def test_two_processes_that_were_killed_at_their_end_are_through_at_the_next_start(
    model: str, data: str, tmp_path: Path
) -> None:
    flags = ["--max-steps", 2, "--bf16", "false", "--eval-data", data, "--per-device-train-batch-size", 2]
    words = settings(model, data, tmp_path / "run", *flags)
    assert "English drift" in launch("fsdp2", words)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "model.safetensors").unlink()
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    (tmp_path / "run" / "state.json").write_text(json.dumps({**state, "stages": {}}))
    assert "not measured once more" in launch("fsdp2", words)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp", "fsdp2"])
def test_two_processes_write_one_model(model: str, data: str, tmp_path: Path, config: str) -> None:
    flags = ["--max-steps", 3, "--optim", "sgd", "--learning-rate", 0.1, "--lora", "--lora-dora", "--lora-rank", 2]
    words = settings(model, data, tmp_path / "two", *flags, "--per-device-train-batch-size", 2)
    assert launch(config, words).count("The trained model is in") == 1
    assert json.loads((tmp_path / "two" / "state.json").read_text())["stages"].keys() == {"training", "merging"}
    assert call(*settings(model, data, tmp_path / "one", *flags)) == 0
    one, two = (load_file(tmp_path / name / "merged" / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-6, msg=name)
