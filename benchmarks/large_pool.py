"""Ranking against a million candidates that lie in the store on disk: time and peak memory.

    python benchmarks/large_pool.py --json benchmarks/results/large_pool.json
    python benchmarks/large_pool.py --measure evaluate --queries 200 --json benchmarks/results/large_pool_evaluate.json

Writes a store of made vectors (4 GB for 1,000,000 x 1,024) below --folder, opens it anew in a fresh process and ranks
queries against all of them, exactly and with ties counted. `--measure evaluate` runs the whole of what `xvlm2vec
evaluate` does once everything is embedded: it makes a task of the rows, finds them in the store, ranks, counts hubs (up
to 2**28 pairs of a query and a candidate), measures the drift of all rows from a second model, which is the same one
here, and looks up examples. Peak memory is that of the fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from xvlm2vec.common.store import EmbeddingStore, row_key
from xvlm2vec.eval.encoders import CallableEncoder
from xvlm2vec.eval.pool import score_pool
from xvlm2vec.eval.ranking import RankingTask, Row
from xvlm2vec.eval.runner import Extras, evaluate

SHARD = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--candidates", type=int, default=1_000_000, help="(default 1,000,000)")
    parser.add_argument("--width", type=int, default=1_024, help="values of a vector (default 1,024)")
    parser.add_argument("--queries", type=int, default=1_000, help="(default 1,000)")
    parser.add_argument("--folder", type=Path, help="for the store (default: a temporary one)")
    parser.add_argument("--measure", choices=MEASURES, default="rank", help="(default rank)")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.store:
        print(json.dumps(MEASURES[flags.measure](flags.store, flags.candidates, flags.queries)))
        return
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        write_store(Path(folder), flags.candidates, flags.width)
        sizes = {str(share): run_child(flags.measure, Path(folder), share, flags.queries)
                 for share in (flags.candidates // 10, flags.candidates)}  # fmt: skip
    small, large = sizes.values()
    content = {
        "name": "large_pool" if flags.measure == "rank" else f"large_pool_{flags.measure}",
        "machine": {
            "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "python": platform.python_version(),
        },
        "rows": [
            {"candidates": int(name), "width": flags.width, "queries": flags.queries, **row}
            for name, row in sizes.items()
        ],
        "ratios": {
            "vectors / peak memory": round(flags.candidates * flags.width * 4 / 2**20 / large["peak_mib"], 1),
            "peak memory, ten times the candidates": round(large["peak_mib"] / small["peak_mib"], 2),
        },
    }
    print(json.dumps(content, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_store(folder: Path, count: int, width: int) -> None:
    """Random vectors; every tenth is the copy of the one before it, so that ties occur."""
    store = EmbeddingStore(folder, "made")
    for start in range(0, count, SHARD):
        size = min(SHARD, count - start)
        vectors = np.random.default_rng(start).standard_normal((size, width), dtype=np.float32)
        vectors[9::10] = vectors[8:-1:10]
        store.add([row_key(str(start + number)) for number in range(size)], vectors)


def run_child(measure: str, folder: Path, count: int, queries: int) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--measure",
        measure,
        "--store",
        str(folder),
        "--candidates",
        str(count),
        "--queries",
        str(queries),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def rank(folder: Path, count: int, queries: int) -> dict[str, Any]:
    """Opens the store and ranks; a query is a noisy copy of its right candidate."""
    started = time.perf_counter()
    view = EmbeddingStore(folder, "made").view([row_key(str(number)) for number in range(count)])
    opened, opened_mib = time.perf_counter() - started, peak_mib()
    golds = np.random.default_rng(1).choice(count, size=(queries, 1), replace=False)
    noise = np.random.default_rng(2).standard_normal((queries, view.shape[1]), dtype=np.float32)
    asked = view[golds[:, 0]] + 4 * noise
    started = time.perf_counter()
    ranks = score_pool(asked, view, golds, np.ones_like(golds, dtype=bool), tolerance=5e-7, name="large pool")
    return {
        "open_seconds": round(opened, 1),
        "open_peak_mib": round(opened_mib),
        "rank_seconds": round(time.perf_counter() - started, 1),
        "peak_mib": round(peak_mib()),
        "vectors_mib": round(count * view.shape[1] * 4 / 2**20),
        "tied_queries": int((ranks.tied > 0).sum()),
        "median_rank": float(np.median(ranks.above) + 1),
    }


def evaluate_stored(folder: Path, count: int, queries: int) -> dict[str, Any]:
    """All that an evaluation does with rows that are embedded already, but for the queries, which are few."""
    golds = np.random.default_rng(1).choice(count, size=(queries, 1), replace=False)
    noise = np.random.default_rng(2)

    def embed(texts: list[str | None], images: list[Any]) -> np.ndarray:
        gold = EmbeddingStore(folder, "made").get([row_key(str(text).removeprefix("like ")) for text in texts])
        return gold + 4 * noise.standard_normal(gold.shape, dtype=np.float32)

    started, cpu = time.perf_counter(), time.process_time()
    rows, asked = [Row(str(number)) for number in range(count)], [Row(f"like {place}") for place in golds[:, 0]]
    task = RankingTask("made", "made", "t2t", "en", "plain", asked, rows, golds, whole_pool=True)
    encoder = CallableEncoder(embed, name="made", fingerprint="made")
    results = evaluate(encoder, [task], store=folder, progress=False, extras=Extras(drift_from=encoder))
    row = results.rows[0]
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "seconds_of_scoring": round(results.seconds["score"], 1),
        "peak_mib": round(peak_mib()),
        "tied_queries": row["ties"],
        "p_at_1": row["p_at_1"],
        "measures": row["alignment"],
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


MEASURES = {"rank": rank, "evaluate": evaluate_stored}

if __name__ == "__main__":
    main()
