"""`xvlm2vec data`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xvlm2vec.flags import console

if TYPE_CHECKING:
    from xvlm2vec.eval.ranking import RankingTask

NAMES = ("tuxpaint", "gcompris")


def main(arguments: Sequence[str]) -> int:
    """Unpacks a benchmark's package and shows what is in it."""
    flags = _parser().parse_args(console.with_help(arguments))
    console.set_up()
    from xvlm2vec.eval.benchmarks.debian import package_data
    from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS
    from xvlm2vec.eval.benchmarks.reading import read_benchmark

    folder = package_data(flags.name, flags.output, flags.package)
    tasks = read_benchmark(flags.name, folder, templates=NO_INSTRUCTIONS)
    console.show("\n".join(_summary(tasks)))
    console.show(f"\nxvlm2vec evaluate MODEL --benchmark {flags.name} --data {folder} --output scores/{flags.name}")
    return 0


def _summary(tasks: Sequence[RankingTask]) -> list[str]:
    """A line for each data set: its images, its languages, and how many captions those have."""
    lines = []
    for dataset in dict.fromkeys(task.dataset for task in tasks):
        members = [task for task in tasks if task.dataset == dataset and task.task == "t2i"]
        counts = {task.language: len(task.queries) for task in members}
        shown = ", ".join(f"{language} {count}" for language, count in sorted(counts.items(), key=_most_first))
        lines.append(f"{dataset}: {len(members[0].candidates)} images, {len(counts)} languages with captions: {shown}")
    return lines


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "data",
        "Reads a benchmark of real images out of a Debian package, without any hub: Tux Paint's stamps (captions in 77 "
        "languages, GPL) or GCompris (words in 45 languages, sentences in 36; CC-BY-SA and others).\n\nNothing is "
        "downloaded: where OUTPUT has no package yet, the command that gets it is shown. The package is unpacked below "
        "OUTPUT without its sounds, and what is in it is counted.",
        "xvlm2vec data tuxpaint --output data\n"
        "xvlm2vec evaluate MODEL --benchmark tuxpaint --data data/tuxpaint --output scores/tuxpaint",
    )
    parser.add_argument("name", choices=NAMES, help="which benchmark")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the package lies, and is unpacked")
    parser.add_argument("--package", metavar="FILE", help="the package's file, if it lies elsewhere")
    return parser
