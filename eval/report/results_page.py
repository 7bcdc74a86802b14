"""The HTML report of one results file, or of two side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from xvlm2vec.common.languages import language
from xvlm2vec.common.result_keys import CELL_KEYS, METRICS
from xvlm2vec.common.tasks import task_title
from xvlm2vec.eval.results import Results, row_key
from xvlm2vec.eval.sizes import size_summary

from .data import Answer, Example, LanguageInfo, Measure, Model, ReportData
from .failing import failing_languages
from .tables import Column, column_names, column_of, fault_sentence
from .templates import percent

_MEASURES = (  # heading, key, whether in percent, note
    ("Translations found", "translation_accuracy", True, "an item's text in the language and in English are each "
     "other's nearest; higher is better."),
    ("CKA", "cka", False, "how alike the geometries of English and the language are; higher is better."),
    ("Own language", "language_bias", True, "share of the language itself among a text's ten nearest in a pool of all "
     "languages; near its share of the pool is better."),
    ("Modality gap", "modality_gap", False, "distance between the centres of images and texts; lower is better."),
    ("Hubness", "hubness", False, "skewness of how often a candidate is near a query; lower is better."),
    ("English drift", "english_drift", False, "one minus the cosine to the other model's English vectors, mean; near "
     "0, an index made with it stays valid."),
)  # fmt: skip


def results_page(results: Results, before: Results | None = None, metric: str = "p_at_1") -> ReportData:
    """What the page of one evaluation shows, or of two on the same tasks.

    Args:
        results: The scores.
        before: Scores of an earlier, or another, model. Tasks that only one of the two has are left out.
        metric: Which score sorts the languages that fail.

    Raises:
        ValueError: There is nothing that both were scored on.
    """
    models: dict[Model, Results] = {"student": results} if before is None else {"teacher": before, "student": results}
    shared = set.intersection(*({row_key(row) for row in one.rows} for one in models.values()))
    if not shared:
        both = " and ".join(one.model for one in models.values())
        raise ValueError(f"there is nothing to show: {both} {'have no task in common' if before else 'has no rows'}")
    rows = [row for row in results.rows if row_key(row) in shared]
    columns = list(dict.fromkeys(column_of(row) for row in rows))
    names = dict(zip(columns, column_names(columns), strict=True))
    codes = sorted({row["language"] for row in rows}, key=lambda code: (code != "en", language(code).name))
    return ReportData(
        title=" beside ".join(short_names([one.model for one in reversed(models.values())])),
        subtitle=_subtitle(rows),
        languages=[LanguageInfo.of(code, "english" if code == "en" else "taught") for code in codes],
        tasks={name: _label(column, name) for column, name in names.items()},
        scores={model: _scores(one.rows, shared, names) for model, one in models.items()},
        models=(before.model if before else "", results.model),
        taught_word="other" if "en" in codes else "scored",
        changes=_changes(before, results, names) if before else {},
        measures=vector_measures(list(models.values())),
        sizes=size_summary(results.sizes),
        failing=failing_languages(results, before, metric),
        images=_images(models.values()),
        examples=_examples(models, shared, names),
        examples_note="A few test rows drawn at random, the same in every language, and some that a model missed.",
        facts=[*_rank_spread(list(models.values()), names), *_facts(results)],
        seconds=results.seconds,
    )


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the folders that tell nobody more: `student` for `runs/one/student`."""
    short = [name.rstrip("/").rpartition("/")[2] for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)


def _label(column: Column, name: str) -> str:
    """The name of the column with its task spelt out."""
    return task_title(column[2]) + name.removeprefix(column[2])


def _subtitle(rows: Sequence[Mapping[str, Any]]) -> str:
    benchmarks = ", ".join(dict.fromkeys(row["benchmark"] for row in rows))
    total, ties = (sum(row.get(name, 0) for row in rows) for name in ("n", "ties"))
    first = f"{benchmarks}: {total:,} queries in all, of which {ties:,} had a right answer tied with another one."
    return " ".join(filter(None, [first, fault_sentence(rows)]))


def _scores(rows: Iterable[Mapping[str, Any]], shared: set[Any], names: Mapping[Column, str]) -> dict[str, Any]:
    scores: dict[str, dict[str, Any]] = {name: {} for name in names.values()}
    for row in rows:
        if row_key(row) in shared:
            values = (
                f"{METRICS[name]} {percent(row[name])}" for name in ("r_at_10", "ndcg_at_10", "mrr") if name in row
            )
            more = "".join(f"{mark} {value}" for mark, value in zip((";", ",", ","), values, strict=False))
            cell = {name: row[name] for name in CELL_KEYS} | {"more": more}
            scores[names[column_of(row)]][row["language"]] = cell
    return scores


def _changes(before: Results, after: Results, names: Mapping[Column, str]) -> dict[str, Any]:
    """Paired differences, where both results have the values of single rows."""
    if not any(key in after.per_row for key in before.per_row):
        return {}
    changes: dict[str, dict[str, Any]] = {}
    for change in before.compare(after):
        if column_of(change) in names:
            changes.setdefault(names[column_of(change)], {})[change["language"]] = change
    return changes


def vector_measures(models: Sequence[Results]) -> list[Measure]:
    """What the vectors of one model or two look like: means by language over the tasks that both were scored on."""
    shared = set.intersection(*({row_key(row) for row in one.rows} for one in models))
    measures = []
    for name, key, in_percent, note in _MEASURES:
        values = [_mean_by_language(one, key, shared) for one in models]
        if not all(values):  # the earlier model has no drift from itself
            values = values[-1:]
        if any(values):
            measures.append(Measure(name, note, values, in_percent))
    return measures


def _mean_by_language(results: Results, key: str, shared: set[Any]) -> dict[str, float]:
    by_language: dict[str, list[float]] = {}
    for row in results.rows:
        if row_key(row) in shared and key in row.get("alignment", {}):
            by_language.setdefault(row["language"], []).append(row["alignment"][key])
    return {code: float(np.mean(values)) for code, values in by_language.items()}


def _images(models: Iterable[Results]) -> dict[str, bytes]:
    """Copies of the images that examples show."""
    images: dict[str, bytes] = {}
    for results in models:
        for example in results.examples:
            for item in (example["query"], example["gold"], *example["top"]):
                images |= {name: results.images[name] for name in item.get("images", ()) if name in results.images}
    return images


def _examples(models: Mapping[Model, Results], shared: set[Any], names: Mapping[Column, str]) -> list[Example]:
    """Every example of any model; where another has no list for it, its rank is still known."""
    by_model = {
        model: {(row_key(item), item["row"]): item for item in results.examples if row_key(item) in shared}
        for model, results in models.items()
    }
    images = _images(models.values())
    examples = []
    for place in dict.fromkeys(place for items in by_model.values() for place in items):
        items = {model: by_model[model].get(place) for model in models}
        one = next(item for item in items.values() if item)
        answers = {model: _answers(item, images) for model, item in items.items()}
        examples.append(
            Example(
                task=names[column_of(one)],
                lang=one["language"],
                query_text=one["query"]["text"],
                query_image=_image(one["query"], images),
                gold=_answer(one["gold"], one, images),
                teacher=answers.get("teacher", []),
                student=answers["student"],
                teacher_rank=_rank(models["teacher"], *place) if "teacher" in models else None,
                student_rank=_rank(models["student"], *place),
            )
        )
    return examples


def _answers(example: Mapping[str, Any] | None, images: Mapping[str, bytes]) -> list[Answer]:
    return [_answer(answer, example, images) for answer in example["top"]] if example else []


def _rank(results: Results, key: Any, row: int) -> float | None:
    values = results.per_row.get(key)
    if values is None:
        return None
    ranks = values.ranks[values.row_ids == row]
    return round(float(ranks[0]) + 1, 1) if len(ranks) else None


def _answer(answer: Mapping[str, Any], example: Mapping[str, Any], images: Mapping[str, bytes]) -> Answer:
    image = _image(answer, images)
    text = answer["text"] if image is None else None
    if image is None and not text:  # no copies were kept
        text = str(answer["image"])
    return Answer(text, image, answer["id"] in example.get("golds", [example["gold"]["id"]]))


def _image(item: Mapping[str, Any], images: Mapping[str, bytes]) -> str | None:
    return next((name for name in item.get("images", ()) if name in images), None)


def _rank_spread(models: Sequence[Results], names: Mapping[Column, str]) -> list[tuple[str, str]]:
    """Mean rank variance over the languages of each column, as the standard deviation."""
    spreads: dict[str, list[str]] = {}
    for results in models:
        for summary in results.summaries():
            if "mrv_std" in summary and column_of(summary) in names:
                spreads.setdefault(names[column_of(summary)], []).append(f"{summary['mrv_std']:.2f}")
    return [(f"spread of an item's rank over languages, {name}", " \u2192 ".join(values))
            for name, values in spreads.items()]  # fmt: skip


def _facts(results: Results) -> list[tuple[str, str]]:
    settings = {name.replace("_", " "): str(value) for name, value in results.settings.items()}
    versions = {f"{name} version": version for name, version in results.versions.items()}
    templates = {"instructions": results.templates_hash} if results.templates_hash else {}
    return list((templates | settings | versions).items())
