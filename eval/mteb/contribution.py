"""Writes our benchmarks in the form that mteb's own repository takes: data set, task file, descriptive statistics.

The data set has mteb's layout for retrieval on the Hub (configurations `corpus`, `queries`, `qrels`, and `top_ranked`
where each query has candidates of its own), so that the task file needs no loader: it is metadata alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from datasets import Dataset
from datasets.table import embed_table_storage
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS
from xvlm2vec.eval.benchmarks.reading import MMMEB

from .task_facts import FACTS, TaskFacts
from .tasks import RankingMtebTask, mteb_tasks

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SPLIT = "test"
_WITH_INSTRUCTIONS = (MMMEB, "mmeb")  # their texts hold instructions, which are part of the benchmark
_TASKS = "mteb/tasks/retrieval/{folder}/{name}.py"


@dataclass(frozen=True)
class Contribution:
    """One task as it was written.

    Attributes:
        name: Name of the task and its class.
        repo_id: Where its data set lies on the Hub, or would lie.
        data: Folder of the data set.
        task_file: The task file.
        statistics: Its descriptive statistics.
    """

    name: str
    repo_id: str
    data: Path
    task_file: Path
    statistics: Path


def write_contributions(
    benchmark: str,
    data: str | Path,
    output: str | Path,
    *,
    namespace: str = "mteb",
    datasets: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    api: HfApi | None = None,
) -> list[Contribution]:
    """Write a benchmark's tasks for mteb's own repository.

    Args:
        benchmark: A name of `FACTS`.
        data: Its folder in the published layout.
        output: Folder for `data/TASK` (the data sets) and `mteb/` (files as they lie in mteb's repository).
        namespace: User or organisation on the Hub that holds the data sets.
        datasets: Names of the benchmark's data sets (default: all).
        languages: Codes (default: all that mteb knows).
        api: Pushes each data set with it, and the task file names its commit; without it, the branch `main`.

    Raises:
        ValueError: The benchmark is none of these, its data is damaged, or a row has several images.
        FileNotFoundError: A file is missing.
    """
    key, output = benchmark.lower(), Path(output)
    if key not in FACTS:
        raise ValueError(
            f"no task files can be written for {benchmark!r}; they can for {', '.join(FACTS)}. mteb has XM3600, WIT "
            "and others already, and no rows with several images, as MERIT has them"
        )
    templates = None if key in _WITH_INSTRUCTIONS else NO_INSTRUCTIONS
    tasks = mteb_tasks(benchmark, data, datasets=datasets, languages=languages, templates=templates)
    facts = FACTS[key]
    return [_write(task, parts, facts, output, namespace, api) for task, parts in _named(tasks, facts.title)]


def _write(
    task: RankingMtebTask, parts: Sequence[str], facts: TaskFacts, output: Path, namespace: str, api: HfApi | None
) -> Contribution:
    name = "".join(parts)
    repo_id, folder = f"{namespace}/{name}", output / "data" / name
    _write_data(task, folder, f"Data of the task {name} of mteb: {facts.description} Paper: {facts.reference}.")
    statistics = _write_statistics(task, name, folder, facts, output)
    revision = "main" if api is None else _push(api, repo_id, folder)
    path = output / _TASKS.format(folder=_folder(task), name="_".join(parts).lower())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_source(name, _fields(task, name, repo_id, revision, facts)), "utf-8")
    return Contribution(name, repo_id, folder, path, statistics)


def _push(api: HfApi, repo_id: str, folder: Path) -> str:
    """Uploads a data set and returns its commit; what is there already is not sent again."""
    api.create_repo(repo_id, repo_type="dataset", exist_ok=True)
    api.upload_folder(repo_id=repo_id, repo_type="dataset", folder_path=folder, commit_message="Data of the task")
    return str(api.dataset_info(repo_id).sha)


def _named(tasks: Sequence[RankingMtebTask], title: str) -> list[tuple[RankingMtebTask, list[str]]]:
    """Tasks with the parts of their names: benchmark, data set and task where they tell two apart, direction."""
    firsts = [next(iter(task.ranking_tasks.values())) for task in tasks]
    kinds = [(first.dataset, str(task.metadata.category)) for task, first in zip(tasks, firsts, strict=True)]
    several = len({dataset for dataset, _ in kinds}) > 1
    named = []
    for task, first, kind in zip(tasks, firsts, kinds, strict=True):
        parts = [title, *([first.dataset] if several else []), *([first.task] if kinds.count(kind) > 1 else [])]
        named.append((task, [*map(_word, parts), kind[1].upper(), "Retrieval"]))
    return named


def _word(part: str) -> str:
    """A part of a name without what names of classes cannot hold."""
    return "".join(piece[:1].upper() + piece[1:] for piece in re.split(r"[\W_]+", part))


def _folder(task: RankingMtebTask) -> str:
    return "multilingual" if len(task.ranking_tasks) > 1 else "eng"


def _write_data(task: RankingMtebTask, folder: Path, text: str) -> None:
    """The data set: a file for each part and language; rows that are the same in several languages are one file."""
    task.load_data()
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    written: dict[Any, str] = {}
    for language, splits in task.dataset.items():
        ranking, split = task.ranking_tasks[language], splits[_SPLIT]
        prefix = _prefix(task, language)
        sides = (("corpus", ranking.candidates, split["corpus"]), ("queries", ranking.queries, split["queries"]))
        for part, rows, stored in sides:
            # Names of images mean the same within one collection.
            content = (id(ranking.images), tuple((row.text, row.image) for row in rows))
            if content not in written:
                written[content] = f"{prefix}{part}.parquet"
                _with_bytes(stored).to_parquet(folder / written[content])
            files[f"{prefix}{part}"] = written[content]
        for part, table in (("qrels", _qrels(split["relevant_docs"])), ("top_ranked", _lists(split["top_ranked"]))):
            if table is not None:
                files[f"{prefix}{part}"] = f"{prefix}{part}.parquet"
                table.to_parquet(folder / f"{prefix}{part}.parquet")
    (folder / "README.md").write_text(_data_card(files, text), "utf-8")


def _prefix(task: RankingMtebTask, language: str) -> str:
    return f"{language}-" if len(task.ranking_tasks) > 1 else ""


def _with_bytes(rows: Dataset) -> Dataset:
    """Rows with their images inside of them, instead of paths of this machine."""
    if "image" not in rows.column_names:
        return rows
    return rows.with_format("arrow").map(embed_table_storage, batched=True, batch_size=100).with_format(None)


def _qrels(relevant: Mapping[str, Mapping[str, int]]) -> Dataset:
    pairs = [(query, document, grade) for query, grades in relevant.items() for document, grade in grades.items()]
    queries, documents, grades = map(list, zip(*pairs, strict=True))
    return Dataset.from_dict({"query-id": queries, "corpus-id": documents, "score": grades})


def _lists(ranked: Mapping[str, Sequence[str]] | None) -> Dataset | None:
    if ranked is None:
        return None
    return Dataset.from_dict({"query-id": list(ranked), "corpus-ids": list(map(list, ranked.values()))})


def _data_card(files: Mapping[str, str], text: str) -> str:
    """The data set's card, which tells `datasets` what the configurations are."""
    configurations = [
        {"config_name": name, "data_files": [{"split": _SPLIT, "path": path}]} for name, path in files.items()
    ]
    return f"---\n{yaml.safe_dump({'configs': configurations}, sort_keys=False)}---\n\n{text}\n"


def _fields(task: RankingMtebTask, name: str, path: str, revision: str, facts: TaskFacts) -> dict[str, Any]:
    """The metadata, all of it, as mteb's tests ask."""
    languages = dict(task.metadata.hf_subsets_to_langscripts)
    several = len(languages) > 1
    choose = not all(ranking.whole_pool for ranking in task.ranking_tasks.values())
    return {
        "name": name,
        "description": facts.description,
        "reference": facts.reference,
        "dataset": {"path": path, "revision": revision},
        "type": "Any2AnyMultilingualRetrieval" if several else "Any2AnyRetrieval",
        "category": str(task.metadata.category),
        "modalities": list(task.metadata.modalities),
        "eval_splits": [_SPLIT],
        "eval_langs": languages if several else next(iter(languages.values())),
        "main_score": "hit_rate_at_1" if choose or "Question answering" in facts.subtypes else "ndcg_at_10",
        "date": (f"{facts.year}-01-01", f"{facts.year}-12-31"),
        "domains": list(facts.domains),
        "task_subtypes": list(facts.subtypes),
        "license": facts.license,
        "annotations_creators": facts.annotators,
        "dialect": [],
        "sample_creation": facts.creation,
        "bibtex_citation": facts.bibtex,
    }


def _write_statistics(task: RankingMtebTask, name: str, folder: Path, facts: TaskFacts, output: Path) -> Path:
    """What mteb counts in the data set as it was written: which proves, too, that mteb's own loader reads it."""

    class Metadata(TaskMetadata):
        """Metadata whose statistics lie beside the task file instead of inside the installed mteb."""

        @property
        def descriptive_stat_path(self) -> Path:
            return output / "mteb" / "descriptive_stats" / "Image" / str(self.type) / f"{self.name}.json"

    metadata = Metadata(**_fields(task, name, str(folder), "main", facts))
    written: type[AbsTaskRetrieval] = type(name, (AbsTaskRetrieval,), {"metadata": metadata})
    written().calculate_descriptive_statistics(overwrite_results=True)
    return metadata.descriptive_stat_path


def _source(name: str, fields: Mapping[str, Any]) -> str:
    """The task file."""
    fields = dict(fields)
    languages, citation = fields.pop("eval_langs"), fields.pop("bibtex_citation")
    lines = [f"        {key}={_literal(value)},\n" for key, value in fields.items()]
    table = "".join(f"    {_literal(code)}: {_literal(scripts)},\n" for code, scripts in _items(languages))
    return (
        "from mteb.abstasks.retrieval import AbsTaskRetrieval\n"
        "from mteb.abstasks.task_metadata import TaskMetadata\n\n"
        + (f"_LANGUAGES = {{\n{table}}}\n" if table else f"_LANGUAGES = {_literal(languages)}\n")
        + f"\n\nclass {name}(AbsTaskRetrieval):\n    metadata = TaskMetadata(\n"
        + "".join(lines)
        + "        eval_langs=_LANGUAGES,\n"
        + f'        bibtex_citation=r"""\n{citation}\n""",\n    )\n'
    )


def _items(languages: Any) -> list[tuple[str, list[str]]]:
    return list(languages.items()) if isinstance(languages, Mapping) else []


def _literal(value: Any) -> str:
    """A value as ruff would format it in Python."""
    text = json.dumps(value, ensure_ascii=False)
    return f"({text[1:-1]})" if isinstance(value, tuple) else text
