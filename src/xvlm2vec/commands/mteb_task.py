"""`xvlm2vec mteb-task`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xvlm2vec.flags import console


def main(arguments: Sequence[str]) -> int:
    """Writes a benchmark's data sets, task files and statistics as mteb's repository takes them."""
    flags = _parser().parse_args(console.with_help(arguments))
    console.set_up()
    from huggingface_hub import HfApi

    from xvlm2vec.eval.mteb.contribution import write_contributions

    written = write_contributions(
        flags.benchmark,
        flags.data,
        flags.output,
        namespace=flags.namespace,
        datasets=flags.datasets,
        languages=flags.languages,
        api=HfApi() if flags.push else None,
    )
    for each in written:
        place = f"{each.data}" + (f", pushed to {each.repo_id}" if flags.push else "")
        console.show(
            f"{each.name}\n  task        {each.task_file}\n  statistics  {each.statistics}\n  data        {place}"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "mteb-task",
        "Writes a benchmark in the form that mteb's own repository takes, for a pull request there: below OUTPUT/data "
        "a data set for each task in mteb's layout for the Hub, below OUTPUT/mteb the task files with all metadata and "
        "the statistics that mteb's tests want. A task file names the commit of its data set where --push uploads it, "
        "and otherwise the branch main.\n\nBenchmarks: xtd10, babel-imagenet, cvqa, maxm, visr-bench, mmeb, mmmeb. Not "
        "MERIT: a row of mteb holds one image, and MERIT's queries hold several.",
        "xvlm2vec mteb-task xtd10 --data xtd10 --output contribution --namespace mteb --push",
    )
    parser.add_argument("benchmark", help="which benchmark")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="its files in the published layout")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    parser.add_argument("--namespace", default="mteb", help="who holds the data sets on the Hub (default mteb)")
    parser.add_argument("--datasets", type=console.names, help="names of its data sets, as a,b (default all)")
    parser.add_argument("--languages", type=console.names, help="codes, as de,fr (default all that mteb knows)")
    parser.add_argument("--push", action="store_true", help="upload the data sets, which needs a token")
    return parser
