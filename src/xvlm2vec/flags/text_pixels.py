"""Flags of commands that draw texts and embed the images."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import console

if TYPE_CHECKING:
    from PIL import Image

    from xvlm2vec.modeling.text_pixels import TextPixels

SIZE, SIDE = 16, 224
DRAWN = "\n"
"""Begins the name of a drawn text; no name of a file begins so."""


def add_text_pixels_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the fonts and sizes of drawn texts."""
    parser.add_argument("--text-as-pixels", type=console.names, metavar="FONTS", help="draw texts and embed the "
                        "images, for models that were trained so: font files, or names of families that fontconfig "
                        "knows, as 'Noto Sans,Noto Sans Devanagari'; each text gets the first that has all of its "
                        "characters")  # fmt: skip
    parser.add_argument("--pixel-font-size", type=console.positive, default=SIZE, metavar="N",
                        help=f"pixels of the font (default {SIZE})")  # fmt: skip
    parser.add_argument("--pixel-side", type=console.positive, default=SIDE, metavar="N",
                        help=f"pixels of the square that texts are drawn in (default {SIDE})")  # fmt: skip


def chosen_text_pixels(flags: argparse.Namespace) -> TextPixels | None:
    """How texts are drawn, if they are.

    Raises:
        TextPixelsError: A font cannot be read.
        ValueError: Fontconfig knows no such family, or is not installed.
    """
    from xvlm2vec.modeling.text_pixels import TextPixels

    if not flags.text_as_pixels:
        return None
    fonts = [font_file(name) for name in flags.text_as_pixels]
    return TextPixels(fonts, size=flags.pixel_font_size, side=flags.pixel_side)


def font_file(name: str) -> str:
    """The file of a font: the path itself, or the regular style of a family.

    Raises:
        ValueError: It is no file, and fontconfig has no family of this name or is not installed.
    """
    if Path(name).is_file():
        return name
    if shutil.which("fc-list") is None:
        raise ValueError(f"there is no font file {name}, and fontconfig (fc-list), which knows families, is not there")
    listed = subprocess.run(["fc-list", "--format", "%{file}\n", f":family={name}:style=Regular"],
                            capture_output=True, text=True, check=True).stdout.splitlines()  # fmt: skip
    if not listed:
        raise ValueError(f"there is no font file {name}, and fontconfig has no family of this name in a style Regular; "
                         "`fc-list : family` lists them")  # fmt: skip
    return min(listed)


class DrawnTexts(Mapping[str, "Image.Image"]):
    """Images of texts by name, drawn whenever they are looked at: thousands would fill the memory.

    Args:
        pixels: How they are drawn.
    """

    def __init__(self, pixels: TextPixels) -> None:
        self._pixels = pixels
        self._texts: dict[str, str] = {}

    def add(self, text: str) -> str:
        """Takes a text, and returns the name of its image.

        Raises:
            TextPixelsError: It cannot be drawn.
        """
        self._pixels.draw(text)
        name = f"{DRAWN}{text}"
        self._texts[name] = text
        return name

    def __getitem__(self, name: str) -> Image.Image:
        return self._pixels.draw(self._texts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)
