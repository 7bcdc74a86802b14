r"""What an activated adapter learns, against LoRA and full fine-tuning, in the quickstart's world.

    python benchmarks/zero_drift_quality.py runs/quality --seeds 0,1,2 --json benchmarks/results/zero_drift_quality.json

For each seed: the world and English teacher of `xvlm2vec quickstart --seed N`; the same rows, steps and optimiser
for all three ways. Times are processor seconds of the training alone. What is done is not done again. `--small`
takes the quickstart's small world.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from xvlm2vec.common.files import write_json
from xvlm2vec.eval.encoders import ModelEncoder
from xvlm2vec.eval.runner import evaluate
from xvlm2vec.hub.zero_drift import compare_with_base
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.quickstart import stages
from xvlm2vec.quickstart.config import QuickstartConfig
from xvlm2vec.quickstart.run_folder import RunFolder
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import add_adapter, load_adapter
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.progress import StageBar

WAYS = ("full", "lora", "activated")
TASKS = ("c", "i2t", "t2i", "vg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--small", action="store_true", help="the small world")
    parser.add_argument("--beside", default="nothing that was started with it", help="what else the machine did")
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    for seed in map(int, flags.seeds.split(",")):
        config = QuickstartConfig(output=str(flags.output / f"seed{seed}"), small=flags.small, seed=seed)
        make_teacher(config)
        for way in flags.ways.split(","):
            if not results_file(config, way).exists():
                write_json(results_file(config, way), run_way(config, way))
    found = [json.loads(path.read_text("utf-8")) for path in sorted(flags.output.glob("seed*/*-results.json"))]
    summary = summarise([run for run in found if run["way"] in WAYS])
    write_json(flags.json, {"beside": flags.beside, "small": flags.small, "summary": summary, "runs": found})
    print(json.dumps(summary, indent=1))


def make_teacher(config: QuickstartConfig) -> None:
    """The quickstart's first two stages, and the teacher's scores."""
    run = RunFolder(config)
    for stage in (
        ("world", lambda: stages.make_model(run.world, config, run.path("untrained"))),
        ("teacher", lambda: stages.teach_english(run.world, config, run.path("untrained"), run.path("teacher"))),
    ):
        run.state.run(*stage)
    if not results_file(config, "teacher").exists():
        scored = {"way": "teacher", "seed": config.seed, "p_at_1": scores(run, *run.load("teacher"))}
        write_json(results_file(config, "teacher"), scored)


def results_file(config: QuickstartConfig, way: str) -> Path:
    """Where the outcome of a way is kept."""
    return Path(config.output) / f"{way}-results.json"


def run_way(config: QuickstartConfig, way: str) -> dict[str, Any]:
    """Trains in one way and scores what came out."""
    run = RunFolder(config)
    seconds = train(run, replace(config, lora=way != "full"), way)
    model, processor = load_student(run, way)
    result: dict[str, Any] = {"way": way, "seed": config.seed, "training_seconds": seconds}
    if way == "activated":
        drift = compare_with_base(model, run.load("teacher")[0], processor)
        result["zero_drift"] = drift.ok
    return {**result, "p_at_1": scores(run, model, processor)}


def train(run: RunFolder, config: QuickstartConfig, way: str) -> float:
    """Trains and saves; the processor seconds that it took."""
    model, processor = run.load("teacher")
    student: Any = model
    torch.manual_seed(config.seed)  # the adapters' first weights
    if way == "lora":
        student = add_adapter(model, replace(stages.ADAPTER, activated=False))
    elif way == "activated":
        student = add_activated(model, stages.ADAPTER)
    args = stages.distillation_config(config, run.path(way))
    args.teacher = {"full": "copy", "lora": "adapter-off", "activated": "cached"}[way]
    args.save_strategy = "no"  # so that the time is that of the training
    rows = stages.distillation_rows(run.world, config)
    before = time.process_time()
    distill(student, processor, args, rows, callbacks=[StageBar(f"{way} {config.seed}")])
    return round(time.process_time() - before, 1)


def load_student(run: RunFolder, way: str) -> tuple[XVLM2VecModel, Any]:
    """What was saved."""
    teacher, processor = run.load("teacher")
    if way == "lora":
        return load_adapter(teacher, run.path(way)).merge_and_unload(), processor
    if way == "activated":
        return XVLM2VecModel.from_pretrained(run.path(way)), processor
    return run.load(way)


def scores(run: RunFolder, model: XVLM2VecModel, processor: Any) -> dict[str, dict[str, float]]:
    """P@1 in percent of each task in English and every taught language."""
    encoder = ModelEncoder(model, processor, name="student", max_tokens_per_batch=4_096)
    languages = ("en", *run.trained_languages)
    tasks = [
        task
        for task in stages.benchmark_tasks(run.benchmark)
        if task.task in TASKS and task.language in languages and task.dataset == stages.BENCHMARK
    ]
    found = evaluate(encoder, tasks, seed=run.config.seed, chunk=4_096)
    return {
        task: {language: 100 * score for language, score in languages.items()}
        for task, languages in found.scores().items()
    }


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each way: means over tasks and languages, of taught languages and of English, and their spread over seeds."""
    summary: dict[str, Any] = {}
    for way in WAYS:
        mine = [run for run in runs if run["way"] == way]
        if not mine:
            continue
        taught, english = ([mean(run, inside) for run in mine] for inside in (False, True))
        summary[way] = {
            "seeds": [run["seed"] for run in mine],
            "taught": spread(taught),
            "english": spread(english),
            "training_seconds": spread([run["training_seconds"] for run in mine]),
        }
    return summary


def mean(run: dict[str, Any], english: bool) -> float:
    """The mean over tasks of P@1, in English or over the taught languages."""
    values = [
        value for task in TASKS for language, value in run["p_at_1"][task].items() if (language == "en") == english
    ]
    return statistics.mean(values)


def spread(values: list[float]) -> dict[str, Any]:
    """A mean, its standard deviation over seeds, and the values."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 2), "deviation": deviation, "values": [round(v, 2) for v in values]}


if __name__ == "__main__":
    main()
