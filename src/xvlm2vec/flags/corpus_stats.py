"""`xvlm2vec corpus stats`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.files import write_json

from . import console
from .corpus_check import add_kind

if TYPE_CHECKING:
    from xvlm2vec.corpus.statistics.counts import CountTokens


def add_stats(kinds: Any) -> None:
    """Adds `xvlm2vec corpus stats`."""
    parser = add_kind(
        kinds, "stats", "what is in a corpus: languages, tokens, images, coverage",
        "Counts rows, distinct English texts and images, and for each language its texts, coverage and lengths. With a "
        "tokenizer also tokens per character and per text against the English texts of the same rows: what a language "
        "costs, and where a model reads letters instead of words.\n\nThe page has plots, and loads nothing.",
        "xvlm2vec corpus stats data/parallel --tokenizer my-model --html stats.html --json stats.json", _run,
    )  # fmt: skip
    parser.add_argument("path", metavar="CORPUS", help="folder of save_to_disk or of parquet files, or a Hub id")
    parser.add_argument("--split", default="train", help="which part of the corpus, if it has several (default train)")
    parser.add_argument("--tokenizer", metavar="PATH_OR_ID", help="a model or its tokenizer")
    parser.add_argument("--html", metavar="FILE", help="write the page")
    parser.add_argument("--json", metavar="FILE", help="write the counts as JSON")


def _run(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus.statistics.counts import corpus_stats
    from xvlm2vec.corpus.statistics.page import write_page
    from xvlm2vec.corpus.stored import load_parallel

    count_tokens = _token_counter(flags.tokenizer) if flags.tokenizer else None
    corpus = load_parallel(flags.path, flags.split)
    stats = corpus_stats(corpus, count_tokens, flags.tokenizer, progress=True).as_json()
    if flags.json:
        write_json(flags.json, stats)
    if flags.html:
        write_page(Path(flags.html), flags.path, stats)
    console.show("\n".join(_lines(flags.path, stats)))
    return 0


def _token_counter(source: str) -> CountTokens:
    from transformers import AutoTokenizer

    from xvlm2vec.eval.tokens import TokenCounter

    counter = TokenCounter(AutoTokenizer.from_pretrained(source))
    return lambda texts: counter.count(texts).tokens


def _lines(name: str, stats: dict[str, Any]) -> list[str]:
    """What the command says."""
    images = stats["images"]
    lines = [
        f"{name}: {stats['rows']:,} rows, {stats['english_texts']:,} distinct English texts, {images['rows']:,} rows "
        f"with an image ({images['distinct']:,} distinct)"
    ]
    if images["unreadable"]:
        lines.append(f"{images['unreadable']:,} images cannot be read; `xvlm2vec corpus check` names them.")
    tokens = "  tokens/character vs en  tokens/text vs en" if stats["tokenizer"] else ""
    lines.append(f"{'language':<10}{'texts':>12}{'coverage':>10}{'median length':>15}{tokens}")
    for code, counts in stats["languages"].items():
        line = f"{code:<10}{counts['texts']:>12,}{counts['coverage']:>10.1%}{_median(counts):>15}"
        if stats["tokenizer"]:
            ratios = counts["tokens_per_character_against_english"], counts["tokens_against_english"]
            line += f"{_shown(ratios[0]):>24}{_shown(ratios[1]):>19}"
        lines.append(line)
    return lines


def _median(counts: dict[str, Any]) -> int:
    median: int = counts["characters_per_text"]["median"]
    return median


def _shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
