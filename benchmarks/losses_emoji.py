r"""What each loss is worth beside InfoNCE, at equal steps, on the quickstart's small world.

    python benchmarks/losses_emoji.py runs/losses --seeds 0,1,2 --json benchmarks/results/losses_emoji.json

For each seed: every loss of `contrast` trains the same untrained model on the same rows; then every loss of `distill`
teaches the model of `info-nce` two languages. One thread. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from xvlm2vec.common.files import write_json
from xvlm2vec.corpus.emoji.training import contrastive_curriculum, parallel_rows
from xvlm2vec.eval.encoders import ModelEncoder
from xvlm2vec.eval.runner import Extras, evaluate
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.quickstart import stages
from xvlm2vec.quickstart.config import SMALL, QuickstartConfig
from xvlm2vec.quickstart.run_folder import RunFolder
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.distillation import SUMMARY_FILE, distill, measure_held_out
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.progress import StageBar

BATCH = 40
LESSONS = ((100, {"c": 1.0}), (40, {"c": 0.1, "i2t": 0.3, "t2i": 0.3, "vg": 0.3}))
DISTILL_STEPS = 40
HELD_OUT = 60
SIZES = replace(
    SMALL, lessons=LESSONS, teacher_batch=BATCH, distill_steps=DISTILL_STEPS, distill_batch=BATCH, test_rows=120
)
SMALL_DIM = 16
BASE = "info-nce"
CONTRAST = {
    BASE: {"loss": "info-nce"},
    "sigmoid": {"loss": "sigmoid"},
    "spreading": {"loss": "info-nce:1,spreading:0.2"},
    "reconstruction": {"loss": "info-nce:1,reconstruction:0.2"},
    "local-global": {"loss": "info-nce:1,local-global:0.2"},
    "matryoshka": {"loss": "info-nce", "matryoshka_dims": [SMALL_DIM]},
}
DISTILL = {
    "multilingual-contrastive": "multilingual-contrastive",
    "self-distillation": "self-distillation",
    "symile": "symile",
    "self-distillation + symile": "self-distillation:1,symile:0.1",
}
TASKS = ("c", "i2t", "t2i", "vg")
QUIET: dict[str, Any] = {
    "save_strategy": "no", "report_to": "none", "use_cpu": True, "bf16": False, "logging_steps": 1_000,
}  # fmt: skip


def main() -> None:
    flags = parse(__doc__)
    for seed in flags.seeds:
        run = RunFolder(QuickstartConfig(str(flags.output / f"seed{seed}"), small=True, seed=seed, sizes=SIZES))
        run.state.run("world", lambda run=run: stages.make_model(run.world, run.config, run.path("untrained")))
        for name, settings in CONTRAST.items():
            once(run, "contrast", name, lambda run=run, name=name, settings=settings: contrast(run, name, settings))
        for name, loss in DISTILL.items():
            once(run, "distill", name, lambda run=run, name=name, loss=loss: teach(run, name, loss))
    found = read(flags.output)
    summary = {
        "contrast": {name: summarise(found, "contrast", name, ("en",)) for name in CONTRAST},
        "distill": {name: summarise(found, "distill", name, ("de", "ja")) for name in DISTILL},
    }
    settings = {"sizes": asdict(SIZES), "contrast": CONTRAST}
    content = {"name": "losses_emoji", "beside": flags.beside, "settings": {**settings, "distill": DISTILL}}
    write_json(flags.json, {**content, "summary": summary, "runs": found})
    print(json.dumps(summary, indent=1))


def parse(description: str | None, **more: str) -> argparse.Namespace:
    """The flags of a benchmark of this kind, and further ones with what they mean; torch then has one thread."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=lambda text: list(map(int, text.split(","))), default=[0, 1, 2])
    parser.add_argument("--beside", default="nothing that was started with it", help="what else the machine did")
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    for name, meaning in more.items():
        parser.add_argument(f"--{name}", required=True, help=meaning)
    torch.set_num_threads(1)
    return parser.parse_args()


def once(run: RunFolder, kind: str, name: str, work: Any) -> None:
    """Does a run whose outcome is not there yet, and keeps it."""
    path = run.path("results") / f"{kind} {name}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"kind": kind, "name": name, "seed": run.config.seed, **work()})


def read(folder: Path) -> list[dict[str, Any]]:
    """The outcomes of all runs."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("seed*/results/*.json"))]


def contrast(run: RunFolder, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains the untrained model with a loss, and scores it in English."""
    output = run.path(f"contrast-{name}")
    rows = contrastive_curriculum(run.world, LESSONS, BATCH, run.config.seed)
    args = contrast_config(output, run.config.seed, **settings)
    before = time.process_time()
    train_contrastive(args, rows, [StageBar(f"{name} {run.config.seed}")], model=str(run.path("untrained")))
    seconds = time.process_time() - before
    found = {"training_seconds": round(seconds, 1), **scores(run, output, ("en",), dims=(SMALL_DIM,))}
    if name != BASE:
        shutil.rmtree(output)
    return found


def contrast_config(output: Path, seed: int, **settings: Any) -> ContrastiveConfig:
    """Settings of a contrastive training on rows in their order."""
    return ContrastiveConfig(
        output_dir=str(output),
        per_device_train_batch_size=BATCH,
        learning_rate=4e-3,
        muon_learning_rate=2e-3,
        train_sampling_strategy="sequential",
        seed=seed,
        **QUIET,
        **settings,
    )


def teach(run: RunFolder, name: str, loss: str, rows: Any = None, **settings: Any) -> dict[str, Any]:
    """Teaches the English model two languages with a loss, and scores them."""
    output, seed = run.path(f"distill-{name}"), run.config.seed
    model, processor = run.load(f"contrast-{BASE}")
    set_seed(run.config.seed)
    args = SelfDistillationConfig(
        output_dir=str(output),
        per_device_train_batch_size=BATCH,
        max_steps=DISTILL_STEPS,
        learning_rate=4e-3,
        muon_learning_rate=2e-3,
        max_grad_norm=2.0,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        teacher="copy",
        seed=run.config.seed,
        loss=loss,
        **QUIET,
        **settings,
    )
    rows = parallel_rows(run.world, rows=DISTILL_STEPS * BATCH, seed=seed) if rows is None else rows
    held_out = parallel_rows(run.world, rows=HELD_OUT, seed=seed, split="validation")
    before = time.process_time()
    trainer = distill(model, processor, args, rows, held_out, callbacks=[StageBar(f"{name} {seed}")])
    seconds = time.process_time() - before
    measure_held_out(trainer, output, "held-out rows")
    found = {"training_seconds": round(seconds, 1), **scores(run, output, ("en", *run.trained_languages))}
    summary = json.loads((output / SUMMARY_FILE).read_text("utf-8"))
    found |= {key: summary[key] for key in ("languages", "held_out")}
    shutil.rmtree(output)
    return found


def scores(run: RunFolder, folder: Path, languages: Sequence[str], dims: Sequence[int] = ()) -> dict[str, Any]:
    """P@1 and nDCG@10 of each task and language, in percent; with `dims` also those of cut vectors."""
    model, processor = XVLM2VecModel.from_pretrained(folder), run.load("untrained")[1]
    encoder = ModelEncoder(model, processor, name=folder.name, max_tokens_per_batch=4_096)
    tasks = [
        task
        for task in stages.benchmark_tasks(run.benchmark)
        if task.task in TASKS and task.language in languages and task.dataset == stages.BENCHMARK
    ]
    found = evaluate(
        encoder, tasks, seed=run.config.seed, chunk=4_096, extras=Extras(alignment=False, causes=False, dims=dims)
    )
    kept = ("task", "language", "n", "p_at_1", "ndcg_at_10")
    sizes = [{key: row[key] for key in (*kept, "dim")} for row in found.sizes]
    return {"scores": [{key: row[key] for key in kept} for row in found.rows], "cut": sizes}


def summarise(found: Sequence[dict[str, Any]], kind: str, name: str, languages: Sequence[str]) -> dict[str, Any]:
    """Means over tasks and languages, in percent, and their spread over seeds."""
    runs = [run for run in found if (run["kind"], run["name"]) == (kind, name)]
    summary = {
        "seeds": [run["seed"] for run in runs],
        "p_at_1": spread([mean(run, "p_at_1", languages) for run in runs]),
        "ndcg_at_10": spread([mean(run, "ndcg_at_10", languages) for run in runs]),
        "training_seconds": spread([run["training_seconds"] for run in runs]),
    }
    if kind == "contrast":
        summary[f"ndcg_at_10_of_{SMALL_DIM}"] = spread([mean(run, "ndcg_at_10", languages, "cut") for run in runs])
    else:
        summary["english_ndcg_at_10"] = spread([mean(run, "ndcg_at_10", ("en",)) for run in runs])
        summary["english_drift"] = spread([run["held_out"]["english_drift"] for run in runs], digits=4)
    return summary


def mean(run: dict[str, Any], metric: str, languages: Sequence[str], rows: str = "scores") -> float:
    """The mean over tasks and languages, in percent."""
    return 100 * statistics.mean(row[metric] for row in run[rows] if row["language"] in languages)


def spread(values: Sequence[float], digits: int = 2) -> dict[str, Any]:
    """A mean, its standard deviation over seeds, and the values."""
    deviation = round(statistics.stdev(values), digits) if len(values) > 1 else None
    rounded = [round(value, digits) for value in values]
    return {"mean": round(statistics.mean(values), digits), "deviation": deviation, "values": rounded}


if __name__ == "__main__":
    main()
