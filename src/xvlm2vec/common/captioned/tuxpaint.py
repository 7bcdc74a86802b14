"""Tux Paint's stamps: images with human captions in some 77 languages, from a folder that a Debian package holds."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from .captions import Captioned

logger = logging.getLogger(__name__)

PACKAGE, VERSION = "tuxpaint-stamps-default", "2022.06.04-1"
COUNTS = {"stamps": 538, "symbols": 247, "drawings": 163}
"""The sets, and how many images each has in this version."""
_BELOW = ("usr/share/tuxpaint/stamps", "tuxpaint/stamps", "stamps")  # where an unpacked package has them
_CAPTION = re.compile(r"([A-Za-z]+(?:_[A-Za-z]+)?(?:@[A-Za-z]+)?)\.utf8=(.*)")
_DRAWN_WIDTH, _DPI = 256, 96  # pixels of a drawing, and of an inch in those whose size is given in points


def stamps_folder(folder: Path) -> Path:
    """The folder of stamps in an unpacked package; a folder that is none of a package is the one."""
    return next((folder / name for name in _BELOW if (folder / name).is_dir()), folder)


def stamp_sets(folder: Path) -> dict[str, list[Captioned]]:
    """The captioned images of each data set, in the order of their names."""
    sets: dict[str, list[Captioned]] = {dataset: [] for dataset in COUNTS}
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


def draw(path: Path) -> bytes:
    """An SVG file drawn as PNG, 256 pixels wide; needs the extra `svg`.

    Raises:
        ValueError: It cannot be drawn; names it.
    """
    import resvg_py

    try:
        return bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=_DRAWN_WIDTH, dpi=_DPI))
    except Exception as error:  # whatever the renderer raises, the file is at fault
        raise ValueError(f"{path} cannot be drawn: {error}") from error
