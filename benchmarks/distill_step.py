"""What a step of self-distillation costs: the reference's three full passes a pair, and each thing that is saved.

    python benchmarks/distill_step.py --prefix 768 --languages 4
    python benchmarks/distill_step.py --json distill_step.json --plot distill_step.svg
    python benchmarks/distill_step.py --shape hybrid --prefix 768 --json distill_step_hybrid.json
    python benchmarks/distill_step.py --adapters --prefix 768 --languages 4 12 --repeats 9 --json distill_activated.json

Every cell (P tokens of images, K translations, 24 tokens of text) is measured in one process on one thread: forward
and backward passes over the same rows with the same weights, interleaved, process CPU time, medians. Before anything is
timed, losses and gradients of all variants are compared. "sentence_transformers" is a training step of its trainer with
its MSELoss, the targets as labels and a column for each language. The vision tower is a small one; it, the reference's
language-model head and the optimiser are rows of their own. "deduplicated" is what separate passes cost at best.
`--shape hybrid` measures a model in the shape of Qwen3.5, with three layers of linear attention to one of full
attention, in place of LLaVA. A ratio's label begins with its cell; those without are of the only cell asked for, or of
768 tokens and 4 languages.

With `--adapters` the steps are those of adapters: the reference's and today's of a LoRA adapter, the targets of the
second at hand, and the one of an activated adapter, which makes its targets by the way.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from activated_cells import ActivatedBench, compare_adapters
from distill_cells import Bench, Cell, Shape, build_model, compare, llava_image
from distill_hybrid import HybridShape, build_hybrid, qwen_image

PREFIXES, LANGUAGES = (64, 256, 768), (1, 4, 12)
HEADLINE = (768, 4)
"""The cell whose ratios are also written without its name, as those of a run of one cell are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--prefix",
        type=image_tokens,
        nargs="*",
        default=PREFIXES,
        help="tokens of images: a square up to 256, or a multiple of 256 (default 64 256 768)",
    )
    parser.add_argument("--languages", type=int, nargs="*", default=LANGUAGES, help="translations (default 1 4 12)")
    parser.add_argument("--shape", choices=("llava", "hybrid"), default="llava", help="the model (default llava)")
    parser.add_argument("--repeats", type=int, default=3, help="steps of each kind (default 3)")
    parser.add_argument("--json", type=Path, help="where the numbers go; cells that it holds already are kept")
    parser.add_argument("--adapters", action="store_true", help="compare steps of adapters")
    parser.add_argument("--beside", help="what else ran on the machine, for the result")
    parser.add_argument("--plot", type=Path, help="draw the ratios (needs matplotlib)")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    shape = HybridShape() if flags.shape == "hybrid" else Shape()
    content = json.loads(flags.json.read_text()) if flags.json and flags.json.exists() else new_content(shape)
    if flags.adapters:
        content["beside"] = flags.beside or "nothing that is known"
    for prefix in flags.prefix:
        for languages in flags.languages:
            last = "activated_memory_over_lora" if flags.adapters else "flop_estimate"
            if f"P={prefix} K={languages} {last}" in content["ratios"]:
                print(f"{flags.json} holds the cell P={prefix} K={languages} already", flush=True)
                continue
            load = os.getloadavg()[0]
            step = measure_adapters if flags.adapters else measure
            rows, ratios = step(Cell(prefix, languages), shape, flags.repeats)
            if flags.adapters:
                rows = [{**row, "load_average": [round(load, 1), round(os.getloadavg()[0], 1)]} for row in rows]
            content["rows"] += rows
            content["ratios"] |= {f"P={prefix} K={languages} {name}": value for name, value in ratios.items()}
            if (prefix, languages) == HEADLINE or len(flags.prefix) * len(flags.languages) == 1:
                content["ratios"] |= ratios
            print(json.dumps({"rows": rows, "ratios": ratios}, indent=1), flush=True)
            if flags.json:
                flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if flags.plot:
        (draw_adapters if flags.adapters else draw)(content, flags.plot)


def image_tokens(text: str) -> int:
    """A number of tokens that square images of 256 at most can have."""
    tokens = int(text)
    if tokens < 1 or (tokens % 256 and (tokens > 256 or math.isqrt(tokens) ** 2 != tokens)):
        raise argparse.ArgumentTypeError(f"{tokens} is no square up to 256 and no multiple of 256")
    return tokens


def new_content(shape: Shape) -> dict[str, Any]:
    """The head of a result."""
    machine = {"cores": os.cpu_count(), "threads": 1, "python": platform.python_version(), "torch": torch.__version__}
    name = "distill_step_hybrid" if isinstance(shape, HybridShape) else "distill_step"
    return {"name": name, "machine": machine, "shape": asdict(shape), "rows": [], "ratios": {}}


def measure(cell: Cell, shape: Shape, repeats: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows and ratios of one cell."""
    if isinstance(shape, HybridShape):
        bench = Bench(cell, build_hybrid(shape), qwen_image(cell.prefix))
    else:
        bench = Bench(cell, build_model(shape, cell.prefix), llava_image(cell.prefix))
    bench.check()
    return compare(bench, shape, repeats)


def measure_adapters(cell: Cell, shape: Shape, repeats: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows and ratios of one cell, of steps of adapters."""
    bench = ActivatedBench(cell, build_model(shape, cell.prefix), llava_image(cell.prefix))
    bench.check()
    return compare_adapters(bench, repeats)


def draw(content: dict[str, Any], path: Path) -> None:
    """Measured and estimated ratios over the number of languages, one panel for each prefix."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ratios = content["ratios"]
    prefixes = sorted({int(row["prefix"]) for row in content["rows"]})
    figure, panels = pyplot.subplots(1, len(prefixes), figsize=(4 * len(prefixes), 3.4), squeeze=False)
    variants = ("all", "shared_prefix", "sentence_transformers", "deduplicated", "cached_teacher")
    kinds = (*(f"{name}_over_reference" for name in variants), "flop_estimate")
    for panel, prefix in zip(panels[0], prefixes, strict=True):
        counts = sorted({int(row["languages"]) for row in content["rows"] if row["prefix"] == prefix})
        for kind in kinds:
            values = [ratios[f"P={prefix} K={count} {kind}"] for count in counts]
            style = "k:" if kind == "flop_estimate" else "o-"
            panel.plot(counts, values, style, label=kind.replace("_over_reference", "").replace("_", " "))
        panel.set(title=f"{prefix} image tokens", xlabel="languages", ylabel="times faster than the reference step")
        panel.set_xticks(counts)
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def draw_adapters(content: dict[str, Any], path: Path) -> None:
    """Seconds of a step with their quartiles, and memory above the weights, of LoRA and activated adapters."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = {(row["prefix"], row["languages"], row["variant"]): row for row in content["rows"]}
    cells = sorted({key[:2] for key in rows})
    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(8, 3.2))
    for number, variant in enumerate(("lora", "activated")):
        found = [rows[*cell, variant] for cell in cells]
        places = [place + 0.4 * number - 0.2 for place in range(len(cells))]
        middle = [row["seconds"] for row in found]
        spread = [[abs(row["seconds"] - row["quartiles"][end]) for row in found] for end in (0, 1)]
        bars = time.bar(places, middle, 0.38, yerr=spread, capsize=3, label=variant)
        time.bar_label(bars, fmt="%.2f", padding=4, fontsize=8)
        bars = memory.bar(places, [row["peak_mb_above_weights"] for row in found], 0.38, label=variant)
        memory.bar_label(bars, fmt="%.0f", fontsize=8)
    for panel, label in ((time, "processor seconds of a step"), (memory, "peak MB above the weights")):
        panel.set_xticks(range(len(cells)), [f"P = {prefix}, K = {languages}" for prefix, languages in cells])
        panel.set_ylabel(label)
        panel.set_ylim(top=panel.get_ylim()[1] * 1.2)
        panel.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
