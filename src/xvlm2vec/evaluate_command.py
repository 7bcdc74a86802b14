"""`xvlm2vec evaluate`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec import console

if TYPE_CHECKING:
    from xvlm2vec.eval.ranking import RankingTask

logger = logging.getLogger(__name__)

STORE = "embeddings"
EMOJI_CONCEPTS, EMOJI_PIXELS = 300, 48


def main(arguments: Sequence[str]) -> int:
    """Parses the flags, embeds what is not embedded yet, scores, and shows the table."""
    parser = _parser()
    flags = parser.parse_args(console.with_help(arguments))
    if flags.data is None and flags.benchmark != "emoji":
        parser.error(f"--benchmark {flags.benchmark} needs --data, the folder with its files")
    console.set_up()
    from xvlm2vec.eval.report import terminal_table
    from xvlm2vec.eval.runner import evaluate
    from xvlm2vec.sources import load_encoder

    tasks = benchmark_tasks(flags)
    encoder = load_encoder(
        flags.model,
        dim=flags.dim,
        max_tokens=flags.max_tokens,
        batch_size=flags.batch_size,
        trust=flags.trust_remote_code,
    )
    output = Path(flags.output)
    results = evaluate(encoder, tasks, seed=flags.seed, store=output / STORE)
    path = results.save(output)
    console.show(f"\n{terminal_table(results, intervals=False)}\n{path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "evaluate",
        "Scores a model per task and language: precision at 1 with ties shared evenly and 95% intervals, and more. "
        "Writes OUTPUT/results.json and keeps the embeddings, so that an interrupted run goes on where it stopped and "
        "another benchmark reuses them.",
        "xvlm2vec evaluate runs/student --benchmark folder --data data/benchmark --output scores/student\n"
        "xvlm2vec evaluate runs/student --benchmark mmmeb --data MMMEB --datasets xm,xtd --languages de,fr \\\n"
        "    --tasks t2i --output scores/mmmeb",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of an XVLM2VecModel, of an adapter on one, or "
                        "of any model of sentence-transformers")  # fmt: skip
    parser.add_argument("--benchmark", required=True, choices=("mmmeb", "emoji", "folder"), help="mmmeb: the published "
                        "layout; emoji: the built-in world, or an exported one with --data; folder: what `xvlm2vec "
                        "corpus` or a release wrote")  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="folder of the benchmark, or Hub id of a data set")
    parser.add_argument("--output", required=True, metavar="DIR", help="for results.json and the embeddings")
    parser.add_argument("--datasets", type=console.names, metavar="NAMES", help="such as xm,xtd (default: all)")
    parser.add_argument("--languages", type=console.names, metavar="CODES", help="such as de,fr (default: all)")
    parser.add_argument("--tasks", type=console.names, metavar="NAMES", help="of c,i2t,t2i,vqa,vg (default: all)")
    parser.add_argument("--styles", type=console.names, metavar="NAMES", help="of plain,punct,newline, how texts end "
                        "(default: plain for mmmeb, otherwise texts as they are)")  # fmt: skip
    parser.add_argument("--templates", metavar="FILE", help="JSON with instructions instead of the benchmark's own: "
                        '{task: {language: {"query": "... {text} ...", "target": ...}}}')  # fmt: skip
    console.add_encoder_flags(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of intervals, examples, and of the built-in "
                        "emoji world (default 0)")  # fmt: skip
    return parser


def benchmark_tasks(flags: argparse.Namespace) -> list[RankingTask]:
    """The tasks that the flags ask for.

    Raises:
        ValueError: A name is unknown, or a file is damaged.
        FileNotFoundError: A file or folder is missing.
    """
    from xvlm2vec.eval.exported import read_exported, read_templates
    from xvlm2vec.eval.mmmeb import VERBATIM, read_mmmeb_folder
    from xvlm2vec.sources import dataset_folder

    templates = read_templates(flags.templates) if flags.templates else None
    chosen = {"datasets": flags.datasets, "languages": flags.languages, "tasks": flags.tasks, "templates": templates}
    if flags.benchmark == "mmmeb":
        return read_mmmeb_folder(dataset_folder(flags.data), styles=flags.styles or ("plain",), **chosen)
    if flags.data is None:
        return _emoji_tasks(flags, chosen)
    folder = dataset_folder(flags.data)
    name = "emoji" if flags.benchmark == "emoji" else _name(folder)
    return read_exported(folder, name, styles=flags.styles or (VERBATIM,), **chosen)


def _name(folder: Path) -> str:
    """The name on the benchmark's card, or that of its folder."""
    from xvlm2vec.hub.card import read_metadata

    card = folder / "README.md"
    found = read_metadata(card).get("pretty_name") if card.is_file() else None
    return str(found or folder.resolve().name)


def _emoji_tasks(flags: argparse.Namespace, chosen: dict[str, Any]) -> list[RankingTask]:
    """The test split of the built-in world, written into a temporary folder and read back like any other."""
    import tempfile

    from xvlm2vec.corpus.emoji_benchmark import emoji_benchmark
    from xvlm2vec.emoji_sources import emoji_world
    from xvlm2vec.eval.exported import read_exported
    from xvlm2vec.eval.mmmeb import VERBATIM
    from xvlm2vec.hub.dataset_export import export_benchmark
    from xvlm2vec.quickstart_release import benchmark_card

    logger.info("Making the emoji world")
    made = emoji_benchmark(emoji_world(None, EMOJI_CONCEPTS, EMOJI_PIXELS, flags.seed))
    with tempfile.TemporaryDirectory() as name:
        export_benchmark(made.tasks, made.images, Path(name) / "emoji", benchmark_card(), made.templates)
        return read_exported(Path(name) / "emoji", "emoji", styles=flags.styles or (VERBATIM,), **chosen)
