"""Puts every vision-language type of transformers to the test and writes docs/families.md.

python benchmarks/families_table.py            all types that this environment can load; others keep their last result
python benchmarks/families_table.py llava ...  some types
python benchmarks/families_table.py --table    only the table, from the results that are there

Types that need torchvision want the environment of `make vision`. Results lie in benchmarks/results/families.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "families"))

from building import NAMES, TYPES, build  # noqa: E402
from judging import COUNTED, Prompt, judge  # noqa: E402

RESULTS, TABLE = ROOT / "benchmarks" / "results" / "families.json", ROOT / "docs" / "families.md"
HEAD = """# Families

Every `image-text-to-text` type of transformers {version}, as a tiny random checkpoint with its own processor, was put
to the test. Rows of text, of images, of both, of two images, and all mixed have the same vectors alone, in a batch
padded on either side, and through `encode`; these are the vectors of the model's own prompt through plain transformers;
another image gives another vector; and where texts share the forward pass of their images, packs with images of other
sizes have the vectors of the rows alone. `right` passed all of it. `refused` is an error in one sentence, by
`from_backbone`.

{count} of {all} are right. What stands around an image comes from the checkpoint's chat template, or from the entry of
its type in `modeling/family_table.py`; where neither is known, the model is refused.

This table is written by `python benchmarks/families_table.py`.

| type | verdict | texts share their images | tokens of {sizes} | why |
|---|---|---|---|---|
"""
TEXTS = """
Backbones of texts only: `bert`, `electra`, `albert`, `llama`, `mistral`, `qwen2`, `qwen3`, `gemma`, `gemma2`. Of other
kinds than transformers' types: `phi3_v` (Phi-3.5-V, on which xVLM2Vec stands) and the layout `qwen2_vl-vlm2vec`.

Left out, as they are no embedders:
"""


def judge_types(names: list[str]) -> dict[str, Any]:
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names:
        if TYPES[name].get("needs_vision") and not transformers.utils.is_torchvision_available():
            print(f"{name:24} needs torchvision")
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            verdict = judge(name, build(name, Path(folder)), Prompt(**TYPES[name]["prompt"]))
        results[name] = verdict.to_dict() | {"reason": verdict.reason.replace(folder, name)}
        print(
            f"{name:24} {verdict.status:8} {time.perf_counter() - started:5.1f} s  {verdict.reason[:300]}", flush=True
        )
        RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return results


def write_table(results: dict[str, Any]) -> None:
    right = sum(result["status"] == "right" for result in results.values())
    sizes = ", ".join(f"{width} x {height}" for width, height in COUNTED)
    text = HEAD.format(version=transformers.__version__, count=right, all=len(results), sizes=sizes)
    for name, result in sorted(results.items()):
        tokens = ", ".join("refused" if count is None else str(count) for count in result["tokens"])
        shared = result["sharing"] if result["status"] == "right" else ""
        cells = [f"`{name}`", result["status"], shared, tokens, result["reason"][:400].replace("|", "\\|")]
        text += f"| {' | '.join(cells)} |\n"
    left_out = {name: entry["left_out"] for name, entry in TYPES.items() if "left_out" in entry}
    text += TEXTS + "\n" + "\n".join(f"- `{name}`: {reason}" for name, reason in left_out.items()) + "\n"
    TABLE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="names of types; by default all")
    parser.add_argument("--table", action="store_true", help="write the table from the results that are there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    write_table(judge_types([] if options.table else options.types or list(NAMES)))


if __name__ == "__main__":
    main()
