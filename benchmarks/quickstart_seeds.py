r"""Means and spread of several quickstart runs.

    python benchmarks/quickstart_seeds.py runs/seed0 runs/seed1 runs/seed2 --json docs/quickstart/seeds.json \
        --table docs/quickstart/seeds.md

Each run is a finished `xvlm2vec quickstart --seed N --output runs/seedN`; everything comes from their `report.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("teacher", "student")
MEAN_TASKS = ("c", "i2t", "t2i", "vg")
TASKS = (*MEAN_TASKS, "vqa")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--table", type=Path, required=True, help="where the Markdown table goes")
    flags = parser.parse_args()
    reports = [json.loads((run / "report.json").read_text(encoding="utf-8")) for run in flags.runs]
    check_alike(flags.runs, reports)
    content = summarise(reports)
    flags.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    flags.table.write_text(markdown(content), encoding="utf-8")
    print(flags.table.read_text(encoding="utf-8"))


def check_alike(runs: list[Path], reports: list[dict[str, Any]]) -> None:
    """Stops if the runs differ in more than their seed."""
    settings = [{key: value for key, value in report["settings"].items() if key != "seed"} for report in reports]
    for run, other in zip(runs[1:], settings[1:], strict=True):
        if other != settings[0]:
            raise SystemExit(f"{run} was run with other flags than {runs[0]}")


def summarise(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation over the runs, in points of P@1, and the goals that they are held against."""
    first = reports[0]
    languages = list(first["scores"]["teacher"]["c"])
    rows = [
        {
            "model": model,
            "task": task,
            "language": language,
            **spread([100 * report["scores"][model][task][language]["p_at_1"] for report in reports]),
        }
        for model in MODELS
        for task in TASKS
        for language in languages
    ]
    mean = {(row["model"], row["task"], row["language"]): row["mean"] for row in rows}
    gaps = {
        task: min(
            (round(mean["student", task, code] - mean["student", task, "en"], 2), code)
            for code in first["trained_languages"]
        )
        for task in MEAN_TASKS
    }
    return {
        "name": "quickstart_seeds",
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **first["versions"],
        },
        "seeds": [report["settings"]["seed"] for report in reports],
        "trained_languages": first["trained_languages"],
        "control_languages": first["control_languages"],
        "rows": rows,
        "withheld": withheld(reports),
        "largest_gap_to_english": {task: {"points": gap, "language": code} for task, (gap, code) in gaps.items()},
        "english_change": {task: round(mean["student", task, "en"] - mean["teacher", task, "en"], 2) for task in TASKS},
        "seconds": {
            "total": [round(sum(report["seconds"].values())) for report in reports],
            **{stage: [round(report["seconds"][stage]) for report in reports] for stage in first["seconds"]},
        },
        "peak_rss_mb": max(report["peak_rss_mb"] for report in reports),
        "ratios": {},
    }


def withheld(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores on the concepts whose names were kept from distillation in some languages."""
    kept_from = reports[0]["withheld"]["languages"]
    return [
        {
            "model": model,
            "language": language,
            "kept_from": language in kept_from,
            **spread([100 * report["withheld"]["scores"][model][language]["p_at_1"] for report in reports]),
        }
        for model in MODELS
        for language in reports[0]["withheld"]["scores"][model]
    ]


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": round(float(np.mean(values)), 2), "sd": round(deviation, 2)}


def markdown(content: dict[str, Any]) -> str:
    """A table of languages by tasks, before -> after, with the spread of the student."""
    cells = {(row["model"], row["task"], row["language"]): row for row in content["rows"]}
    languages = list(dict.fromkeys(row["language"] for row in content["rows"]))
    lines = ["| language | " + " | ".join(TASKS) + " |", "|---|" + "---:|" * len(TASKS)]
    for code in languages:
        note = " (never taught)" if code in content["control_languages"] else ""
        row = [
            f"{cells['teacher', task, code]['mean']:.1f} -> {cells['student', task, code]['mean']:.1f} "
            f"± {cells['student', task, code]['sd']:.1f}"
            for task in TASKS
        ]
        lines.append(f"| {code}{note} | " + " | ".join(row) + " |")
    seeds = ", ".join(map(str, content["seeds"]))
    seconds = ", ".join(map(str, content["seconds"]["total"]))
    gaps = "; ".join(
        f"{task} {gap['points']:+.1f} ({gap['language']})" for task, gap in content["largest_gap_to_english"].items()
    )
    change = "; ".join(f"{task} {points:+.1f}" for task, points in content["english_change"].items())
    return (
        "\n".join(lines) + f"\n\nP@1 in percent, teacher -> student ± standard deviation over seeds {seeds}.\n\n"
        f"- Largest gap of a taught language to English: {gaps}.\n"
        f"- English after distillation: {change} points.\n"
        f"- Seconds of each run: {seconds}; peak memory {content['peak_rss_mb']} MB.\n"
    )


if __name__ == "__main__":
    main()
