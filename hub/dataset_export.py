"""Writes a benchmark as a dataset repository: parquet per task and language, images once, a card."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from datasets import Dataset, DatasetDict
from datasets.table import embed_table_storage

from xvlm2vec.common.files import write_text
from xvlm2vec.common.languages import hub_languages
from xvlm2vec.common.renamed import renamed_keywords
from xvlm2vec.common.templates import render_template

from .staging import ExportError, staged_folder

IMAGES_CONFIG = "images"
TEMPLATES_FILE = "templates.json"
IMAGES_SPLIT = "test"
ROWS_PER_GROUP = 200
_NAME = re.compile(r"\w+(\.\w+)*\Z")


@renamed_keywords(licence="license")
@dataclass(frozen=True)
class DataSource:
    """Where data came from: a name, its license, and optionally an address and a remark."""

    name: str
    license: str
    url: str = ""
    remark: str = ""


@renamed_keywords(licence="license")
@dataclass(frozen=True)
class BenchmarkCard:
    """What the card of a benchmark says.

    Args:
        name: Name of the benchmark.
        repo_id: Hub id or folder that the snippet loads; the name if `None`.
        description: A paragraph in Markdown.
        license: Identifier of the benchmark's license as the Hub spells it.
        sources: Where images and texts came from.
        task_titles: What each task asks, by task.
        tags: Further tags.
        citation: BibTeX entry.
    """

    name: str
    repo_id: str | None = None
    description: str = ""
    license: str | None = None
    sources: Sequence[DataSource] = ()
    task_titles: Mapping[str, str] | None = None
    tags: Sequence[str] = ()
    citation: str = ""


def export_benchmark(
    tasks: Mapping[str, DatasetDict],
    images: Dataset | None,
    folder: str | os.PathLike[str],
    card: BenchmarkCard,
    templates: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a dataset repository; the same data give the same bytes.

    `load_dataset(folder, "t2i", split="de")` loads a task's rows in a language, `load_dataset(folder, "images",
    split="test")` the images that rows name by path.

    Args:
        tasks: Per task the rows of each language, as splits.
        images: The images, if rows name them rather than hold them.
        folder: Where to write: missing, empty, or an earlier benchmark export, which is replaced.
        card: What to say in `README.md`.
        templates: The instructions that it is evaluated with, `{task: {language: {"query", "target"}}}`; written into
            `templates.json`, where `xvlm2vec evaluate` finds them.

    Raises:
        ExportError: No rows, a name that `datasets` cannot load, or a foreign folder.
    """
    _check_tasks(tasks)
    with staged_folder(folder, "benchmark") as staging:
        configs = []
        for task, languages in tasks.items():
            for language, rows in languages.items():
                write_parquet(rows, staging / task / f"{_split(language)}.parquet")
            configs.append(_config(task, list(map(_split, languages))))
        if images is not None:
            write_parquet(images, staging / IMAGES_CONFIG / f"{IMAGES_SPLIT}.parquet")
            configs.append(_config(IMAGES_CONFIG, [IMAGES_SPLIT]))
        if templates is not None:
            content = json.dumps(templates, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            write_text(staging / TEMPLATES_FILE, content)
        configs[0]["default"] = True
        write_text(staging / "README.md", _readme(tasks, images, configs, card))
    return Path(folder)


def write_parquet(dataset: Dataset, path: Path) -> None:
    """Writes one parquet file that holds its images itself and keeps the features of the data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = dataset.features.arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        for table in dataset.with_format("arrow").iter(batch_size=ROWS_PER_GROUP):
            embedded = embed_table_storage(table.replace_schema_metadata(schema.metadata))
            writer.write_table(embedded.cast(schema))


def _check_tasks(tasks: Mapping[str, DatasetDict]) -> None:
    if not tasks:
        raise ExportError("there are no tasks to export.")
    if IMAGES_CONFIG in tasks:
        raise ExportError(f"a task cannot be called {IMAGES_CONFIG!r}: that is the configuration with the images.")
    for task, languages in tasks.items():
        splits = list(map(_split, languages))
        for name in (task, *splits):
            if not _NAME.match(name):
                raise ExportError(f"{name!r} (task {task!r}) is no name for a split: use letters, digits and _ only.")
        if len(set(splits)) < len(splits):
            raise ExportError(f"task {task!r} has a language in two spellings ({', '.join(languages)}); keep one.")
        empty = [language for language, rows in languages.items() if not len(rows)]
        if empty or not languages:
            raise ExportError(f"task {task!r} has no rows{' in ' + ', '.join(empty) if empty else ''}.")


def _split(language: str) -> str:
    """The split with the rows of a language: `datasets` takes no hyphens in names of splits, so `pt-BR` is `pt_BR`."""
    return language.replace("-", "_")


def _config(name: str, splits: Sequence[str]) -> dict[str, Any]:
    files = [{"split": split, "path": f"{name}/{split}.parquet"} for split in splits]
    return {"config_name": name, "data_files": files}


def _readme(
    tasks: Mapping[str, DatasetDict], images: Dataset | None, configs: list[dict[str, Any]], card: BenchmarkCard
) -> str:
    languages = list(dict.fromkeys(language for splits in tasks.values() for language in splits))
    head: dict[str, Any] = {"pretty_name": card.name, **hub_languages(languages)}
    if card.license:
        head["license"] = card.license
    head["tags"] = ["xvlm2vec", "multimodal", "multilingual", "embeddings", *card.tags]
    head["configs"] = configs
    first = next(iter(tasks))
    return render_template(
        "benchmark.md",
        metadata=yaml.safe_dump(head, sort_keys=False, allow_unicode=True),
        name=card.name,
        description=card.description,
        repo_id=card.repo_id or card.name,
        config=first,
        split=_split(next(iter(tasks[first]))),
        languages=languages,
        tasks={task: {language: len(rows) for language, rows in splits.items()} for task, splits in tasks.items()},
        task_titles=card.task_titles or {},
        num_images=None if images is None else len(images),
        images_config=IMAGES_CONFIG,
        images_split=IMAGES_SPLIT,
        sources=card.sources,
        citation=card.citation,
    )
