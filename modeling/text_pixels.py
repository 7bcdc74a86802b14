"""Texts drawn as images, for a model that shall read pixels instead of tokens (CLIPPO, arXiv 2212.08045)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from os import PathLike, fspath

from PIL import Image, ImageDraw, ImageFont, features

from .rows import TextImageRow

NO_GLYPH = "\U0010ffff"
"""A noncharacter, which no font has: it is drawn as a font draws what it lacks."""
RIGHT_TO_LEFT = frozenset({"R", "AL"})
MARKS = frozenset({"Mn", "Mc"})
STEERING = MARKS | {"Cf"}
"""Categories of characters that change the shape or place of others."""
UNSEEN = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Categories of characters without a shape, which a font need not have."""
SELECTORS = range(0xFE00, 0xFE10)
"""Variation selectors: marks that choose among shapes and have none themselves."""


class TextPixelsError(ValueError):
    """A text cannot be drawn; the message says why, and what would mend it."""


@dataclass(frozen=True)
class TextPixels:
    """How texts are drawn: black on a white square, wrapped at its width, from the right where the script runs so.

    A text gives the same image on every machine with the same fonts and FreeType: scripts that need it are laid out by
    Raqm (joined and reordered letters, placed marks), all others by Pillow itself, whatever is installed.

    Args:
        fonts: Font files; each text is drawn with the first that has all of its characters.
        size: Pixels of the font.
        side: Pixels of the square. A model's image processor may scale it.
        margin: Pixels left white at each edge.

    Raises:
        TextPixelsError: A file is no font, or nothing fits the square.
    """

    fonts: Sequence[str | PathLike[str]]
    size: int = 16
    side: int = 224
    margin: int = 4

    def __post_init__(self) -> None:
        named = [self.fonts] if isinstance(self.fonts, str | PathLike) else self.fonts
        object.__setattr__(self, "fonts", tuple(fspath(font) for font in named))
        if not self.fonts:
            raise TextPixelsError("Texts are drawn with a font: pass the path of one or more font files.")
        if self.size < 1 or self.margin < 0 or self.width < self.size:
            raise TextPixelsError(
                f"A square of {self.side} pixels with margins of {self.margin} has no room for a font of {self.size}."
            )
        for font in self.fonts:
            _font(fspath(font), self.size, False)  # raises for what is none

    @property
    def width(self) -> int:
        """Pixels between the margins."""
        return self.side - 2 * self.margin

    def draw(self, text: str) -> Image.Image:
        """The image of a text, RGB.

        Raises:
            TextPixelsError: The text is blank or does not fit, no font has all of its characters, or its script needs
                Raqm and Pillow has none.
        """
        text = "".join(
            sign for sign in unicodedata.normalize("NFC", text) if sign.isspace() or unicodedata.category(sign) != "Cc"
        )
        if not text.strip():
            raise TextPixelsError("A text without a visible character cannot be drawn.")
        font = _font(self._font_for(text), self.size, needs_layout(text))
        lines, height = self._wrapped(text, font), sum(font.getmetrics())
        if len(lines) * height > self.width:
            raise TextPixelsError(
                f"The text takes {len(lines)} lines of {height} pixels, more than fit a square of {self.side}: "
                f"{text[:60]!r}. A larger side or a smaller font mends that."
            )
        image = Image.new("RGB", (self.side, self.side), "white")
        brush = ImageDraw.Draw(image)
        from_right = runs_from_right(text)
        start = (self.side - self.margin, "ra") if from_right else (self.margin, "la")
        for number, line in enumerate(lines):
            brush.text((start[0], self.margin + number * height), line, fill="black", font=font, anchor=start[1])
        return image

    def draw_rows(self, rows: Sequence[TextImageRow], problems: dict[int, str]) -> list[TextImageRow]:
        """Rows whose text is an image behind their other ones; instructions stay what they are.

        Args:
            rows: The rows.
            problems: Takes up why rows cannot be drawn, by number.
        """
        drawn = []
        for number, row in enumerate(rows):
            image: tuple[Image.Image, ...] = ()
            if row.text and number not in problems:
                try:
                    image = (self.draw(row.text),)
                except TextPixelsError as error:
                    problems[number] = f"row {number}: {error}"
            drawn.append(replace(row, text="", images=(*row.images, *image)))
        return drawn

    def _font_for(self, text: str) -> str:
        """The first font with all characters of a text."""
        lacking = {fspath(font): missing_in(fspath(font), text) for font in self.fonts}
        found = next((font for font, missing in lacking.items() if not missing), None)
        if found is None:
            least = min(lacking, key=lambda font: len(lacking[font]))
            told = ", ".join(f"{sign} (U+{ord(sign):04X})" for sign in lacking[least][:5])
            raise TextPixelsError(
                f"No font has all characters of {text[:60]!r}; {least} lacks {told}. Name a font of that script, too: "
                "the families of Noto (Debian's fonts-noto-core, fonts-noto-cjk) have nearly all."
            )
        return found

    def _wrapped(self, text: str, font: ImageFont.FreeTypeFont) -> list[str]:
        """Lines that fit the width, broken between words, and within those that are too long."""
        lines = []
        for paragraph in filter(str.strip, text.splitlines()):
            line = ""
            for word in paragraph.split():
                longer = f"{line} {word}" if line else word
                if self._fits(longer, font):
                    line = longer
                    continue
                *full, line = [*([line] if line else []), *self._cut(word, font)]
                lines += full
            lines.append(line)
        return lines

    def _fits(self, line: str, font: ImageFont.FreeTypeFont) -> bool:
        return font.getlength(line) <= self.width

    def _cut(self, word: str, font: ImageFont.FreeTypeFont) -> list[str]:
        """Pieces of a word that fit, none of which begins with a mark."""
        pieces, piece = [], ""
        for sign in word:
            if piece and unicodedata.category(sign) not in MARKS and not self._fits(piece + sign, font):
                pieces.append(piece)
                piece = ""
            piece += sign
        return [*pieces, piece]


def needs_layout(text: str) -> bool:
    """Whether letters of a text are joined, reordered, carry marks or are steered, which only Raqm draws right."""
    return any(
        unicodedata.bidirectional(sign) in RIGHT_TO_LEFT or unicodedata.category(sign) in STEERING for sign in text
    )


def runs_from_right(text: str) -> bool:
    """Whether the first letter with a direction is of a script that is written from the right."""
    directions = (unicodedata.bidirectional(sign) for sign in text)
    return next((found for found in directions if found in RIGHT_TO_LEFT | {"L"}), "L") in RIGHT_TO_LEFT


def missing_in(font: str, text: str) -> str:
    """The characters of a text that a font has no shape for, each once."""
    shown = dict.fromkeys(
        sign for sign in text if unicodedata.category(sign) not in UNSEEN and ord(sign) not in SELECTORS
    )
    return "".join(sign for sign in shown if not _has_glyph(font, sign))


@lru_cache(maxsize=65_536)
def _has_glyph(font: str, sign: str) -> bool:
    """Whether a character is drawn in another way than one that no font has."""
    drawn, missing = (_font(font, 32, False).getmask(one) for one in (sign, NO_GLYPH))
    return (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


@lru_cache(maxsize=256)
def _font(path: str, size: int, layout: bool) -> ImageFont.FreeTypeFont:
    if layout and not features.check("raqm"):
        raise TextPixelsError(
            "The script of this text is drawn right by Raqm only (joined letters, marks, from right to left), and "
            "Pillow is without it here: install Pillow from PyPI's wheels together with FriBiDi (Debian's libfribidi0)."
        )
    engine = ImageFont.Layout.RAQM if layout else ImageFont.Layout.BASIC
    try:
        return ImageFont.truetype(path, size, layout_engine=engine)
    except OSError as error:
        raise TextPixelsError(f"{path} cannot be read as a font ({error}).") from error
