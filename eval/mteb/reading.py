"""Retrieval tasks of mteb as ranking tasks: mteb gets the data and says what is right, the runner does the rest."""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mteb.types import PromptType

from xvlm2vec.eval.benchmarks.faults import faulty_rows
from xvlm2vec.eval.benchmarks.images import ColumnImages
from xvlm2vec.eval.benchmarks.instructions import Templates, instructions, templates_hash
from xvlm2vec.eval.ranking import Asked, RankingTask, Row

from .models import subset_language, wrapper
from .run import names_of_rows

logger = logging.getLogger(__name__)

# Tasks whose ids name the same item in every language; elsewhere equal ids of two languages may be two items.
PARALLEL = frozenset(
    f"{name}{direction}Retrieval" for name in ("XM3600", "XFlickr30kCo", "Multi30k") for direction in ("T2I", "I2T")
)
_ANOTHER_WAY = "pass --through mteb to have it run by mteb itself"
_SIDES = ((PromptType.query, "queries"), (PromptType.document, "corpus"))


def read_mteb(tasks: Sequence[Any], templates: Templates | None = None) -> list[RankingTask]:
    """Load retrieval tasks of mteb and turn each of their splits and subsets into a ranking task.

    Documents keep mteb's ids: equal ones are embedded once, and count as many times in the ranking. A query without a
    right document in the corpus scores nothing and stays in the mean, as in mteb.

    Args:
        tasks: Such as `run.mteb_task` returns. Their data stays loaded, for the images are read as they are embedded.
        templates: Instructions in the language of each subset (default: ours).

    Raises:
        ValueError: A task is none of texts and images, has rules of its own for what counts, or its data is not of the
            form that mteb documents; names what is missing.
    """
    templates = templates if templates is not None else instructions()
    return [read for task in tasks for read in _read_task(task, templates)]


def _read_task(task: Any, templates: Templates) -> list[RankingTask]:
    _check_rules(task)
    logger.info("Reading %s", task.metadata.name)
    splits = _loaded(task)
    numbers: dict[str, int] = {}  # of the queries of all subsets: equal ids have one number
    return [
        _ranking_task(task, split, subset, data, templates, numbers)
        for subset, of_subset in splits.items()
        for split, data in of_subset.items()
    ]


def _check_rules(task: Any) -> None:
    """Refuses what the runner would score in another way than mteb does."""
    name, sides = task.metadata.name, set(str(task.metadata.category)) - {"2"}
    if not sides <= {"t", "i"}:
        raise ValueError(f"{name} is of category {task.metadata.category}; only texts and images are embedded here")
    for rule in ("ignore_identical_ids", "skip_first_result"):
        if getattr(task, rule, False):
            raise ValueError(f"{name} has the rule {rule}, which is mteb's own; {_ANOTHER_WAY}")


def _loaded(task: Any) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The parts of each subset and split, in mteb's present form.

    Raises:
        ValueError: mteb's loader stumbles over its data set, or the parts are in no known form; names what is missing.
    """
    import mteb

    try:
        task.load_data()
        if hasattr(task, "convert_v1_dataset_format_to_v2"):
            task.convert_v1_dataset_format_to_v2(num_proc=None)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{task.metadata.name}: the loader of mteb {mteb.__version__} stumbled ({error!r}): the data set, or the "
            "loader, has another form than the other expects; another release of mteb may fit"
        ) from error
    held = getattr(task, "dataset", None) or {}
    splits: dict[str, dict[str, Mapping[str, Any]]] = {}
    for subset in task.hf_subsets:
        for split in task.eval_splits:
            where = f"{task.metadata.name}, subset {subset}, split {split}"
            data = held.get(subset, {}).get(split) or {}
            missing = [part for part in ("queries", "corpus", "relevant_docs") if part not in data]
            if missing:
                raise ValueError(
                    f"{where}: mteb {mteb.__version__} gives no {', '.join(missing)} in the form that is known here "
                    f"(task.dataset[subset][split], since mteb 2.0); {_ANOTHER_WAY}"
                )
            splits.setdefault(subset, {})[split] = data
    return splits


def _ranking_task(
    task: Any,
    split: str,
    subset: str,
    data: Mapping[str, Any],
    templates: Templates,
    numbers: dict[str, int],
) -> RankingTask:
    where, names = f"{task.metadata.name}/{subset}", names_of_rows(task, split, subset)
    qrels, lists = data["relevant_docs"], data.get("top_ranked") or None
    asked = [name for name in map(str, data["queries"]["id"]) if len(qrels.get(name, ()))]
    documents = _distinct(list(map(str, data["corpus"]["id"])), f"{where}: corpus")
    queries, corpus = (
        _side(task, side, subset, data[part], ids, templates, f"{where}: {part}")
        for (side, part), ids in zip(_SIDES, (asked, list(documents)), strict=True)
    )
    index, grades, counts = _relevant(qrels, asked, documents, lists)
    if lost := sum(map(len, grades)) - int(counts.sum()):
        logger.warning("%s: %d right documents are no candidates; they count as not found, as in mteb", where, lost)
    golds = [[corpus.texts[place] for place in row[:count]] for row, count in zip(index, counts, strict=True)]
    english = wrapper(templates, task.metadata, "en", PromptType.query)
    images = [side.images for side in (queries, corpus) if side.images is not None]
    return RankingTask(
        **names,
        queries=queries.rows,
        candidates=corpus.rows,
        candidate_index=index,
        images=images[0] if len(images) == 1 else ChainMap(*images),  # type: ignore[arg-type]  # only read
        row_ids=np.array([numbers.setdefault(name, len(numbers)) for name in asked]),
        templates_hash=templates_hash(templates),
        instructions=(queries.instruction, corpus.instruction),
        gold_counts=counts,
        whole_pool=lists is None,
        parallel=task.metadata.name in PARALLEL,
        grades=grades,
        main_score=task.metadata.main_score,
        copies=True,
        asked=Asked(queries.texts, lambda text, shown: english(text, shown) or text),
        faults=faulty_rows((task.metadata.name,), names["language"], queries.texts, golds),
    )


@dataclass(frozen=True)
class _Side:
    """Queries or documents: texts without instructions, the rows that are embedded, images, and the instruction."""

    texts: list[str | None]
    rows: list[Row]
    images: ColumnImages | None
    instruction: str


def _side(
    task: Any, side: PromptType, subset: str, part: Any, ids: Sequence[str], templates: Templates, where: str
) -> _Side:
    """One side of a task, of those ids."""
    kinds = task.metadata.get_modalities(side)
    wrap = wrapper(templates, task.metadata, subset_language(task.metadata, subset), side)
    by_id = _texts(part, side, where) if "text" in kinds else {}
    texts = [by_id.get(name) for name in ids]
    instruction = wrap("{text}", "image" in kinds) or "{text}"
    if "image" not in kinds:
        return _Side(texts, [Row(wrap(text, False)) for text in texts], None, instruction)
    names = [f"{side.value} {name}" for name in ids]
    rows = [Row(wrap(text, True), name) for text, name in zip(texts, names, strict=True)]
    return _Side(texts, rows, _images(part, side.value, where), instruction)


def _distinct(ids: Sequence[str], where: str) -> dict[str, int]:
    """Places of documents by their ids."""
    places = {name: place for place, name in enumerate(ids)}
    if len(places) < len(ids):
        doubled = next(name for place, name in enumerate(ids) if places[name] != place)
        raise ValueError(f"{where} has the id {doubled!r} {ids.count(doubled)} times, so that nobody can tell which is "
                         f"right; {_ANOTHER_WAY}")  # fmt: skip
    return places


def _relevant(
    qrels: Mapping[str, Mapping[str, int]],
    queries: Sequence[str],
    documents: Mapping[str, int],
    lists: Mapping[str, Sequence[str]] | None,
) -> tuple[list[list[int]], list[list[float]], np.ndarray]:
    """The places of each query's candidates, the right ones first; grades of all right ones; how many are candidates.

    Args:
        qrels: Grades by query and document.
        queries: The queries that have any.
        documents: Places of the documents.
        lists: The candidates of each query, where not the whole corpus competes.
    """
    index, grades, counts = [], [], []
    for query in queries:
        listed = dict.fromkeys(map(str, lists.get(query, ()))) if lists is not None else documents
        right = {name: float(grade) for name, grade in qrels[query].items() if grade and grade > 0}
        found = [name for name in right if name in listed and name in documents]
        missing = [name for name in right if name not in found]
        others = [name for name in listed if name in documents and name not in right] if lists is not None else []
        index.append([documents[name] for name in found + others])
        grades.append([right[name] for name in found + missing])
        counts.append(len(found))
    return index, grades, np.array(counts)


def _texts(part: Any, side: PromptType, where: str) -> dict[str, str]:
    """Texts by id, put together as mteb does: a document's title before it, a query's instruction behind it.

    Raises:
        ValueError: A text is missing, or is a conversation.
    """
    ids, texts = list(map(str, part["id"])), list(part["text"])
    wrong = next((name for name, text in zip(ids, texts, strict=True) if not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(f"{where}: {wrong!r} has no text, or not a single one; {_ANOTHER_WAY}")
    if side == PromptType.query:
        behind = list(part["instruction"]) if "instruction" in part.column_names else [None] * len(texts)
        texts = [f"{text} {more}" if more is not None else text for text, more in zip(texts, behind, strict=True)]
    else:
        before = list(part["title"]) if "title" in part.column_names else [None] * len(texts)
        texts = [(f"{title} {text}" if title else text).strip() for title, text in zip(before, texts, strict=True)]
    return dict(zip(ids, texts, strict=True))


def _images(part: Any, name: str, where: str) -> ColumnImages:
    """Images of one side, still encoded, by the names that its rows use."""
    if "image" not in part.column_names:
        raise ValueError(f"{where} has no column image, only {', '.join(part.column_names)}; {_ANOTHER_WAY}")
    rows = {f"{name} {number}": place for place, number in enumerate(map(str, part["id"]))}
    return ColumnImages(part, "image", where, rows)
