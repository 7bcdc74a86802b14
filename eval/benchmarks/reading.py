"""Every benchmark by its name: the entries of `entries`, MMMEB, and folders that a release wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.eval.ranking import RankingTask

from .entries import ENTRIES, Benchmark
from .exported import read_exported
from .instructions import STYLES, VERBATIM, Templates, instructions
from .layouts import READERS, Source
from .mmmeb import read_mmmeb_folder
from .selection import Selection

MMMEB, EMOJI, FOLDER = "mmmeb", "emoji", "folder"
NAMES = (MMMEB, EMOJI, *ENTRIES, FOLDER)
HUB_IDS: Mapping[str, str] = {MMMEB: "swap-uniba/MMMEB-Benchmark"} | {
    name: entry.hub for name, entry in ENTRIES.items() if entry.hub
}


def read_benchmark(
    name: str,
    folder: str | Path,
    *,
    datasets: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    styles: Sequence[str] | None = None,
    templates: Templates | None = None,
    title: str | None = None,
) -> list[RankingTask]:
    """Read a benchmark from a local folder in its published layout.

    Args:
        name: One of `NAMES`; case does not matter.
        folder: The folder.
        datasets: Names of data sets (default: all).
        languages: Codes (default: all); `es` also stands for `es-Mexico`.
        tasks: Names of tasks (default: all).
        styles: How texts end (default: MMMEB's three, each a task of its own; otherwise as they are).
        templates: Instructions (default: the benchmark's own).
        title: Name of an exported folder in results (default: the folder's name).

    Raises:
        ValueError: A name is unknown, or a file or row is damaged; names it.
        FileNotFoundError: The folder or a file is missing; names it.
    """
    folder, key = Path(folder), name.lower()
    if key not in NAMES:
        raise ValueError(
            f"there is no benchmark {name!r}; there are {', '.join(NAMES)}, and mteb:NAME for those of mteb"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    chosen: dict[str, Any] = {"datasets": datasets, "languages": languages, "tasks": tasks, "templates": templates}
    if key == MMMEB:
        return read_mmmeb_folder(folder, styles=styles or STYLES, **chosen)
    if key in (EMOJI, FOLDER):
        shown = title or (EMOJI if key == EMOJI else folder.resolve().name)
        return read_exported(folder, shown, styles=styles or (VERBATIM,), **chosen)
    return _read_entry(ENTRIES[key], folder, Selection(datasets, tasks, languages), styles or (VERBATIM,), templates)


def _read_entry(
    benchmark: Benchmark, folder: Path, selection: Selection, styles: Sequence[str], templates: Templates | None
) -> list[RankingTask]:
    templates = templates if templates is not None else _default_templates(benchmark)
    ranking_tasks = [
        rows.ranking_task(templates, style)
        for layout in benchmark.layouts
        for rows in READERS[layout.reader](Source(folder, benchmark, layout, selection))
        for style in styles
    ]
    selection.check(f"{benchmark.name} in {folder}")
    if not ranking_tasks:
        raise ValueError(f"{folder} has no rows of these data sets, tasks and languages together.")
    return ranking_tasks


def _default_templates(benchmark: Benchmark) -> Templates:
    if benchmark.instructions:
        return instructions()
    return {layout.task: {"*": {"query": "{text}", "target": "{text}"}} for layout in benchmark.layouts}
