r"""What `--language-temperature` does on an uneven corpus, at equal steps, on the quickstart's small world.

    python benchmarks/languages_emoji.py runs/losses --json benchmarks/results/languages_emoji.json

After `losses_emoji.py` in the same folder, whose models of `info-nce` are taught: German stands in every row, Japanese
in one of eight, and each step draws one translation of a row. One thread. What is done is not done again.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from datasets import Dataset
from losses_emoji import BATCH, DISTILL_STEPS, SIZES, mean, once, parse, read, spread, teach

from xvlm2vec.common.files import write_json
from xvlm2vec.corpus.emoji.training import parallel_rows
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.quickstart.config import QuickstartConfig
from xvlm2vec.quickstart.run_folder import RunFolder

TEMPERATURES = (1.0, 5.0)
RARE, EVERY = "ja", 8
KIND = "languages"


def main() -> None:
    flags = parse(__doc__)
    for seed in flags.seeds:
        run = RunFolder(QuickstartConfig(str(flags.output / f"seed{seed}"), small=True, seed=seed, sizes=SIZES))
        for temperature in TEMPERATURES:
            once(run, KIND, f"temperature {temperature:g}", partial(balance, run, temperature))
    found = [run for run in read(flags.output) if run["kind"] == KIND]
    summary = {f"temperature {temperature:g}": summarise(found, temperature) for temperature in TEMPERATURES}
    settings = {"steps": DISTILL_STEPS, "batch": BATCH, "rare": RARE, "in_one_row_of": EVERY, "translations_per_row": 1}
    content = {"name": "languages_emoji", "beside": flags.beside, "settings": settings}
    write_json(flags.json, {**content, "summary": summary, "runs": found})
    print(json.dumps(summary, indent=1))


def balance(run: RunFolder, temperature: float) -> dict[str, Any]:
    """Teaches both languages from the uneven corpus."""
    settings = {"translations_per_row": 1, "language_temperature": temperature}
    return teach(run, f"temperature-{temperature:g}", "self-distillation", uneven(run), **settings)


def uneven(run: RunFolder) -> Dataset:
    """The rows of one epoch, most of them without the rare language."""
    made = parallel_rows(run.world, rows=DISTILL_STEPS * BATCH, seed=run.config.seed)
    rows = [made[place] for place in range(len(made))]
    for place, row in enumerate(rows):
        kept = [item for item in row["translations"] if item["lang"] != RARE or place % EVERY == 0]
        row["translations"] = kept
    return Dataset.from_list(rows, features=parallel_features())


def summarise(found: list[dict[str, Any]], temperature: float) -> dict[str, Any]:
    """Of each language what was seen and what came out; of English how far it moved."""
    runs = [run for run in found if run["name"] == f"temperature {temperature:g}"]
    summary: dict[str, Any] = {"seeds": [run["seed"] for run in runs]}
    for language in ("de", RARE):
        summary[language] = {
            "rows": spread([run["languages"][language]["rows"] for run in runs], digits=0),
            "tokens": spread([run["languages"][language]["tokens"] for run in runs], digits=0),
            "distance": spread([run["held_out"][f"distance/{language}"] for run in runs], digits=4),
            "ndcg_at_10": spread([mean(run, "ndcg_at_10", (language,)) for run in runs]),
        }
    drift = spread([run["held_out"]["english_drift"] for run in runs], digits=4)
    return {**summary, "en": {"drift": drift, "ndcg_at_10": spread([mean(run, "ndcg_at_10", ("en",)) for run in runs])}}


if __name__ == "__main__":
    main()
