"""`xvlm2vec corpus mix`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.files import write_json

from . import console
from .corpus_check import add_kind

if TYPE_CHECKING:
    from xvlm2vec.corpus.mixing.mix import MixConfig, MixReport

REPORT = "mix.json"


def add_mix(kinds: Any) -> None:
    """Adds `xvlm2vec corpus mix`."""
    parser = add_kind(
        kinds, "mix", "one corpus out of several: heads cut, tails kept",
        "Puts corpora together and cuts what there is most of; nothing is ever taken twice. In this order: --balance "
        "draws translations by what their English texts speak of, --language-temperature and --language-cap even out "
        "languages, --source-temperature and --source-cap sources, and --rows limits the whole. Each is off unless it "
        "is asked for. A row stays while it has a translation left, or if it came without one.\n\n"
        f"DIR gets parallel/ and {REPORT}, with counts before and after. The same seed draws the same.",
        "xvlm2vec corpus mix stamps/parallel captions/parallel --balance --language-temperature 3 --output mixed", _run,
    )  # fmt: skip
    parser.add_argument("paths", nargs="+", metavar="CORPUS", help="folders of save_to_disk or of parquet files, or "
                        "Hub ids; of several, rows' ids get the name of their corpus in front")  # fmt: skip
    parser.add_argument("--split", default="train", help="which part of a corpus, if it has several (default train)")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    concepts = parser.add_argument_group("by concept, as MetaCLIP 2 does")
    concepts.add_argument("--balance", action="store_true", help="keep all texts with a rare concept, and few of those "
                          "that say what thousands of others say")  # fmt: skip
    concepts.add_argument("--concepts", metavar="FILE", help="English words and phrases, one a line (default: every "
                          "word of the texts that carries meaning)")  # fmt: skip
    concepts.add_argument("--per-concept", type=console.positive, metavar="N", help="texts of a language that one "
                          "concept may have (default: by --tail)")  # fmt: skip
    concepts.add_argument("--tail", type=float, default=0.06, metavar="SHARE", help="share of a language's matches "
                          "that belong to concepts below its threshold (default 0.06)")  # fmt: skip
    sizes = parser.add_argument_group("by size")
    for group, what in (("language", "translations"), ("source", "rows")):
        sizes.add_argument(f"--{group}-temperature", type=float, default=1.0, metavar="T", help=f"{what} in proportion "
                           f"to n^(1/T) of each {group}; 1 changes nothing (default 1)")  # fmt: skip
        sizes.add_argument(f"--{group}-cap", type=console.positive, metavar="N", help=f"most {what} of one {group}")
    sizes.add_argument("--rows", type=console.positive, metavar="N", help="most rows in all")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything that is drawn (default 0)")


def _run(flags: argparse.Namespace) -> int:
    from xvlm2vec.common.columns import ALIGNMENT
    from xvlm2vec.corpus.mixing.mix import Mix, corpus_names
    from xvlm2vec.corpus.schema import parallel_features
    from xvlm2vec.corpus.stored import load_parallel, write_dataset

    config = _config(flags)
    corpora = {name: load_parallel(path, flags.split)
               for name, path in zip(corpus_names(flags.paths), flags.paths, strict=True)}  # fmt: skip
    mix = Mix(corpora, config, progress=True)
    folder = Path(flags.output)
    features = parallel_features([ALIGNMENT] if mix.has_alignments else [])
    write_dataset(mix.examples, features, folder / "parallel")
    write_json(folder / REPORT, {"corpora": flags.paths, "settings": config.as_json(), **asdict(mix.report)})
    console.show("\n".join(_lines(mix.report, folder)))
    return 0


def _config(flags: argparse.Namespace) -> MixConfig:
    from xvlm2vec.corpus.mixing.concepts import read_concepts
    from xvlm2vec.corpus.mixing.mix import MixConfig

    if not flags.balance and (flags.concepts or flags.per_concept):
        raise ValueError("--concepts and --per-concept belong to --balance.")
    return MixConfig(
        balance=flags.balance,
        concepts=read_concepts(flags.concepts) if flags.concepts else None,
        per_concept=flags.per_concept,
        tail=flags.tail,
        language_temperature=flags.language_temperature,
        source_temperature=flags.source_temperature,
        language_cap=flags.language_cap,
        source_cap=flags.source_cap,
        rows=flags.rows,
        seed=flags.seed,
    )


def _lines(report: MixReport, folder: Path) -> list[str]:
    """What the command says."""
    lines = [f"{folder}/parallel: {report.kept:,} of {report.rows:,} rows"]
    for title, table in (("languages", report.languages), ("sources", report.sources),
                         ("concepts that are cut most", report.most_cut)):  # fmt: skip
        shown = list(table.items())[:10]
        lines += [f"{title}:", *(f"  {after:>11,} of {before:>11,}  {name}" for name, (before, after) in shown)]
        lines += [f"  and {len(table) - 10:,} more, in {folder}/{REPORT}"] if len(table) > 10 else []
    return [line for line in lines if report.most_cut or not line.startswith("concepts")]
