"""Tux Paint's stamps: images with human captions in some 77 languages, from a folder that a Debian package holds."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .images import FileImages
from .localised import Captioned, both_ways
from .source import Source
from .task_rows import TaskRows

logger = logging.getLogger(__name__)

PACKAGE, VERSION = "tuxpaint-stamps-default", "2022.06.04-1"
BELOW = ("usr/share/tuxpaint/stamps", "tuxpaint/stamps", "stamps")  # where an unpacked package has them
_COUNTS = {"stamps": 538, "symbols": 247, "drawings": 163}  # of this version
_CAPTION = re.compile(r"([A-Za-z]+(?:_[A-Za-z]+)?(?:@[A-Za-z]+)?)\.utf8=(.*)")
_DRAWN_WIDTH, _DPI = 256, 96  # pixels of a drawing, and of an inch in those whose size is given in points


def stamps(source: Source) -> Iterator[TaskRows]:
    """Captioned PNGs outside `symbols/` as `stamps`, those in it as `symbols`, and what is drawn only as `drawings`.

    Drawings (SVG) need the extra `svg`; without it they are left out, which is told.

    Raises:
        ValueError: A caption file is not in UTF-8; names it and the line.
        FileNotFoundError: The folder has no captioned stamp.
    """
    folder = next((source.folder / name for name in BELOW if (source.folder / name).is_dir()), source.folder)
    sets = _sets(folder)
    if not any(sets.values()):
        raise FileNotFoundError(
            f"{source.benchmark.name}: there is no file {folder}/**/*.txt with an image beside it; pass the folder "
            f"`stamps` of Debian's package {PACKAGE} (`xvlm2vec data tuxpaint --output DIR` gets there)"
        )
    for dataset in source.layout.datasets:
        items = sets[dataset]
        if not items or not source.selection.takes(dataset=dataset):
            continue
        if len(items) != _COUNTS[dataset]:
            logger.warning(
                "%s: %d %s; version %s of %s has %d. Compare scores of one version only", folder, len(items), dataset,
                VERSION, PACKAGE, _COUNTS[dataset],
            )  # fmt: skip
        images = FileImages(folder) if dataset != "drawings" else DrawnImages(folder)
        if dataset == "drawings" and not importlib.util.find_spec("resvg_py"):
            logger.warning("Left out %d drawings: they need pip install 'xvlm2vec[svg]'", len(items))
            continue
        yield from both_ways(source, dataset, str(folder), items, images)


def _sets(folder: Path) -> dict[str, list[Captioned]]:
    """The captioned images of each data set, in the order of their names."""
    sets: dict[str, list[Captioned]] = {dataset: [] for dataset in _COUNTS}
    lost = []
    for path in sorted(folder.rglob("*.txt")):
        english, others = read_captions(path)
        image = next(
            (path.with_suffix(suffix) for suffix in (".png", ".svg") if path.with_suffix(suffix).is_file()), path
        )
        name = image.relative_to(folder)
        if not english or image == path:
            lost.append(name.as_posix())
            continue
        inside = name.parts[0] == "symbols"
        if image.suffix == ".png":
            sets["symbols" if inside else "stamps"].append(Captioned(name.as_posix(), english, others))
        elif not inside:
            sets["drawings"].append(Captioned(name.as_posix(), english, others))
    silent = [path for path in folder.rglob("*.png") if not path.with_suffix(".txt").is_file()]
    if lost:
        logger.warning("%s: %d captions without an image or in no English, left out: %s", folder, len(lost),
                       ", ".join(lost[:5]))  # fmt: skip
    if silent:
        logger.info("%s: %d images without a caption are no candidates", folder, len(silent))
    return sets


def read_captions(path: Path) -> tuple[str, dict[str, str]]:
    """The English caption, which is the first line, and the others by the spelling of their languages.

    Raises:
        ValueError: The file is not in UTF-8; names the line.
    """
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: line {number} is not in UTF-8 ({error.reason}); save the file in UTF-8, or take it from the "
                f"package {PACKAGE} again"
            ) from error
    others = {match[1]: match[2] for line in lines[1:] if (match := _CAPTION.fullmatch(line.strip()))}
    odd = sum(1 for line in lines[1:] if line.strip() and not _CAPTION.fullmatch(line.strip()))
    if odd:
        logger.warning("%s: %d lines are not of the form de.utf8=..., left out", path, odd)
    return (lines[0].strip() if lines else ""), others


class DrawnImages(Mapping[str, Any]):
    """SVG files drawn as PNG, 256 pixels wide, by their paths below a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = FileImages(folder)

    def __getitem__(self, name: str) -> dict[str, Any]:
        import resvg_py

        path = self._files[name]
        try:
            drawn = resvg_py.svg_to_bytes(svg_path=str(path), width=_DRAWN_WIDTH, dpi=_DPI)
        except Exception as error:  # whatever the renderer raises, the file is at fault
            raise ValueError(f"{path} cannot be drawn: {error}") from error
        return {"bytes": bytes(drawn), "path": str(path)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
