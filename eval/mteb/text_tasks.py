"""Local texts as mteb's tasks of similarity (STS) and retrieval, and what models score on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

from xvlm2vec.common.files import is_leftover
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS

from .models import EncoderForMteb, MtebModelEncoder, language_script
from .text_files import QRELS, TABLES, Searched, read_pairs, read_searched

SPLIT = "test"
BOTH = "+"
"""Between the codes of two languages: that of the first texts or queries, and that of the others."""
SIMILARITY, RETRIEVAL = "STS", "Retrieval"
KEPT = {
    SIMILARITY: ("cosine_spearman", "cosine_pearson"),
    RETRIEVAL: ("ndcg_at_10", "recall_at_10", "mrr_at_10"),
}
"""Scores of mteb that are kept, the main one first."""


def text_tasks(folder: str | Path, languages: Sequence[str] | None = None) -> list[Any]:
    """Tasks of mteb, one for each folder below `folder`, with its languages as subsets.

    `NAME/LANGUAGE.csv` (or `.jsonl`) has pairs with `sentence1`, `sentence2`, `score`; `NAME/LANGUAGE/` is a retrieval
    task in BEIR's layout. A language is a code such as `de`, or two as `en+de` where the two sides differ.

    Args:
        folder: Where the files are.
        languages: Codes as the files have them (default: all).

    Returns:
        What `mteb.evaluate(model, ...)` takes.

    Raises:
        FileNotFoundError: There is no such folder, no task in it, or a file of a task is missing.
        ValueError: A file is damaged, mteb knows no such language, or no task has one of `languages`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found = {path.name: _parts(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    if not any(found.values()):
        raise FileNotFoundError(
            f"{folder} has no task: expected are NAME/LANGUAGE.csv or .jsonl with scored pairs, or "
            f"NAME/LANGUAGE/{QRELS} and the texts beside it"
        )
    known = dict.fromkeys(language for parts in found.values() for language in parts)
    unknown = [code for code in languages or () if code not in known]
    if unknown:
        raise ValueError(f"no task in {folder} has the language {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = {
        name: {language: path for language, path in parts.items() if languages is None or language in languages}
        for name, parts in found.items()
    }
    return [_task(name, parts) for name, parts in chosen.items() if parts]


def score_texts(encoder: Any, tasks: Sequence[Any]) -> list[dict[str, Any]]:
    """What a model scores on tasks of `text_tasks`, texts embedded as they are, computed by mteb.

    Args:
        encoder: What `embedding.as_encoder` returns; a model of mteb gets its own prompts.
        tasks: The tasks.

    Returns:
        A row for each task and language: `task`, `type`, `language`, `n` (pairs or queries), `main_score` (its name),
        and the scores that are kept, as fractions.

    Raises:
        ValueError: A correlation is undefined, as all vectors of a model are equal.
    """
    model: Any = encoder.model if isinstance(encoder, MtebModelEncoder) else EncoderForMteb(encoder, NO_INSTRUCTIONS)
    rows: list[dict[str, Any]] = []
    for task in tasks:
        task.load_data()
        counts = {language: _count(splits[SPLIT]) for language, splits in task.dataset.items()}
        result = mteb.evaluate(
            model, task, cache=None, show_progress_bar=False, co2_tracker=False,
            encode_kwargs={"show_progress_bar": False},
        )  # fmt: skip
        for score in result.task_results[0].scores[SPLIT]:
            language = score["hf_subset"]
            rows.append(_row(task.metadata, language, counts[language], score, encoder.name))
    return rows


def _parts(folder: Path) -> dict[str, Path]:
    """Files or folders of one task by language.

    Raises:
        ValueError: It has pairs and retrieval, or one language twice.
    """
    paths = [path for path in sorted(folder.iterdir()) if not is_leftover(path.name)]
    paths = [path for path in paths if path.is_dir() or path.suffix in TABLES]
    if len({path.is_dir() for path in paths}) > 1:
        raise ValueError(f"{folder} has tables of pairs and folders of retrieval; give each kind its own folder")
    parts = {path.name if path.is_dir() else path.stem: path for path in paths}
    if len(parts) < len(paths):
        raise ValueError(f"{folder} has a language twice, as .csv and as .jsonl")
    return parts


def _task(name: str, parts: Mapping[str, Path]) -> AbsTask:
    """One task of mteb with its data read."""
    searched = next(iter(parts.values())).is_dir()
    read: Any = {language: _retrieval(path) if searched else _similarity(path) for language, path in parts.items()}
    kind = RETRIEVAL if searched else SIMILARITY

    def load_data(self: Any, num_proc: int | None = None, **kwargs: Any) -> None:
        """The data is read already; mteb forgets it after a task."""
        self.dataset = {language: {SPLIT: data} for language, data in read.items()}
        self.data_loaded = True

    base = AbsTaskRetrieval if searched else AbsTaskSTS
    # mteb falls back on the metadata of a task's class: so each task has a class of its own.
    made: Any = type(f"Local{kind}", (base,), {"metadata": _metadata(name, kind, parts), "load_data": load_data})
    return made()


def _metadata(name: str, kind: str, parts: Mapping[str, Path]) -> TaskMetadata:
    fields: dict[str, Any] = {  # checked by pydantic
        "name": name,
        "description": f"Local texts, {kind}.",
        "dataset": {"path": f"local/{name}", "revision": "1"},
        "type": kind,
        "category": "t2t",
        "modalities": ["text"],
        "eval_splits": [SPLIT],
        "eval_langs": {language: _scripts(language, path) for language, path in parts.items()},
        "main_score": KEPT[kind][0],
    }
    return TaskMetadata(**fields)


def _scripts(languages: str, path: Path) -> list[str]:
    scripts = [language_script(code) for code in languages.split(BOTH)]
    if None in scripts or len(scripts) > 2:
        raise ValueError(f"{path}: mteb knows no language {languages!r}; a file or folder is called by its language, "
                         f"as de.csv, or by two, as en{BOTH}de.csv")  # fmt: skip
    return [str(script) for script in scripts]


def _similarity(path: Path) -> Dataset:
    return Dataset.from_dict(vars(read_pairs(path)))


def _retrieval(folder: Path) -> dict[str, Any]:
    read: Searched = read_searched(folder)
    sides = {
        side: Dataset.from_dict({"id": list(texts), "text": list(texts.values())})
        for side, texts in (("queries", read.queries), ("corpus", read.corpus))
    }
    return {**sides, "relevant_docs": read.relevant, "top_ranked": None}


def _count(data: Any) -> int:
    """Pairs, or queries."""
    return len(data["queries"] if isinstance(data, dict) else data)


def _row(metadata: TaskMetadata, language: str, count: int, score: Mapping[str, Any], model: str) -> dict[str, Any]:
    kept = {name: float(score[name]) for name in KEPT[str(metadata.type)]}
    if any(map(math.isnan, kept.values())):
        raise ValueError(f"{metadata.name}, {language}: the correlation of {model} is undefined: it gives all pairs "
                         "the same cosine")  # fmt: skip
    names = {"task": metadata.name, "type": str(metadata.type), "language": language, "n": count}
    return {**names, "main_score": metadata.main_score, **kept}
