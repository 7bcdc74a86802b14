"""The quickstart: the real command, real training, real files, interrupted as people interrupt it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from xvlm2vec.cli import main
from xvlm2vec.common.run_state import RunState, RunStateError, peak_memory_mb
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.quickstart.config import QuickstartConfig, Sizes, languages_of
from xvlm2vec.quickstart.run_folder import RunFolder, make_world

# A run of seconds: the same code with hardly any training.
SECONDS = Sizes(
    concepts=40,
    image_size=32,
    layers=1,
    vocab_size=1_200,
    lessons=((30, {"c": 1.0}), (10, {"c": 0.2, "i2t": 0.2, "t2i": 0.2, "vqa": 0.2, "vg": 0.2})),
    teacher_batch=16,
    distill_steps=30,
    distill_batch=8,
    translations_per_row=1,
    test_rows=40,
)
SCRIPT = """
import sys
from xvlm2vec.flags import console
from xvlm2vec.quickstart import stages
from xvlm2vec.quickstart.config import QuickstartConfig, Sizes
from xvlm2vec.quickstart.run import run_quickstart
stages.SAVE_STEPS = 5
console.set_up()
sizes = Sizes(**eval(sys.argv[2]))
run_quickstart(QuickstartConfig(sys.argv[1], languages=("de",), lora="lora" in sys.argv, sizes=sizes))
"""


def start(folder: Path, *flags: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder), repr(vars(SECONDS)), *flags]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )  # type: ignore[call-overload]


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(2_000):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    assert path.exists(), process.communicate()[0]


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_small_run_makes_an_english_model_multilingual(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "xvlm2vec", "quickstart", "--small", "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = report(folder)
    assert found["trained_languages"] == ["de", "ja"]
    assert found["control_languages"] == ["ko"]
    scores = found["scores"]
    for model in ("teacher", "student"):
        assert set(scores[model]) == {"c", "i2t", "t2i", "vqa", "vg"}
        for by_language in scores[model].values():
            assert set(by_language) == {"en", "de", "ja", "ko"}
            for score in by_language.values():
                assert score["ci95"][0] <= score["p_at_1"] <= score["ci95"][1]
                assert score["n"] > 20
    for language in ("de", "ja"):
        assert scores["teacher"]["c"][language]["p_at_1"] < 0.3
        assert scores["student"]["c"][language]["p_at_1"] > scores["student"]["c"]["en"]["p_at_1"] - 0.1
    assert scores["student"]["c"]["ko"]["p_at_1"] < 0.3
    assert scores["student"]["c"]["en"]["p_at_1"] > scores["teacher"]["c"]["en"]["p_at_1"] - 0.05
    assert set(found["seconds"]) == {
        "world", "teacher", "teacher scores", "student", "student scores", "release", "report",
    }  # fmt: skip
    assert found["peak_rss_mb"] > 100
    for path in (found["release"]["model"], found["release"]["dataset"], "report.html", "before-after.svg"):
        assert (folder / path).exists(), path
    assert found["release"]["adapter"] is None
    proof = json.loads((folder / "verification.json").read_text(encoding="utf-8"))
    assert proof["ok"]
    assert {check["loader"] for check in proof["checks"]} == {"automodel", "sentence-transformers"}
    assert first_lines_of_the_readme(folder, tmp_path) == "['sailboat', 'dolphin', 'rooster']"


def first_lines_of_the_readme(run: Path, place: Path) -> str:
    """What the front page's first Python lines print below a folder in which its first commands were run."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lines = text.split("```python\n")[1].split("```")[0]
    (place / "runs").mkdir()
    shutil.copytree(run, place / "runs" / "quickstart")
    done = subprocess.run([sys.executable, "-c", lines], cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole))
    for landmark in ("teacher/checkpoints/checkpoint-20", "student/checkpoints/checkpoint-10"):
        process = start(broken)
        wait_for(broken / landmark / "trainer_state.json", process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (broken / "report.json").exists()
    finish(start(broken))
    assert report(broken)["scores"] == report(whole)["scores"]
    for name in ("teacher", "student"):
        weights = [(folder / name / "model.safetensors").read_bytes() for folder in (whole, broken)]
        assert weights[0] == weights[1], f"{name}: other weights after the interruption"
    assert not (broken / "teacher" / "checkpoints").exists()


@pytest.mark.slow
def test_an_adapter_is_released_beside_its_base_and_moves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finish(start(folder, "lora"))
    found = report(folder)
    scores = found["scores"]
    for task in scores["teacher"]:
        assert scores["student"][task]["en"] == scores["teacher"][task]["en"]
    folder.rename(tmp_path / "moved")
    release = tmp_path / "moved" / found["release"]["model"]
    teacher = XVLM2VecModel.from_pretrained(tmp_path / "moved" / "teacher")
    loaded = SentenceTransformer(str(release), trust_remote_code=True, device="cpu")
    texts = ["a dog", "rain"]
    np.testing.assert_array_equal(loaded[0].model.encode(texts), teacher.encode(texts))
    assert np.abs(loaded.encode(texts, language="de") - loaded.encode(texts)).max() > 1e-4
    assert "zero drift" in (release / "README.md").read_text(encoding="utf-8").lower()
    assert RunFolder.open(tmp_path / "moved").load_student()[0].languages == ["de"]
    place = ["release", str(tmp_path / "moved"), "--to", str(tmp_path / "released")]
    assert main(place) == 0
    assert (tmp_path / "released" / "model" / "adapters.json").is_file()


@pytest.mark.slow
def test_a_full_disk_keeps_the_stages_before(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    limit = 300_000  # bytes that one file may have: enough for settings, too little for weights
    process = start(folder, preexec_fn=lambda: _limit_file_size(limit))
    output, _ = process.communicate(timeout=400)
    assert process.returncode != 0
    assert "world" in output
    assert "the same command goes on" in output
    assert json.loads((folder / "state.json").read_text(encoding="utf-8"))["stages"] == {}
    finish(start(folder))
    assert (folder / "report.json").is_file()


def _limit_file_size(limit: int) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with an error instead of killing the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.parametrize(("flags", "told"), [(["--languages", "de,xx"], "xx"), (["--languages", "en"], "English")])
def test_wrong_languages_are_named(tmp_path: Path, flags: list[str], told: str) -> None:
    command = [sys.executable, "-m", "xvlm2vec", "quickstart", "--output", str(tmp_path / "run"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_languages_may_be_separated_by_commas_or_spaces() -> None:
    assert languages_of(["de,fr", "ja"]) == ("de", "fr", "ja")
    assert languages_of("de, fr") == ("de", "fr")


def test_a_control_that_is_taught_is_no_control() -> None:
    world = make_world(QuickstartConfig("unused", languages=("tr", "de"), sizes=SECONDS))
    assert world.config.taught_languages == ("tr", "de")
    assert world.config.control_languages == ("ko",)


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    RunState(tmp_path / "run", {"seed": 0, "lora": False})
    with pytest.raises(RunStateError, match="seed: there 0, now 1"):
        RunState(tmp_path / "run", {"seed": 1, "lora": False})


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(RunStateError, match="pass another --output"):
        RunState(tmp_path, {"seed": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    RunState(tmp_path, {"seed": 0})
    (tmp_path / "state.json").write_text("{half")
    with pytest.raises(RunStateError, match="damaged"):
        RunState(tmp_path, {"seed": 0})


def test_too_little_room_is_told_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(RunStateError, match="make room"):
        RunState(tmp_path, {"seed": 0}, needs_mb=10**9)


def test_a_stage_runs_once(tmp_path: Path) -> None:
    ran: list[str] = []
    for _ in range(2):
        state = RunState(tmp_path, {"seed": 0})
        state.run("first", lambda: ran.append("first"))
    assert ran == ["first"]
    assert set(state.seconds) == {"first"}


def test_memory_of_an_interrupted_run_counts(tmp_path: Path) -> None:
    RunState(tmp_path, {"seed": 0}).run("first", lambda: None)
    path = tmp_path / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    assert state["stages"]["first"]["peak_rss_mb"] > 10
    state["stages"]["first"]["peak_rss_mb"] = 10**6  # as by a process that is gone
    path.write_text(json.dumps(state), encoding="utf-8")
    assert RunState(tmp_path, {"seed": 0}).peak_rss_mb == 10**6


@pytest.mark.parametrize(("platform", "largest"), [("linux", 2_048 * 1024), ("darwin", 2_048 * 1_000_000)])
def test_memory_is_told_in_megabytes_on_every_system(
    platform: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux tells kilobytes, macOS bytes."""
    import resource
    from types import SimpleNamespace

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=largest))
    assert peak_memory_mb() == 2_048


def test_windows_tells_its_peak_through_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import psutil

    monkeypatch.setattr(sys, "platform", "win32")
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=2_048_000_000))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    assert peak_memory_mb() == 2_048


def test_a_run_says_at_once_what_it_does_and_how_long(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "xvlm2vec", "quickstart", "--small", "--output", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert "teaches it English, distils it into de, ja" in lines[0]
    assert re.match(r"About \d+ minutes on this machine", lines[1])
    assert "the same command goes on" in lines[2]
