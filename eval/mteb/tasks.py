"""Our benchmarks as tasks of mteb, with the tie-fair hit@1 as their main score."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

from xvlm2vec.eval.benchmarks.entries import ENTRIES
from xvlm2vec.eval.benchmarks.reading import EMOJI, FOLDER, HUB_IDS, MMMEB, read_benchmark
from xvlm2vec.eval.metrics import RankCounts, hit_at_1, rank_counts, tied_rows
from xvlm2vec.eval.ranking import TIE_TOLERANCE, RankingTask, Row, gold_places

from .models import OURS, EncoderForMteb, ends_in_line_breaks, language_script

logger = logging.getLogger(__name__)

MAIN_SCORE = "tie_fair_hit_at_1"
_SPLIT = "test"
_KEPT = 1000  # results of each query; more would hold millions of Python objects


class RankingMtebTask(AbsTaskRetrieval):
    """Ranking tasks of one data set in several languages, as one task of mteb; `as_mteb_task` makes one.

    Args:
        tasks: The tasks, one for each language.
    """

    k_values = (1, 5, 10)

    def __init__(self, tasks: Sequence[RankingTask], **kwargs: Any) -> None:
        self.ranking_tasks = {task.language: task for task in tasks}
        super().__init__(**kwargs)
        lengths = [len(task.candidates) if task.whole_pool else task.candidate_index.shape[1] for task in tasks]
        self._top_k = min(_KEPT, max(lengths))

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Turn queries, pool and candidate lists into mteb's data sets."""
        if self.data_loaded:
            return
        self.dataset = {
            language: {_SPLIT: _split_data(task, self.metadata)}
            for language, task in self.ranking_tasks.items()
            if language in self.hf_subsets
        }
        self.data_loaded = True

    def evaluate(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Score a model as mteb does.

        Raises:
            ValueError: mteb would hide the images from the model, or the line breaks of the style newline.
        """
        meta = model.mteb_model_meta
        if "image" in self.metadata.modalities and "image" not in meta.modalities:
            modalities = ", ".join(meta.modalities)
            raise ValueError(
                f"{self.metadata.name} has images, and mteb has {meta.name} as a model of {modalities}, so it would "
                "leave them out; for a SentenceTransformer pass xvlm2vec.eval.mteb_model(model)"
            )
        if ends_in_line_breaks(self.metadata, PromptType.document) and not isinstance(model, EncoderForMteb):
            raise ValueError(
                f"{self.metadata.name}: mteb strips the line breaks from the ends of documents; "
                "pass xvlm2vec.eval.mteb_model(model), which puts them back"
            )
        return super().evaluate(model, *args, **kwargs)

    def task_specific_scores(
        self, scores: Any, qrels: Mapping[str, Any], results: Mapping[str, Mapping[str, float]], hf_split: str,
        hf_subset: str,
    ) -> dict[str, float]:  # fmt: skip
        """The expected hit@1 if level candidates are ordered by lot, and how many rows have any level with the gold."""
        counts = counts_of_results(qrels, results)
        return {MAIN_SCORE: float(hit_at_1(counts).mean()), "tied_rows": float(tied_rows(counts))}


def mteb_tasks(
    benchmark: str | Sequence[RankingTask],
    data: str | Path | None = None,
    *,
    datasets: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    styles: Sequence[str] | None = None,
    templates: Any = None,
) -> list[RankingMtebTask]:
    """One of our benchmarks as tasks of mteb, one for each data set, task and style, with languages as subsets.

    Args:
        benchmark: A name such as `MMMEB`, or ranking tasks that were read already.
        data: Local folder in the published layout (default: the data set on the Hub).
        datasets: Names of data sets (default: all).
        languages: Codes (default: all).
        tasks: Names of tasks (default: all).
        styles: How texts end (default: `plain` for MMMEB, otherwise as they are).
        templates: Instructions instead of ours.

    Returns:
        What `mteb.evaluate(model, ...)` takes.

    Raises:
        ValueError: A name is unknown, the data is damaged, or mteb's tasks cannot hold it.
        FileNotFoundError: A file is missing, or the benchmark has no folder and no data set on the Hub.
    """
    reference = None
    if isinstance(benchmark, str):
        folder = Path(data) if data is not None else _download(benchmark)
        entry = ENTRIES.get(benchmark.lower())
        reference = entry.source.split(" ")[0] if entry else None
        styles = styles or (("plain",) if benchmark.lower() == MMMEB else None)
        ranking_tasks = read_benchmark(
            benchmark, folder, datasets=datasets, languages=languages, tasks=tasks, styles=styles, templates=templates
        )
    else:
        ranking_tasks = list(benchmark)
    groups: dict[tuple[str, str, str, str], list[RankingTask]] = {}
    for task in ranking_tasks:
        if language_script(task.language) is None:
            logger.warning("Left out %s: mteb knows no language %r", task.name, task.language)
            continue
        groups.setdefault((task.benchmark, task.dataset, task.task, task.style), []).append(task)
    return [as_mteb_task(group, reference) for group in groups.values()]


def as_mteb_task(tasks: Sequence[RankingTask], reference: str | None = None) -> RankingMtebTask:
    """Ranking tasks of one data set, task and style as one task of mteb.

    Args:
        tasks: The tasks, one for each language.
        reference: Where the data comes from.

    Raises:
        ValueError: A row has several images, which mteb's tasks cannot hold.
    """
    # mteb drops a task's metadata with its data and falls back on those of its class: so each has a class of its own.
    kind: type[RankingMtebTask] = type("RankingMtebTask", (RankingMtebTask,), {"metadata": _metadata(tasks, reference)})
    return kind(tasks)


def counts_of_results(qrels: Mapping[str, Any], results: Mapping[str, Mapping[str, float]]) -> RankCounts:
    """Where the best relevant document of each query stands among the others that were found.

    One that was not found stands below all of them.
    """
    width = max((len(hits) for hits in results.values()), default=0)
    gold = np.full(len(results), -np.inf, dtype=np.float32)
    scores = np.full((len(results), width), np.nan, dtype=np.float32)
    for row, (query, hits) in enumerate(results.items()):
        relevant = {document for document, grade in qrels[query].items() if grade > 0}
        gold[row] = max((score for document, score in hits.items() if document in relevant), default=-np.inf)
        others = [score for document, score in hits.items() if document not in relevant]
        scores[row, : len(others)] = others
    return rank_counts(scores, gold, ~np.isnan(scores), TIE_TOLERANCE)


def _metadata(tasks: Sequence[RankingTask], reference: str | None) -> TaskMetadata:
    first = tasks[0]
    for task in tasks:
        for row in (*task.queries, *task.candidates):
            if len(row.images) > 1:
                raise ValueError(f"{task.name}: {row} has several images; mteb's tasks hold one for each row")
    names = [first.benchmark, *([first.dataset] if first.dataset != first.benchmark else []), first.task]
    if first.style not in ("plain", "verbatim"):
        names.append(first.style)
    queries, documents = (_modalities(rows) for rows in (first.queries, first.candidates))
    fields: dict[str, Any] = {  # checked by pydantic
        "name": "-".join(names),
        "description": f"{first.benchmark}, data set {first.dataset}, task {first.task}, with instructions in place.",
        "dataset": {"path": "/".join(names), "revision": first.templates_hash or "1"},
        "type": "Any2AnyMultilingualRetrieval",
        "category": f"{_letters(queries)}2{_letters(documents)}",
        "modalities": sorted({*queries, *documents}),
        "eval_splits": [_SPLIT],
        "eval_langs": {task.language: [str(language_script(task.language))] for task in tasks},
        "main_score": MAIN_SCORE,
        "reference": reference,
        "prompt": {"query": "", "document": ""},
        "contributed_by": OURS,
    }
    return TaskMetadata(**fields)


def _modalities(rows: Sequence[Row]) -> list[str]:
    parts = {"image": any(row.images for row in rows), "text": any(row.text for row in rows)}
    return [name for name, present in parts.items() if present]


def _letters(modalities: Sequence[str]) -> str:
    return "".join(name[0] for name in modalities)


def _split_data(task: RankingTask, metadata: TaskMetadata) -> Any:
    golds = gold_places(task)
    relevant, ranked = {}, {}
    for row, places in enumerate(task.candidate_index):
        right = places[: golds.shape[1]][golds[row]]
        relevant[f"q{row}"] = {f"d{place}": 1 for place in right}
        ranked[f"q{row}"] = [f"d{place}" for place in dict.fromkeys(places[places >= 0].tolist())]
    queries, _, documents = str(metadata.category).partition("2")
    return {
        "queries": _rows(task.queries, "q", queries, task.images),
        "corpus": _rows(task.candidates, "d", documents, task.images),
        "relevant_docs": relevant,
        "top_ranked": None if task.whole_pool else ranked,
    }


def _rows(rows: Sequence[Row], prefix: str, letters: str, images: Mapping[str, Any]) -> Any:
    from datasets import Dataset, Features, Image, Value

    columns: dict[str, list[Any]] = {"id": [f"{prefix}{number}" for number in range(len(rows))]}
    features: dict[str, Any] = {"id": Value("string")}
    if "t" in letters:
        columns["text"], features["text"] = [row.text or "" for row in rows], Value("string")
    if "i" in letters:
        columns["image"], features["image"] = [_stored(row, images) for row in rows], Image()
    return Dataset.from_dict(columns, Features(features))


def _stored(row: Row, images: Mapping[str, Any]) -> Any:
    """An image as a data set stores it: the path of a file, the bytes as they are, or those of a PNG."""
    if not row.images:
        return None
    image = images[row.images[0]]
    if isinstance(image, Mapping):
        return dict(image)
    if isinstance(image, str | Path):
        return {"path": str(image), "bytes": None}
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"path": None, "bytes": buffer.getvalue()}


def _download(benchmark: str) -> Path:
    from huggingface_hub import snapshot_download

    name = benchmark.lower()
    if name not in HUB_IDS:
        hint = " (`xvlm2vec corpus` writes one)" if name in (EMOJI, FOLDER) else ""
        raise FileNotFoundError(f"{benchmark} has no data set on the Hub with its files; pass data=, a folder{hint}")
    return Path(snapshot_download(HUB_IDS[name], repo_type="dataset"))
