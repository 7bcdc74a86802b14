"""Writes a parallel corpus as a dataset repository: parquet files of a fit size, and a card."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Dataset, Features, Value
from datasets.table import embed_table_storage

from xvlm2vec.common.columns import SOURCE
from xvlm2vec.common.files import write_text
from xvlm2vec.common.languages import hub_languages
from xvlm2vec.common.templates import render_template

from .dataset_export import ROWS_PER_GROUP, DataSource
from .metadata import metadata_problems
from .staging import ExportError, staged_folder

CORPUS = "corpus"
LICENSE = "license"
SEVERAL = "by-row"
"""What the Hub shows where licenses differ: it takes one name, and "other" with a name that says more."""
FILE_BYTES = 400_000_000
"""After how many bytes a new file begins. Rows that are added at the end leave the files before as they are."""


@dataclass(frozen=True)
class CorpusCard:
    """What the card of a corpus says.

    Args:
        name: Name of the corpus.
        repo_id: Its Hub id.
        sources: Where rows come from; the names are those in the column `source`.
        stats: What is in it, as `corpus stats` counts it.
        description: A paragraph in Markdown.
        translator: Who translated it, in words.
        check: Counts of `corpus check`.
    """

    name: str
    repo_id: str
    sources: Sequence[DataSource]
    stats: Mapping[str, Any]
    description: str = ""
    translator: str = ""
    check: Mapping[str, Any] | None = None


def export_corpus(
    corpus: Dataset, folder: str | os.PathLike[str], card: CorpusCard, file_bytes: int = FILE_BYTES
) -> Path:
    """Writes a dataset repository; the same rows give the same bytes.

    Where licenses differ, each row has a column `license` with that of its source.

    Args:
        corpus: The rows.
        folder: Where to write: missing, empty, or an earlier export of a corpus, which is replaced.
        card: What to say in `README.md`.
        file_bytes: After how many bytes a new file begins.

    Raises:
        ExportError: A source has no license, the Hub does not know a license, or the folder is a foreign one.
    """
    licenses = {source.name: source.license for source in card.sources}
    _check(licenses, card)
    differ = len(set(licenses.values())) > 1
    with staged_folder(folder, CORPUS) as staging:
        _write_files(corpus, staging / "data", licenses if differ else None, file_bytes)
        write_text(staging / "README.md", _readme(card, differ))
    return Path(folder)


def _check(licenses: Mapping[str, str], card: CorpusCard) -> None:
    missing = [name for name in card.stats["sources"] if not licenses.get(name)]
    if missing:
        shown = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise ExportError(f"the rows of {shown} have no license: name that of each source.")
    problems = [problem for one in dict.fromkeys(licenses.values())
                for problem in metadata_problems(card.stats["languages"], one)]  # fmt: skip
    if problems:
        raise ExportError("; ".join(dict.fromkeys(problems)))


def _write_files(corpus: Dataset, folder: Path, licenses: Mapping[str, str] | None, file_bytes: int) -> None:
    features = Features({**corpus.features, **({} if licenses is None else {LICENSE: Value("string")})})
    schema = features.arrow_schema
    folder.mkdir()
    number, size = 0, file_bytes
    with ExitStack() as stack:
        for table in _tables(corpus, licenses):
            if size >= file_bytes:
                stack.close()
                path = folder / f"train-{number:05d}.parquet"
                writer = stack.enter_context(pq.ParquetWriter(path, schema))
                number, size = number + 1, 0
            writer.write_table(table.cast(schema))
            size += table.nbytes


def _tables(corpus: Dataset, licenses: Mapping[str, str] | None) -> Iterator[pa.Table]:
    """The rows with their images inside, and with their licenses if they are given."""
    metadata = corpus.features.arrow_schema.metadata
    for table in corpus.with_format("arrow").iter(batch_size=ROWS_PER_GROUP):
        embedded = embed_table_storage(table.replace_schema_metadata(metadata))
        if licenses is not None:
            column = [licenses[source or ""] for source in embedded[SOURCE].to_pylist()]
            embedded = embedded.append_column(LICENSE, pa.array(column, pa.string()))
        yield embedded


def _readme(card: CorpusCard, differ: bool) -> str:
    present = [source for source in card.sources if source.name in card.stats["sources"]]
    licenses = list(dict.fromkeys(source.license for source in present))
    head = {
        "pretty_name": card.name,
        **hub_languages(card.stats["languages"]),
        **({"license": licenses[0]} if len(licenses) == 1 else {"license": "other", "license_name": SEVERAL}),
        "tags": ["xvlm2vec", "multimodal", "multilingual", "parallel-corpus"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
        ],
    }  # fmt: skip
    counts = card.check or {}
    rules = dict.fromkeys(rule for name in ("dropped", "repaired", "told") for rule in counts.get(name, ()))
    return render_template(
        "corpus.md",
        metadata=yaml.safe_dump(head, sort_keys=False, allow_unicode=True),
        name=card.name,
        repo_id=card.repo_id,
        description=card.description,
        stats=card.stats,
        sources=present,
        translator=card.translator,
        check=card.check,
        rules=list(rules),
        has_licenses=differ,
    )
