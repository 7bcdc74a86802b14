"""`xvlm2vec evaluate` as processes: two that share the work, one that is killed and goes on, and what its flags do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model

EMOJI = ("--concepts", "64", "--image-size", "32", "--languages", "de", "--rows", "16", "--test-rows", "24")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    sizes = TinyModelConfig(image_size=32, hidden_size=32, intermediate_size=64, vision_layers=1, text_layers=1,
                            vocab_size=400)  # fmt: skip
    made, processor = build_tiny_model(sizes, ["a dog and a cat", "ein Hund und eine Katze"])
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "emoji"
    assert main(["corpus", "emoji", *EMOJI, "--output", str(folder)]) == 0
    return str(next(path for path in (folder / "benchmark", folder / "test", folder) if (path / "images").is_dir()))


def arguments(model: str, benchmark: str, output: Path) -> list[str]:
    return [
        "evaluate",
        model,
        "--benchmark",
        "folder",
        "--data",
        benchmark,
        "--tasks",
        "t2i,i2t",
        "--output",
        str(output),
    ]


def scores(output: Path) -> list[dict]:
    rows = json.loads((output / "results.json").read_text())["rows"]
    return [{name: row[name] for name in ("task", "language", "n", "ties", "p_at_1", "r_at_5", "mrr")} for row in rows]


@pytest.mark.slow
def test_two_processes_score_like_one(model: str, benchmark: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(arguments(model, benchmark, one)) == 0
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    launch = [sys.executable, "-m", "accelerate.commands.launch", *flags.split(), "--main_process_port", "0"]
    done = subprocess.run(
        [*launch, "-m", "xvlm2vec", *arguments(model, benchmark, two)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    alone, together = (json.loads((output / "results.json").read_text()) for output in (one, two))
    assert (alone["settings"]["processes"], together["settings"]["processes"]) == (1, 2)
    assert scores(one) == scores(two)
    shares = [int(path.name.split("-")[0]) for path in (two / "embeddings").glob("*/*.npy")]
    assert sum(shares) == together["settings"]["distinct_rows"], "nothing is embedded twice, nothing left out"
    assert len(shares) == 2
    assert max(shares) - min(shares) <= 1
    assert done.stdout.count("results.json") == 1, "one process speaks for both"


def test_flags_reach_the_results(model: str, benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Sizes, drift and a shared store, then the refusal of what does not exist."""
    more = ["--dims", "8,16", "--precision", "int8,binary", "--drift-from", model, "--store", str(tmp_path / "store")]
    assert main([*arguments(model, benchmark, tmp_path / "first"), *more]) == 0
    assert "16 float32 (64 bytes)" in capsys.readouterr().out
    content = json.loads((tmp_path / "first" / "results.json").read_text())
    assert [(size["dim"], size["precision"]) for size in content["sizes"]["summary"]] == [
        (16, "float32"), (32, "int8"), (8, "float32"), (16, "int8"), (8, "int8"), (32, "binary"), (16, "binary"),
        (8, "binary"),
    ]  # fmt: skip
    english = [row["alignment"] for row in content["rows"] if row["language"] == "en"]
    assert all(measures["english_drift"] == pytest.approx(1) for measures in english)
    assert len(content["examples"]) >= 12
    assert list((tmp_path / "first" / "images").glob("*.webp"))
    shards = set((tmp_path / "store").glob("*/*.npy"))
    assert main([*arguments(model, benchmark, tmp_path / "second"), "--store", str(tmp_path / "store")]) == 0
    assert set((tmp_path / "store").glob("*/*.npy")) == shards, "the second run embeds nothing"
    assert main([*arguments(model, benchmark, tmp_path / "third"), "--precision", "int4"]) == 1
    assert "unknown precision int4; choose from float32, int8, binary" in capsys.readouterr().err
    assert not (tmp_path / "third" / "results.json").exists()


@pytest.mark.slow
def test_a_killed_evaluation_goes_on(model: str, benchmark: str, tmp_path: Path) -> None:
    """`kill -9` once a first chunk is stored: the second run embeds the rest alone."""
    output = tmp_path / "scores"
    code = (
        "import sys, time; from xvlm2vec.eval import embedding, encoders, runner; from xvlm2vec.cli import main\n"
        "real = encoders.ModelEncoder.encode_rows\n"
        "def slow(self, rows, images):\n    time.sleep(0.3)\n    return real(self, rows, images)\n"
        "encoders.ModelEncoder.encode_rows = slow\n"
        "runner.evaluate.__kwdefaults__['chunk'] = 8\n"
        "embedding._SHARD_SECONDS = 0\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, *arguments(model, benchmark, output)])
    store = output / "embeddings"
    deadline = time.monotonic() + 120
    while len(list(store.glob("*/*.npy"))) < 2 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in store.glob("*/*.npy")}
    assert len(kept) >= 2
    assert not (output / "results.json").exists()
    assert main(arguments(model, benchmark, output)) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    total = json.loads((output / "results.json").read_text())["settings"]["distinct_rows"]
    assert sum(int(path.name.split("-")[0]) for path in store.glob("*/*.npy")) == total
    fresh = tmp_path / "fresh"
    assert main(arguments(model, benchmark, fresh)) == 0
    assert scores(fresh) == scores(output)
