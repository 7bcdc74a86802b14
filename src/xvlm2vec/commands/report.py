"""`xvlm2vec report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.files import write_text
from xvlm2vec.flags import console

if TYPE_CHECKING:
    from xvlm2vec.eval.results import Results


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and writes the tables."""
    parser = console.parser(
        "report",
        "Turns results into a Markdown table, languages by tasks. Two results on the same tasks become one table, "
        "before -> after; of more, each gets a table of its own. A second table has the languages that fail, the worst "
        "first, and what their misses come from: the price of the script, the text, or the image.\n\nWith --html, "
        "one or two results also become a page to look at: which languages fail and why, heat maps, the gap to "
        "English, what smaller vectors cost, and examples with their images. It is a single file that loads nothing.",
        "xvlm2vec report scores/teacher scores/student --html report.html --output report.md\n"
        "xvlm2vec report scores/student --yaml",
    )
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="results.json of evaluate, or its folder")
    parser.add_argument("--output", metavar="FILE", help="where to write (default: the terminal)")
    parser.add_argument("--metric", default="p_at_1", metavar="NAME", help="p_at_1, r_at_5, r_at_10, ndcg_at_10 or mrr "
                        "(default p_at_1)")  # fmt: skip
    parser.add_argument("--no-intervals", action="store_true", help="leave out the 95%% intervals")
    parser.add_argument("--yaml", action="store_true", help="the model-index of a model card instead of a table")
    parser.add_argument("--eval-results", metavar="DATASET", help="YAML for .eval_results/ in the model's repository: "
                        "the scores on the benchmark that the Hub knows by this id")  # fmt: skip
    parser.add_argument("--html", metavar="FILE", help="write the page of one or two results")
    flags = parser.parse_args(console.with_help(arguments))
    from xvlm2vec.eval.results import Results

    if flags.eval_results and len(flags.results) > 1:
        parser.error(f"--eval-results is about one model, not {len(flags.results)}")
    if flags.html and len(flags.results) > 2:
        parser.error(f"--html shows one or two results, not {len(flags.results)}")
    results = [Results.load(path) for path in flags.results]
    if flags.html:
        write_page(results, flags.html, flags.metric)
    if flags.eval_results:
        text = entries(results[-1], flags.eval_results)
    elif flags.yaml:
        text = model_index(results)
    else:
        text = tables(results, flags.metric, not flags.no_intervals)
    if flags.output is None:
        console.show(text)
        return 0
    path = Path(flags.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    console.show(f"Wrote {path}")
    return 0


def write_page(results: Sequence[Results], path: str, metric: str) -> None:
    """Writes the HTML page of one result, or of two side by side; the metric sorts the languages that fail."""
    from xvlm2vec.eval.report.page import write_report
    from xvlm2vec.eval.report.results_page import results_page

    page = results_page(results[-1], results[0] if len(results) > 1 else None, metric)
    console.show(f"Wrote {write_report(page, path)}")


def tables(results: Sequence[Results], metric: str, intervals: bool) -> str:
    """One table, before -> after where there are two results, or one for each; then why languages fail."""
    from xvlm2vec.eval.report.tables import as_markdown, markdown_table, size_table

    sizes = "".join(
        f"\n## Smaller vectors: {one.model}\n\n{as_markdown(size_table(one))}" for one in results if one.sizes
    )
    options: dict[str, Any] = {"metric": metric, "intervals": intervals}
    if len(results) > 2:
        return "\n".join(
            f"## {one.model}\n\n{markdown_table(one, **options)}{failing(one, None, metric)}" for one in results
        ) + sizes  # fmt: skip
    last, before = results[-1], results[0] if len(results) == 2 else None
    changed = changes(last, before) if before else ""
    return markdown_table(last, before, **options) + failing(last, before, metric) + changed + sizes


def failing(results: Results, before: Results | None, metric: str) -> str:
    """Which languages fail, and why; nothing where only English was scored."""
    from xvlm2vec.eval.report.tables import as_markdown, failing_table

    table = failing_table(results, before, metric=metric)
    return f"\n## Which languages fail, and why\n\n{as_markdown(table)}" if table else ""


def changes(results: Results, before: Results) -> str:
    """What changed and whether it can be chance, where both have the values of single rows."""
    from xvlm2vec.eval.report.tables import as_markdown, change_table

    if not set(results.per_row) & set(before.per_row):
        return ""
    return f"\n## What changed\n\n{as_markdown(change_table(results, before))}"


def entries(results: Results, dataset_id: str) -> str:
    """The scores as `.eval_results/*.yaml` has them."""
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    from xvlm2vec.eval.report.tables import eval_result_entries

    content = eval_result_entries_to_yaml(eval_result_entries(results, dataset_id))
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def model_index(results: Sequence[Results]) -> str:
    """`model-index` of one or more results as YAML."""
    import yaml
    from huggingface_hub.repocard_data import eval_results_to_model_index

    from xvlm2vec.eval.report.tables import eval_results

    entries = [entry for one in results for entry in eval_results_to_model_index(one.model, eval_results(one))]
    return yaml.safe_dump({"model-index": entries}, sort_keys=False, allow_unicode=True)
