"""Builds the table of the emoji world from a colour font and the `emoji` and `babel` packages.

`xvlm2vec corpus build-emoji` calls it to rebuild `corpus/emoji/data/`; users of the package need none of its inputs.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from xvlm2vec.common.files import replaced_file, write_text

from .text import LANGUAGES

logger = logging.getLogger(__name__)

FONT_SIZE = 109  # the one bitmap strike of Noto Color Emoji, in pixels
SPRITE_SIZE = 64
SPRITE_COLOURS = 128
MAX_ENGLISH_WORDS = 2
NEAR_DUPLICATE = 0.045  # root mean square difference at 16 x 16, colours in [0, 1]
LOOK_ALIKE = 0.16  # concepts closer than this to an earlier one are moved to the end of the table
WELL_KNOWN_VERSION = 1.0  # everything up to Emoji 1.0 is on every phone
VARIATION_SELECTOR = "\ufe0f"
FULLY_QUALIFIED = 2
SKIN_TONES = range(0x1F3FB, 0x1F400)
UNSUITABLE = ("middle finger",)
# The `emoji` package has lost the breve of some Russian й; endings follow a rule, the rest does not.
RUSSIAN_WORDS = {
    "джоистик": "джойстик", "лаинер": "лайнер", "слаидер": "слайдер", "строика": "стройка", "студиины": "студийны",
    "таимер": "таймер",
}  # fmt: skip


@dataclass(frozen=True)
class Emoji:
    """One emoji that may become a concept.

    Attributes:
        id: the code point in lower-case hexadecimal, such as "1f436".
        emoji: the emoji as text.
        names: the name in every language.
        version: the Emoji version that brought it in.
        sprite: RGBA image, `SPRITE_SIZE` pixels square.
    """

    id: str
    emoji: str
    names: dict[str, str]
    version: float
    sprite: Image.Image

    def thumbnail(self) -> np.ndarray:
        """The sprite on white at 16 x 16, float32 in [0, 1], shape (768,)."""
        white = Image.new("RGBA", self.sprite.size, "white")
        small = Image.alpha_composite(white, self.sprite).convert("RGB").resize((16, 16), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32).ravel() / 255


def _import_sources() -> tuple[Any, Any]:
    """The `emoji` module and babel's `Locale`; where they are missing, the error names the extra that brings them."""
    try:
        import emoji
        from babel import Locale
    except ImportError as error:
        raise ImportError(
            f"Building the emoji table needs the package {error.name!r}: run `pip install 'xvlm2vec[world]'`"
        ) from error
    return emoji, Locale


def _clean_name(name: str, language: str) -> str:
    """`:dog_face:` as the `emoji` package writes it -> `dog face`, with the Russian letter й restored."""
    words = " ".join(name.strip(":").replace("_", " ").split())
    if language != "ru":
        return words
    for broken, whole in RUSSIAN_WORDS.items():
        words = words.replace(broken, whole)
    return re.sub(r"(ы|о|ки)и\b", r"\1й", words)


def _is_single_symbol(text: str) -> bool:
    """Whether this is one code point: no joined sequence, flag, keycap or skin tone."""
    bare = text.replace(VARIATION_SELECTOR, "")
    return len(bare) == 1 and ord(bare) not in SKIN_TONES and ord(bare) > 0xFF


def _draw_sprite(text: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """The glyph centred on a transparent square and scaled down, or None where the font lacks it."""
    canvas = Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE))
    ImageDraw.Draw(canvas).text((FONT_SIZE // 3, FONT_SIZE // 3), text, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        return None
    return squared(canvas.crop(box))


def squared(glyph: Image.Image) -> Image.Image:
    """A drawing in the centre of a transparent square, scaled to the size of sprites."""
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side))
    square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return square.resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.LANCZOS)


def _read_emoji(font: Path) -> list[Emoji]:
    """All single-symbol emoji with a short English name, a name in every language and a glyph."""
    emoji, _ = _import_sources()
    for language in LANGUAGES:
        emoji.config.load_language(language)
    face = ImageFont.truetype(str(font), FONT_SIZE)
    suitable = []
    for text, entry in sorted(emoji.EMOJI_DATA.items()):
        if entry["status"] != FULLY_QUALIFIED or not _is_single_symbol(text) or not all(k in entry for k in LANGUAGES):
            continue
        names = {language: _clean_name(entry[language], language) for language in LANGUAGES}
        if len(names["en"].split()) > MAX_ENGLISH_WORDS or names["en"] in UNSUITABLE:
            continue
        sprite = _draw_sprite(text.replace(VARIATION_SELECTOR, ""), face)
        if sprite is not None:
            suitable.append(Emoji(f"{ord(text[0]):x}", text, names, float(entry["E"]), sprite))
    return suitable


def _drop_shared_names(emoji: list[Emoji]) -> list[Emoji]:
    """Drops every concept whose name coincides with another concept's in any language (ignoring case)."""
    shared: set[str] = set()
    for language in LANGUAGES:
        owners: dict[str, list[str]] = {}
        for one in emoji:
            owners.setdefault(one.names[language].casefold(), []).append(one.id)
        shared.update(i for ids in owners.values() if len(ids) > 1 for i in ids)
    return [one for one in emoji if one.id not in shared]


def _rank(emoji: Emoji) -> tuple[bool, bytes]:
    """Sorts well-known emoji first, and each part by a hash of the code point."""
    return emoji.version > WELL_KNOWN_VERSION, hashlib.blake2b(emoji.id.encode(), digest_size=8).digest()


def _spread_out(emoji: list[Emoji]) -> list[Emoji]:
    """Drops near duplicates and moves look-alikes of earlier concepts to the end, so that any prefix is distinct."""
    thumbnails: list[np.ndarray] = []
    clear: list[Emoji] = []
    alike: list[Emoji] = []
    for one in emoji:
        thumbnail = one.thumbnail()
        nearest = min((float(np.sqrt(np.mean((thumbnail - t) ** 2))) for t in thumbnails), default=1.0)
        if nearest <= NEAR_DUPLICATE:
            continue
        thumbnails.append(thumbnail)
        (clear if nearest > LOOK_ALIKE else alike).append(one)
    return clear + alike


def encoded_sprite(sprite: Image.Image) -> bytes:
    """The sprite as a PNG with a palette (a third of the size of full colour, and no visible difference)."""
    pixels = np.array(sprite)
    pixels[pixels[..., 3] < 8] = 0
    buffer = io.BytesIO()
    palette = Image.fromarray(pixels).quantize(SPRITE_COLOURS, Image.Quantize.FASTOCTREE)
    palette.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _provenance(font: Path) -> dict[str, str]:
    """What the table was built from, kept in the parquet's metadata."""
    versions = {package: metadata.version(package) for package in ("emoji", "babel")}
    return {**versions, "pillow": PIL.__version__, "font_sha256": hashlib.sha256(font.read_bytes()).hexdigest()}


def _table(concepts: list[Emoji], provenance: dict[str, str]) -> bytes:
    """The parquet file as bytes."""
    columns: dict[str, pa.Array] = {
        "id": pa.array([one.id for one in concepts], pa.string()),
        "emoji": pa.array([one.emoji for one in concepts], pa.string()),
        "image": pa.array([encoded_sprite(one.sprite) for one in concepts], pa.binary()),
    }
    for language in LANGUAGES:
        columns[f"name_{language}"] = pa.array([one.names[language] for one in concepts], pa.string())
    table = pa.table(columns).replace_schema_metadata(provenance)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def build_emoji_table(font: Path, output: Path) -> None:
    """Writes the table of concepts and, beside it, `list_patterns.json`.

    The same font and package versions give the same bytes. Only single symbols are kept (no skin tones, joined
    sequences, flags, keycaps) whose English name has at most two words, with a name in every language that no other
    concept shares, and no near duplicates. The first N rows are a varied set for every N: well-known emoji first, in
    hash order, and look-alikes last.

    Args:
        font: Noto Color Emoji with 109-pixel bitmaps (`NotoColorEmoji.ttf`).
        output: the parquet file to write.

    Raises:
        FileNotFoundError: the font is not there.
        ImportError: the packages of the extra `xvlm2vec[world]` are missing.
    """
    if not font.is_file():
        raise FileNotFoundError(
            f"No font at {font}: install Noto Color Emoji (Debian: fonts-noto-color-emoji) and pass its path"
        )
    concepts = _spread_out(sorted(_drop_shared_names(_read_emoji(font)), key=_rank))
    _, locale = _import_sources()
    patterns = {language: dict(locale.parse(language).list_patterns["standard"]) for language in LANGUAGES}
    output.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(output) as draft:
        draft.write_bytes(_table(concepts, _provenance(font)))
    text = json.dumps(patterns, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    write_text(output.with_name("list_patterns.json"), text)
    logger.info("Wrote %d concepts to %s", len(concepts), output)
