"""Tux Paint's stamps as retrieval in every language that has captions."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xvlm2vec.common.captioned.tuxpaint import COUNTS, PACKAGE, VERSION, draw, stamp_sets, stamps_folder

from .images import FileImages
from .localised import both_ways, parts
from .source import Source
from .task_rows import TaskRows

logger = logging.getLogger(__name__)


def stamps(source: Source) -> Iterator[TaskRows]:
    """Captioned PNGs outside `symbols/` as `stamps`, those in it as `symbols`, and what is drawn only as `drawings`.

    Drawings (SVG) need the extra `svg`; without it they are left out, which is told.

    Raises:
        ValueError: A caption file is not in UTF-8; names it and the line.
        FileNotFoundError: The folder has no captioned stamp.
    """
    folder = stamps_folder(source.folder)
    sets = stamp_sets(folder)
    if not any(sets.values()):
        raise FileNotFoundError(
            f"{source.benchmark.name}: there is no file {folder}/**/*.txt with an image beside it; pass the folder "
            f"`stamps` of Debian's package {PACKAGE} (`xvlm2vec data tuxpaint --output DIR` gets there)"
        )
    for dataset in source.layout.datasets:
        items = sets[dataset]
        wanted = list(parts(source, dataset, items))
        if not wanted:
            continue
        if len(items) != COUNTS[dataset]:
            logger.warning(
                "%s: %d %s; version %s of %s has %d. Compare scores of one version only", folder, len(items), dataset,
                VERSION, PACKAGE, COUNTS[dataset],
            )  # fmt: skip
        images = FileImages(folder) if dataset != "drawings" else DrawnImages(folder)
        if dataset == "drawings" and not importlib.util.find_spec("resvg_py"):
            logger.warning("Left out %d drawings: they need pip install 'xvlm2vec[svg]'", len(items))
            continue
        for name, chosen in wanted:
            yield from both_ways(source, name, str(folder), chosen, images)


class DrawnImages(Mapping[str, Any]):
    """SVG files drawn as PNG, 256 pixels wide, by their paths below a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = FileImages(folder)

    def __getitem__(self, name: str) -> dict[str, Any]:
        path = self._files[name]
        return {"bytes": draw(path), "path": str(path)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
