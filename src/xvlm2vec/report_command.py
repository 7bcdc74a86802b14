"""`xvlm2vec report`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec import console

if TYPE_CHECKING:
    from xvlm2vec.eval.results import Results


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and writes the tables."""
    parser = console.parser(
        "report",
        "Turns results into a Markdown table, languages by tasks. Two results on the same tasks become one table, "
        "before -> after; of more, each gets a table of its own.",
        "xvlm2vec report scores/teacher scores/student --output report.md\nxvlm2vec report scores/student --yaml",
    )
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="results.json of evaluate, or its folder")
    parser.add_argument("--output", metavar="FILE", help="where to write (default: the terminal)")
    parser.add_argument("--metric", default="p_at_1", metavar="NAME", help="p_at_1, r_at_5, r_at_10, ndcg_at_10 or mrr "
                        "(default p_at_1)")  # fmt: skip
    parser.add_argument("--no-intervals", action="store_true", help="leave out the 95%% intervals")
    parser.add_argument("--yaml", action="store_true", help="the model-index of a model card instead of a table")
    flags = parser.parse_args(console.with_help(arguments))
    from xvlm2vec.eval.results import Results

    results = [Results.load(path) for path in flags.results]
    text = model_index(results) if flags.yaml else tables(results, flags.metric, not flags.no_intervals)
    if flags.output is None:
        console.show(text)
        return 0
    path = Path(flags.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    console.show(f"Wrote {path}")
    return 0


def tables(results: Sequence[Results], metric: str, intervals: bool) -> str:
    """One table, before -> after where there are two results, or one for each."""
    from xvlm2vec.eval.report import markdown_table

    options: dict[str, Any] = {"metric": metric, "intervals": intervals}
    if len(results) == 2:
        return markdown_table(results[1], results[0], **options)
    if len(results) == 1:
        return markdown_table(results[0], **options)
    return "\n".join(f"## {one.model}\n\n{markdown_table(one, **options)}" for one in results)


def model_index(results: Sequence[Results]) -> str:
    """`model-index` of one or more results as YAML."""
    import yaml
    from huggingface_hub.repocard_data import eval_results_to_model_index

    from xvlm2vec.eval.report import eval_results

    entries = [entry for one in results for entry in eval_results_to_model_index(one.model, eval_results(one))]
    return yaml.safe_dump({"model-index": entries}, sort_keys=False, allow_unicode=True)
