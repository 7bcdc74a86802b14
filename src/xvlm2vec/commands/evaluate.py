"""`xvlm2vec evaluate`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from xvlm2vec.flags import console
from xvlm2vec.flags.benchmarks import (
    add_benchmark_flags,
    check_benchmark_flags,
    chosen_rows,
    chosen_templates,
    is_of_mteb,
    mteb_tasks_of,
    runs_in_mteb,
    task_reader,
)
from xvlm2vec.flags.evaluate_extras import add_extra_flags, runner_extras
from xvlm2vec.flags.translators import add_translation_flag, with_translated_queries

if TYPE_CHECKING:
    from xvlm2vec.eval.encoders import Encoder
    from xvlm2vec.eval.results import Results

logger = logging.getLogger(__name__)

STORE = "embeddings"
WORST = 10  # languages that the terminal shows with what their misses come from


def main(arguments: Sequence[str]) -> int:
    """Parses the flags, embeds what is not embedded yet, scores, and shows the table."""
    parser = _parser()
    flags = parser.parse_args(console.with_help(arguments))
    check_benchmark_flags(parser, flags)
    console.set_up()
    from xvlm2vec.eval.processes import processes
    from xvlm2vec.eval.report.tables import as_text, failing_table, size_table, terminal_table

    group = processes()
    if not group.is_main:
        logging.getLogger("xvlm2vec").setLevel(logging.WARNING)
    output = Path(flags.output)
    results = None
    if not runs_in_mteb(flags):
        results = _results(flags, output)
    elif group.is_main:  # mteb runs a task in one process; the others wait
        results = _mteb_results(flags)
    if group.is_main and results is not None:
        path = results.save(output)
        sizes = f"\n{as_text(size_table(results))}" if results.sizes else ""
        table = failing_table(results, most=WORST)
        failing = f"\n{as_text(table)}" if table else ""
        console.show(f"\n{terminal_table(results, intervals=False)}{sizes}{failing}\n{path}")
    group.wait()
    return 0


def _results(flags: argparse.Namespace, output: Path) -> Results:
    """Scores on ranking tasks; a model that takes no instructions gets none unless the flags name some."""
    from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS
    from xvlm2vec.eval.encoders import Deferred, release
    from xvlm2vec.eval.runner import evaluate
    from xvlm2vec.flags.encoders import encoder_kind

    read = task_reader(flags)
    tasks = read(chosen_templates(flags))
    if flags.drift_from:
        encoder_kind(flags.drift_from)  # raises for a wrong name before anything is embedded
    encoder = _encoder(flags.model, flags)

    def reference() -> Encoder:
        """The other model, in the place of the first, which has embedded everything by then."""
        release(encoder)
        return _encoder(flags.drift_from, flags)

    extras = runner_extras(flags, Deferred(reference) if flags.drift_from else None)
    if flags.templates is None and not getattr(encoder, "instructed", True):
        logger.info("%s takes no instructions; texts are embedded as they are, and images alone", encoder.name)
        tasks = read(NO_INSTRUCTIONS)
    tasks = chosen_rows(flags, tasks)
    if flags.translate_queries:
        tasks = with_translated_queries(flags.translate_queries, tasks, output)
    store = Path(flags.store) if flags.store else output / STORE
    results = evaluate(encoder, tasks, seed=flags.seed, store=store, extras=extras)
    if is_of_mteb(flags.benchmark):
        results.versions["mteb"] = metadata.version("mteb")
    return results


def _mteb_results(flags: argparse.Namespace) -> Results:
    """Scores on tasks of mteb, by mteb."""
    tasks = mteb_tasks_of(flags)
    from xvlm2vec.eval.mteb.run import evaluate_mteb

    return evaluate_mteb(_encoder(flags.model, flags), tasks, templates=chosen_templates(flags), seed=flags.seed)


def _encoder(source: str, flags: argparse.Namespace) -> Encoder:
    from xvlm2vec.flags.encoders import load_encoder

    return load_encoder(
        source,
        dim=flags.dim,
        max_tokens=flags.max_tokens,
        batch_size=flags.batch_size,
        trust=flags.trust_remote_code,
    )


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "evaluate",
        "Scores a model per task and language: precision at 1 with ties shared evenly and 95% intervals, and more. "
        "Writes OUTPUT/results.json and keeps the embeddings, so that an interrupted run goes on where it stopped and "
        "another benchmark reuses them.\n\nStarted by `accelerate launch -m xvlm2vec evaluate ...`, several processes "
        "share the embedding; with --through mteb, the first of them runs alone.",
        "xvlm2vec evaluate runs/student --benchmark folder --data data/benchmark --output scores/student\n"
        "xvlm2vec evaluate runs/student --benchmark mmmeb --data MMMEB --datasets xm,xtd --languages de,fr \\\n"
        "    --tasks t2i --dims 64,128 --precision int8,binary --output scores/mmmeb\n"
        "xvlm2vec evaluate sentence-transformers/clip-ViT-B-32 --benchmark xm3600 --languages de --output scores/clip",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of an XVLM2VecModel, of an adapter on one, of "
                        "any model of sentence-transformers, or of a CLIP or SigLIP; a name that mteb knows, or "
                        "mteb:NAME; package.module:function for a function (texts, images) -> vectors")  # fmt: skip
    add_benchmark_flags(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="for results.json and the embeddings")
    parser.add_argument("--store", metavar="DIR", help="for the embeddings, shared by several outputs (default: "
                        "embeddings in OUTPUT)")  # fmt: skip
    add_extra_flags(parser)
    add_translation_flag(parser)
    console.add_encoder_flags(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of intervals, examples, and of the built-in "
                        "emoji world (default 0)")  # fmt: skip
    return parser
