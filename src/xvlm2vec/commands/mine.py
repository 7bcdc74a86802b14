"""`xvlm2vec mine`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.columns import LANG
from xvlm2vec.common.files import write_json
from xvlm2vec.common.pair_checks import check_pairs
from xvlm2vec.common.run_state import RunState
from xvlm2vec.corpus.mining.options import KINDS, SAMPLES, SEARCHES, MiningOptions
from xvlm2vec.flags import console

if TYPE_CHECKING:
    from datasets import Dataset

    from xvlm2vec.corpus.mining.pool import MiningPool
    from xvlm2vec.corpus.mining.search import Mined
    from xvlm2vec.flags.pair_vectors import PairVectors

logger = logging.getLogger(__name__)

PAIRS, REPORT = "pairs", "mining.json"
STORE, SEARCH = "embeddings", "search"


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and mines what is not mined yet."""
    parser = _parser()
    flags = parser.parse_args(console.with_help(arguments))
    try:
        options = MiningOptions(**{item.name: getattr(flags, item.name) for item in fields(MiningOptions)})
    except ValueError as error:
        parser.error(str(error))
    console.set_up()
    from xvlm2vec.corpus.stored_pairs import load_pairs

    rows = load_pairs(flags.data, images=flags.image_folder)
    if options.per_language and LANG not in rows.column_names:
        raise ValueError(f"--per-language needs the column {LANG!r}, and {flags.data} has none.")
    output = Path(flags.output)
    identity = {"command": "mine", "model": flags.model, "data": flags.data, "dim": flags.dim, **asdict(options)}
    run = RunState(output, identity)
    run.run("mining", lambda: _mine(flags, rows, options, output))
    console.show(f"The pairs with their negatives are in {output / PAIRS}; what was left out is in {output / REPORT}")
    return 0


def _mine(flags: argparse.Namespace, rows: Dataset, options: MiningOptions, output: Path) -> None:
    import shutil

    from xvlm2vec.corpus.mining.search import mine
    from xvlm2vec.corpus.mining.write import write_mined

    pool, vectors = _embedded(flags, rows, output / STORE)
    logger.info("%d candidates for %d pairs", len(pool.candidates), len(pool.queries))
    mined = mine(pool, lambda contents: vectors.stored[_numbers(contents)], options, output / SEARCH)
    written = write_mined(rows, pool, mined, output / PAIRS)
    report = summary(mined, len(written), len(pool.candidates))
    write_json(output / REPORT, {"model": flags.model, **asdict(options), **report})
    logger.info("%.2f negatives a pair; %d pairs have none", report["negatives_per_pair"], report["without"])
    shutil.rmtree(output / SEARCH)


def _numbers(contents: Sequence[int]) -> Any:
    import numpy as np

    return np.asarray(contents, dtype=np.int64)


def summary(mined: Mined, pairs: int, candidates: int) -> dict[str, Any]:
    """What was found, in numbers."""
    counts = [len(found) for found in mined.negatives]
    return {
        "pairs": pairs,
        "pool": candidates,
        "negatives_per_pair": round(sum(counts) / pairs, 4),
        "without": counts.count(0),
        "left_out": dict(mined.cut.most_common()),
    }


def _embedded(flags: argparse.Namespace, rows: Dataset, store: Path) -> tuple[MiningPool, PairVectors]:
    """The pairs and candidates, and the vector of each content."""
    from xvlm2vec.corpus.mining.pool import MiningPool
    from xvlm2vec.eval.encoders import ModelEncoder
    from xvlm2vec.flags.encoders import load_encoder
    from xvlm2vec.flags.pair_vectors import StoredImages, embed_pairs, named_pairs

    encoder = load_encoder(
        flags.model, dim=flags.dim, max_tokens=flags.max_tokens, batch_size=flags.batch_size,
        trust=flags.trust_remote_code,
    )  # fmt: skip
    prompts = encoder.model.config.prompts if isinstance(encoder, ModelEncoder) else {}
    check_pairs(rows, prompts, flags.data)
    vectors = embed_pairs(encoder, [rows], store, prompts)
    languages = rows[LANG] if LANG in rows.column_names else [""] * len(rows)
    pool = MiningPool()
    for named, language in zip(named_pairs(StoredImages([rows]), prompts), languages, strict=True):
        pool.add([vectors.places[key] for key in named.keys], named.pair.positive, language or "")
    return pool, vectors


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "mine",
        "Finds hard negatives for pairs: what an embedder finds near to a query and is not its answer. The candidates "
        "are the positives of all pairs, texts and images alike. What equals the query, its positive or the positive "
        "of an equal query is never a negative, under whatever name an image is stored; and by default nothing is "
        "that scores more than 95% of the positive.\n\n"
        "Writes OUTPUT/pairs, which `xvlm2vec contrast` reads: the pairs with the lists neg_text and neg_image, behind "
        "the negatives that they had. Texts and images are embedded once and kept in OUTPUT/embeddings; interrupt it "
        "as you like, the same command goes on.",
        "xvlm2vec mine runs/teacher --data data/pairs --output data/mined --negatives 4",
    )
    parser.add_argument("model", metavar="MODEL", help="what embeds: any model that `xvlm2vec evaluate` takes")
    parser.add_argument("--data", required=True, metavar="DATA", help="pairs, as `xvlm2vec contrast` reads them")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    parser.add_argument("--image-folder", metavar="DIR", help="below it lie the images that qry_image_path names")
    _add_options(parser)
    console.add_encoder_flags(parser)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    default = MiningOptions()
    add = parser.add_argument
    add("--negatives", type=int, default=default.negatives, metavar="N", help="of a pair at most (default 5)")
    add("--search-with", choices=SEARCHES, default="query", help="look at the nearest of the query, or of its positive "
        "(margins then count from 1)")  # fmt: skip
    add("--candidates", choices=KINDS, default="same", help="same: of the kind of the pair's positive (text, image, or "
        "both); any: of all kinds")  # fmt: skip
    add("--per-language", action="store_true", help="only candidates in the language of the pair, as column lang says")
    add("--range-min", type=int, default=0, metavar="N", help="pass over the N nearest (default 0)")
    add("--range-max", type=int, default=default.range_max, metavar="N", help="look at the N nearest (default 100)")
    add("--relative-margin", type=float, default=default.relative_margin, metavar="SHARE", help="a negative scores by "
        "this share less than the positive (default 0.05)")  # fmt: skip
    add("--absolute-margin", type=float, metavar="SCORE", help="a negative scores so much less than the positive")
    add("--min-score", type=float, metavar="SCORE", help="a negative scores at least this")
    add("--max-score", type=float, metavar="SCORE", help="a negative scores at most this")
    add("--max-positive-similarity", type=float, metavar="SCORE", help="a negative is not nearer to its positive")
    add("--sample", choices=SAMPLES, default="top", help="keep the nearest of what is left, or draw (default top)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the draw (default 0)")
