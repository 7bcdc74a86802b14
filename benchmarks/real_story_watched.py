r"""What the watched rows of the real story say of adapters, so that settings are not chosen on the held-out part.

    python benchmarks/real_story_watched.py RUN paper=FOLDER contrast=FOLDER --json docs/real-story/watched.json

In the environment of `make real-story`. Captions of the watched stamps look for their English captions and for their
images, among those of all watched stamps, by the teacher of the run and by each activated adapter, in twenty languages
of many scripts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from datasets import load_from_disk
from torch.nn.functional import normalize

from xvlm2vec import XVLM2VecModel
from xvlm2vec.common.files import write_json
from xvlm2vec.corpus.stored import load_parallel

LANGUAGES = [
    "ar",
    "de",
    "el",
    "es",
    "fi",
    "fr",
    "he",
    "hi",
    "it",
    "ja",
    "km",
    "ko",
    "nl",
    "pt",
    "ru",
    "sv",
    "th",
    "tr",
    "uk",
    "zh-CN",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Folder of a run whose teacher is there.")
    parser.add_argument("adapters", nargs="*", help="NAME=FOLDER of each activated adapter.")
    parser.add_argument("--json", type=Path, required=True)
    flags = parser.parse_args()
    rows = list(load_parallel(flags.run / "data" / "validation"))
    captions = by_language(rows)
    model = load(flags.run)
    targets = english_and_images(model, flags.run, [row["text_en"] for row in rows])
    found = {"teacher": scores(model, captions, targets, adapted=False)}
    for name, _, folder in (entry.partition("=") for entry in flags.adapters):
        model = load(flags.run)
        model.add_languages(folder)
        found[name] = scores(model, captions, targets, adapted=True)
    summary = {
        name: {key: mean(of[key] for of in table.values()) for key in table["es"]} for name, table in found.items()
    }
    write_json(flags.json, {"rows": len(rows), "languages": list(captions), "means": summary, "scores": found})
    print(json.dumps(summary, indent=1))


def load(run: Path) -> XVLM2VecModel:
    """The teacher."""
    return XVLM2VecModel.from_pretrained(run / "teacher" / "merged").eval()


def by_language(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, str]]]:
    """The captions of each language, with the number of their row."""
    found: dict[str, list[tuple[int, str]]] = {code: [] for code in LANGUAGES}
    for number, row in enumerate(rows):
        for item in row["translations"]:
            if item["lang"] in found:
                found[item["lang"]].append((number, item["text"]))
    return found


def english_and_images(model: XVLM2VecModel, run: Path, english: list[str]) -> dict[str, torch.Tensor]:
    """Unit vectors `(N, H)` of the English captions, and of an image of each."""
    images: dict[str, Any] = {}
    for pair in load_from_disk(str(run / "data" / "validation-pairs")):
        (image,) = (value for value in pair.values() if hasattr(value, "size"))
        images |= {value: image for value in pair.values() if isinstance(value, str)}
    shown = [images[text] for text in english]
    return {"caption": unit(model.encode(english)), "image": unit(model.encode(text=[""] * len(shown), images=shown))}


def scores(
    model: XVLM2VecModel,
    captions: Mapping[str, list[tuple[int, str]]],
    targets: Mapping[str, torch.Tensor],
    adapted: bool,
) -> dict[str, dict[str, float]]:
    """MRR and recall of each language, and the mean 1 - cosine from the English caption."""
    found = {}
    for code, texts in captions.items():
        numbers = torch.tensor([number for number, _ in texts])[:, None]
        vectors = unit(model.encode([text for _, text in texts], **({"language": code} if adapted else {})))
        found[code] = {"distance": float(1 - (vectors * targets["caption"][numbers[:, 0]]).sum(dim=1).mean())}
        for name, pool in targets.items():
            cosines = vectors @ pool.T
            ranks = (cosines > cosines.gather(1, numbers)).sum(dim=1)
            found[code] |= {
                f"{name} MRR": float((1 / (ranks + 1.0)).mean()),
                f"{name} R@5": float((ranks < 5).float().mean()),
            }
    return found


def unit(vectors: Any) -> torch.Tensor:
    """Vectors at length 1."""
    return normalize(torch.as_tensor(vectors), dim=1)


if __name__ == "__main__":
    main()
