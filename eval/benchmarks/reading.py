"""Every benchmark by its name: the entries of `benchmark_entries`, MMMEB, and folders that a release wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from xvlm2vec.common.languages import normal_or_same
from xvlm2vec.eval.ranking import RankingTask, Row

from .entries import ENTRIES, Benchmark
from .exported import read_exported
from .mmmeb import (
    STYLES,
    VERBATIM,
    Templates,
    apply_style,
    default_templates,
    read_mmmeb_folder,
    sides_for,
    templates_hash,
)
from .rows import FORMS, Candidate, Item, Selection, Sheet, Source

MMMEB, EMOJI, FOLDER = "mmmeb", "emoji", "folder"
NAMES = (MMMEB, EMOJI, *ENTRIES, FOLDER)
HUB_IDS: Mapping[str, str] = {MMMEB: "swap-uniba/MMMEB-Benchmark"} | {
    name: entry.hub for name, entry in ENTRIES.items() if entry.hub
}
_MARKS = {"vqa": "?", "page": "?"}


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
        languages: Codes in any spelling (default: all); `es` also stands for `es-Mexico`, `zh` for `zh-Hans`.
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
        chosen["languages"] = languages and list(map(normal_or_same, languages))  # they are parts of names of files
        return read_mmmeb_folder(folder, styles=styles or STYLES, **chosen)
    if key in (EMOJI, FOLDER):
        shown = title or (EMOJI if key == EMOJI else folder.resolve().name)
        return read_exported(folder, shown, styles=styles or (VERBATIM,), **chosen)
    return _read_entry(ENTRIES[key], folder, styles=styles or (VERBATIM,), **chosen)


def instructions() -> Templates:
    """Our instructions for every task of every entry; `*` stands for the languages without any of their own."""
    text = resources.files("xvlm2vec.eval.benchmarks").joinpath("templates_benchmarks.json").read_text(encoding="utf-8")
    further = json.loads(text)
    known = default_templates()
    return {task: {**known.get(task, {}), **further.get(task, {})} for task in {**known, **further}}


NO_INSTRUCTIONS: Templates = {
    task: {"*": {"query": query, "target": target}}
    for task, query, target in (
        ("c", "", "{text}"),
        ("i2t", "", "{text}"),
        ("t2i", "{text}", ""),
        ("vqa", "{text}", "{text}"),
        ("vg", "{text}", ""),
        ("page", "{text}", ""),
        ("product", "{text}", "{text}"),
        ("retrieval", "{text}", "{text}"),
    )
}
"""For models that take no instructions, such as those of two towers: images alone, texts as they are."""


def _read_entry(
    benchmark: Benchmark,
    folder: Path,
    *,
    datasets: Sequence[str] | None,
    languages: Sequence[str] | None,
    tasks: Sequence[str] | None,
    styles: Sequence[str],
    templates: Templates | None,
) -> list[RankingTask]:
    selection = Selection(**{"data set": datasets, "task": tasks, "language": languages})
    chosen = templates if templates is not None else _own_instructions(benchmark)
    found = []
    for part in benchmark.parts:
        source = Source(folder, benchmark, part, selection)
        for sheet in FORMS[part.form](source):
            found += [_ranking_task(benchmark, sheet, chosen, style, part.drop_copies) for style in styles]
    selection.check(f"{benchmark.name} in {folder}")
    if not found:
        raise ValueError(f"{folder} has no rows of these data sets, tasks and languages together.")
    return found


def _own_instructions(benchmark: Benchmark) -> Templates:
    if benchmark.instructions:
        return instructions()
    return {task: {"*": {"query": "{text}", "target": "{text}"}} for task in {part.task for part in benchmark.parts}}


def _ranking_task(
    benchmark: Benchmark, sheet: Sheet, templates: Templates, style: str, drop_copies: bool
) -> RankingTask:
    """Put the instructions in place and number the candidates."""
    sides = sides_for(templates, (sheet.task,), sheet.language)
    if "query" not in sides:
        raise ValueError(f"{sheet.where}: the templates have no 'query' for {sheet.task!r} in {sheet.language!r}")
    kept = [item for item in sheet.items if item.text or item.image]
    if not kept:
        raise ValueError(f"{sheet.where}: no rows to score ({len(sheet.items)} have neither text nor image)")
    places: dict[Candidate, int] = {}
    index = [_numbered(item, places, sheet, drop_copies) for item in kept]
    for candidate in sheet.pool:
        places.setdefault(candidate, len(places))
    mark = _MARKS.get(sheet.task, ".")
    query, target = sides["query"], sides.get("target", "{text}")
    try:
        return RankingTask(
            benchmark=benchmark.name,
            dataset=sheet.dataset,
            task=sheet.task,
            language=sheet.language,
            style=style,
            queries=[Row(apply_style(_filled(query, item.text), style, mark), item.image) for item in kept],
            candidates=[_target(target, candidate, style) for candidate in places],
            candidate_index=index,
            images=sheet.images,
            row_ids=np.array([item.row for item in kept]),
            skipped=len(sheet.items) - len(kept),
            templates_hash=templates_hash(templates),
            gold_counts=np.array([len(item.golds) for item in kept]),
            whole_pool=sheet.whole_pool,
            parallel=benchmark.parallel,
        )
    except ValueError as error:
        raise ValueError(f"{sheet.where}: {error}") from error


def _numbered(item: Item, places: dict[Candidate, int], sheet: Sheet, drop_copies: bool) -> list[int]:
    if not item.golds:
        raise ValueError(f"{sheet.where}: row {item.row} has no gold candidate")
    empty = [candidate for candidate in item.golds if not any(candidate)]
    if empty:
        raise ValueError(f"{sheet.where}: row {item.row} has a gold candidate without text and image")
    golds = [places.setdefault(candidate, len(places)) for candidate in item.golds]
    others = [places.setdefault(candidate, len(places)) for candidate in item.others if any(candidate)]
    if len(set(golds)) < len(golds):
        raise ValueError(f"{sheet.where}: row {item.row} names a gold candidate twice")
    doubled = set(golds).intersection(others)
    if doubled and not drop_copies:
        copy = item.golds[golds.index(doubled.pop())]
        raise ValueError(
            f"{sheet.where}: row {item.row} lists its gold candidate {copy[0] or copy[1]!r} more than once"
        )
    return list(dict.fromkeys(golds + others)) if drop_copies else golds + others


def _filled(template: str, text: str | None) -> str:
    """The instruction with the row's text in its place.

    Raises:
        ValueError: It has no place for the text, which would be lost.
    """
    if text and "{text}" not in template:
        raise ValueError(f"the template {template!r} has no {{text}}, and a row has the text {text!r:.60}")
    return template.replace("{text}", text or "")


def _target(template: str, candidate: Candidate, style: str) -> Row:
    """A candidate with its instruction; a style is for images' instructions alone, and texts keep their form."""
    text, image = candidate
    filled = _filled(template, text)
    return Row(apply_style(filled, style) if image is not None and text is None else filled, image)
