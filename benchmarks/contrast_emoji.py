"""What mined negatives are worth on the small emoji world: the commands of docs/contrast.md, and a control.

    python benchmarks/contrast_emoji.py --folder runs/contrast --json benchmarks/results/contrast_emoji.json

The control trains as long as the run on mined pairs, without negatives. What is done is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from xvlm2vec.cli import main as xvlm2vec
from xvlm2vec.quickstart.config import QuickstartConfig
from xvlm2vec.quickstart.run import stages_of
from xvlm2vec.quickstart.run_folder import RunFolder

BATCH = "--per-device-train-batch-size 40"
FIRST = f"{BATCH} --learning-rate 4e-3 --muon-learning-rate 2e-3 --max-steps 250 --save-steps 250"
SECOND = f"{BATCH} --learning-rate 1e-3 --muon-learning-rate 5e-4 --max-steps 60 --save-steps 60"
STUDENT = f"{BATCH} --max-steps 60 --learning-rate 1e-3 --save-steps 60"
COMMANDS = (
    "corpus emoji --concepts 64 --image-size 32 --languages de,ja --rows 8000 --test-rows 250 --output data/emoji",
    f"contrast --model runs/small/untrained --data data/emoji/pairs --output runs/first {FIRST}",
    "mine runs/first --data data/emoji/pairs --output data/mined --negatives 2 --range-max 50",
    f"contrast --model runs/first --data data/mined/pairs --output runs/mined {SECOND}",
    f"contrast --model runs/first --data data/emoji/pairs --output runs/control {SECOND}",
    f"distill --model runs/mined --data data/emoji/parallel --output runs/student {STUDENT}",
)
SCORED = {"first": "en", "mined": "en", "control": "en", "student": "en,de,ja"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where data and runs go")
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    flags = parser.parse_args()
    target = flags.json.resolve()
    flags.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(flags.folder)
    run = RunFolder(QuickstartConfig(output="runs/small", small=True))
    name, _, stage = stages_of(run)[0]  # the untrained model of `quickstart --small`
    run.state.run(name, stage)
    for command in COMMANDS:
        done(command)
    scores = {model: score(model, languages) for model, languages in SCORED.items()}
    content = {
        "name": "contrast_emoji",
        "commands": list(COMMANDS),
        "mining": json.loads(Path("data/mined/mining.json").read_text(encoding="utf-8")),
        "scores": scores,
    }
    print(json.dumps(content["scores"], indent=1))
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def score(model: str, languages: str) -> dict[str, dict[str, float]]:
    """Precision at 1 by language and task."""
    flags = f"--benchmark emoji --data data/emoji/benchmark --languages {languages} --output scores/{model}"
    done(f"evaluate runs/{model} {flags}")
    rows: list[dict[str, Any]] = json.loads(Path(f"scores/{model}/results.json").read_text(encoding="utf-8"))["rows"]
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["dataset"] == "emoji":
            scores.setdefault(row["language"], {})[row["task"]] = round(float(row["p_at_1"]), 4)
    return scores


def done(command: str) -> None:
    """Runs a command of xvlm2vec."""
    if xvlm2vec(command.split()):
        raise SystemExit(f"failed: xvlm2vec {command}")


if __name__ == "__main__":
    main()
