"""`xvlm2vec evaluate-texts`."""

from __future__ import annotations

import argparse
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.files import write_json
from xvlm2vec.flags import console

logger = logging.getLogger(__name__)

FILE = "texts.json"


def main(arguments: Sequence[str]) -> int:
    """Scores each model on all tasks, and shows them side by side."""
    flags = _parser().parse_args(console.with_help(arguments))
    console.set_up()
    if not importlib.util.find_spec("mteb"):
        raise ImportError("the tasks are mteb's: pip install 'xvlm2vec[eval]'")
    from xvlm2vec.eval.encoders import release
    from xvlm2vec.eval.mteb.text_tasks import score_texts, text_tasks
    from xvlm2vec.eval.runner import library_versions
    from xvlm2vec.flags.encoders import encoder_kind, load_encoder

    for source in flags.models:
        encoder_kind(source)  # raises for a wrong name before anything is embedded
    tasks = text_tasks(flags.data, flags.languages)
    models = []
    for source in flags.models:
        logger.info("Scoring %s", source)
        encoder = load_encoder(
            source, dim=flags.dim, max_tokens=flags.max_tokens, batch_size=flags.batch_size,
            trust=flags.trust_remote_code,
        )  # fmt: skip
        rows = score_texts(encoder, tasks)
        models.append({"model": source, "fingerprint": encoder.fingerprint, "rows": rows})
        release(encoder)
    import mteb

    output = Path(flags.output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / FILE, {"models": models, "versions": library_versions() | {"mteb": mteb.__version__}})
    console.show(f"\n{table(models)}\n{output / FILE}")
    return 0


def table(models: Sequence[Mapping[str, Any]]) -> str:
    """Main scores in percent, a line for each task and language; of two models, also the difference."""
    two = len(models) == 2
    header = ["task", "language", "n", "score", *(Path(model["model"]).name for model in models)]
    lines = [[*header, "difference"] if two else header]
    for rows in zip(*(model["rows"] for model in models), strict=True):
        scores = [100 * row[row["main_score"]] for row in rows]
        cells = [rows[0]["task"], rows[0]["language"], str(rows[0]["n"]), rows[0]["main_score"]]
        cells += [f"{score:.1f}" for score in scores] + ([f"{scores[1] - scores[0]:+.1f}"] if two else [])
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place == 2 or place > 3 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "evaluate-texts",
        "Scores models on texts alone, by mteb's own task classes on your files: similarity of texts (STS, Spearman's "
        "correlation of cosines with your scores) and retrieval (nDCG@10). Give the models before and after a training "
        "to see what it cost; texts are embedded as they are, without instructions.\n\nDATA has a folder for each "
        "task. NAME/de.csv (or .jsonl) holds pairs with the columns sentence1, sentence2, score. NAME/de/ holds a "
        "retrieval task in BEIR's layout: corpus.jsonl and queries.jsonl with _id and text, qrels/test.tsv with "
        "query-id, corpus-id, score. Where the two sides differ in language, the name has both: in en+de.csv the first "
        "text is English and the second German, in en+de/ queries are English and the corpus German."
        "\n\nWrites OUTPUT/texts.json.",
        "xvlm2vec evaluate-texts runs/teacher runs/student --data data/texts --output scores/texts",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders or Hub ids, as for evaluate")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the tasks")
    parser.add_argument("--languages", type=console.names, metavar="CODES", help="such as de,en+de (default: all)")
    parser.add_argument("--output", required=True, metavar="DIR", help="for texts.json")
    console.add_encoder_flags(parser)
    return parser
