"""The quickstart's stages on an idle machine, and beside a process that keeps one core busy.

Shapes: `before` trains in bfloat16 wherever the processor has instructions for it, on all threads throughout;
`now` takes the faster number format and, every few seconds, the faster number of threads. Each run is a process of its
own over few steps of each stage; shapes and loads take turns, and medians over the rounds are compared. The neighbour
runs in a session of its own, as a program from another terminal does: Linux shares the processor among sessions.

    python benchmarks/quickstart_busy.py --json benchmarks/results/quickstart_busy.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

SHAPES, LOADS = ("before", "now"), ("idle", "busy")
ROWS = 150  # of each task, in the measuring
DEFAULT_ROWS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--teacher-steps", type=int, default=36)
    parser.add_argument("--student-steps", type=int, default=24)
    parser.add_argument("--neighbour", default=f"{sys.executable} -c 'while True: pass'", help="keeps one core busy")
    parser.add_argument("--shape", choices=SHAPES, help="run one shape's stages here, and print their seconds")
    parser.add_argument("--beside", default="nothing but this script's neighbour", help="what else ran, for the record")
    flags = parser.parse_args()
    if flags.shape:
        print(json.dumps(stages(flags.shape, flags.teacher_steps, flags.student_steps)))
        return
    runs: dict[str, list[dict[str, float]]] = {f"{shape} {load}": [] for shape in SHAPES for load in LOADS}
    for number in range(flags.rounds):
        for load in LOADS:
            for shape in SHAPES:
                runs[f"{shape} {load}"].append(child(shape, load == "busy", flags))
                print(number, shape, load, runs[f"{shape} {load}"][-1], flush=True)
    found = summary(runs) | {"machine": machine(flags.beside), "rounds": flags.rounds, "runs": runs}
    print(json.dumps(found["ratios"], indent=2))
    if flags.json:
        flags.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def child(shape: str, busy: bool, flags: argparse.Namespace) -> dict[str, float]:
    """One run in a process of its own, with or without a neighbour."""
    command = [sys.executable, __file__, "--shape", shape]
    command += ["--teacher-steps", str(flags.teacher_steps), "--student-steps", str(flags.student_steps)]
    neighbour = subprocess.Popen(shlex.split(flags.neighbour), start_new_session=True) if busy else None
    try:
        environment = {**os.environ, "GOMP_SPINCOUNT": "20000"}  # as the command line sets it
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        if neighbour is not None:
            neighbour.kill()
    return json.loads(done.stdout.splitlines()[-1])


def stages(shape: str, teacher_steps: int, student_steps: int) -> dict[str, float]:
    """Seconds of a step of the teacher and of the student, and of measuring the teacher."""
    import torch
    from transformers import TrainerCallback

    from xvlm2vec.quickstart import stages as quickstart_stages
    from xvlm2vec.quickstart.config import DEFAULT, QuickstartConfig
    from xvlm2vec.quickstart.run import stages_of
    from xvlm2vec.quickstart.run_folder import RunFolder
    from xvlm2vec.trainer import precision

    class Clock(TrainerCallback):
        """Times all steps after the first three."""

        def on_step_end(self, args, state, control, **kwargs):  # noqa: ANN001, ANN003, ANN202
            if state.global_step <= 3:
                self.started = time.perf_counter()
            self.seconds = (time.perf_counter() - self.started) / max(state.global_step - 3, 1)

    if shape == "before":
        native = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        precision.bf16_wins = lambda: native and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
        keep_all_threads()
    clock = Clock()
    quickstart_stages.StageBar = lambda title: clock
    lessons = tuple((teacher_steps // 3, mix) for _, mix in DEFAULT.lessons)
    sizes = replace(DEFAULT, lessons=lessons, distill_steps=student_steps, test_rows=ROWS)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(QuickstartConfig(folder, sizes=sizes))
        stage = {name: call for name, _, call in stages_of(run)}
        stage["world"]()
        stage["teacher"]()
        teacher = clock.seconds
        _ = run.benchmark  # made before the clock runs
        started = time.perf_counter()
        stage["teacher scores"]()
        measuring = time.perf_counter() - started
        stage["student"]()
    return {"teacher step": teacher, "student step": clock.seconds, "measuring": measuring}


def keep_all_threads() -> None:
    """Has nobody measure how many threads are fastest."""
    from xvlm2vec.modeling import threads

    threads.ThreadChoice.check = lambda self: None


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Medians of each stage, of the whole default quickstart as far as it trains and measures, and their ratios."""
    from xvlm2vec.quickstart.config import DEFAULT

    medians = {
        name: {stage: statistics.median(run[stage] for run in found) for stage in found[0]}
        for name, found in runs.items()
    }
    steps = {
        "teacher step": sum(count for count, _ in DEFAULT.lessons),
        "student step": DEFAULT.distill_steps,
        "measuring": 2 * DEFAULT_ROWS / ROWS,  # both models
    }
    for found in medians.values():
        found["whole"] = sum(steps[stage] * found[stage] for stage in steps)
    pairs = {
        "busy_over_idle": ("now busy", "now idle"),
        "idle_over_before": ("now idle", "before idle"),
        "busy_over_before": ("now busy", "before busy"),
        "before_busy_over_idle": ("before busy", "before idle"),
    }
    ratios = {
        name: {stage: round(medians[top][stage] / medians[bottom][stage], 3) for stage in medians[top]}
        for name, (top, bottom) in pairs.items()
    }
    rounded = {name: {stage: round(value, 4) for stage, value in found.items()} for name, found in medians.items()}
    return {"ratios": {name: found["whole"] for name, found in ratios.items()}, "by_stage": ratios, "seconds": rounded}


def machine(beside: str) -> dict[str, object]:
    """What it ran on."""
    import torch

    from xvlm2vec.trainer.precision import has_fast_bf16

    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16_instructions": torch.cpu.get_capabilities().get("avx512_bf16", False),
        "bfloat16_faster": has_fast_bf16(),
        "torch": torch.__version__,
        "beside": beside,
    }


if __name__ == "__main__":
    main()
