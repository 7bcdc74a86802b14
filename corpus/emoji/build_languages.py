"""Builds what the emoji world has beside its table: names in further languages and a second drawing style.

`xvlm2vec corpus build-emoji-languages` calls it to rebuild the files in `corpus/emoji/data/`; users of the package need
none of its inputs, which are packages of npm.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from xvlm2vec.common.files import replaced_file, write_text

from .build import VARIATION_SELECTOR, encoded_sprite, squared
from .text import LANGUAGES, MORE_PATTERNS
from .world import MORE_NAMES, TABLE, TWITTER

logger = logging.getLogger(__name__)

ANNOTATIONS, DERIVED, MISC = "cldr-annotations-full", "cldr-annotations-derived-full", "cldr-misc-full"
IMAGES = "emoji-datasource-twitter"
INSTALL = f"npm install {ANNOTATIONS}@48.2.0 {DERIVED}@48.2.0 {MISC}@48.2.0 {IMAGES}@16.0.0"
LEAST_NAMES, MOST_ENGLISH = 1600, 0.05  # of a language's names for emoji that are no flags
_NO_THINGS = ("Flags", "Component")  # categories of emoji


def build_languages(modules: Path, output: Path, table: Path = TABLE) -> None:
    """Writes the names, the list patterns and the drawings for the concepts of the table.

    A language is taken if CLDR names nearly all emoji in it, and at most one name in twenty is the English one. A name
    that two concepts of the table share is left out for both.

    Args:
        modules: The folder `node_modules` after `INSTALL`.
        output: The folder to write to.
        table: The table of the emoji world.

    Raises:
        FileNotFoundError: A package is missing; says how to install it.
    """
    for package in (ANNOTATIONS, DERIVED, MISC, IMAGES):
        if not (modules / package / "package.json").is_file():
            raise FileNotFoundError(f"{modules} has no package {package}; run `{INSTALL}` and pass its node_modules")
    rows = pq.read_table(table, columns=["id", "emoji"]).to_pylist()
    ids = pa.array([row["id"] for row in rows], pa.string())
    emoji = [_plain(row["emoji"]) for row in rows]
    names = {code: _distinct_names(found, emoji) for code, found in _named_languages(modules).items()}
    patterns = {code: _pattern(modules, code) for code in names}
    sprites = _sprites(modules / IMAGES, emoji)
    provenance = {name: _version(modules / name) for name in (ANNOTATIONS, DERIVED, MISC, IMAGES)}
    output.mkdir(parents=True, exist_ok=True)
    columns = {"id": ids, **{f"name_{code}": pa.array(found, pa.string()) for code, found in names.items()}}
    _write(output / MORE_NAMES.name, columns, provenance)
    _write(output / TWITTER.name, {"id": ids, "image": pa.array(sprites, pa.binary())}, provenance)
    write_text(output / MORE_PATTERNS, json.dumps(patterns, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
    logger.info("Wrote names of %d concepts in %d languages to %s", len(rows), len(names), output)


def _named_languages(modules: Path) -> dict[str, dict[str, str]]:
    """The names of emoji by language, for those languages that are taken and have none in the table."""
    listed = json.loads((modules / IMAGES / "emoji.json").read_text(encoding="utf-8"))
    things = [_from_hex(entry["unified"]) for entry in listed if entry["category"] not in _NO_THINGS]
    english, found = _names(modules, "en"), {}
    for folder in sorted((modules / ANNOTATIONS / "annotations").iterdir()):
        names = _names(modules, folder.name)
        known = [thing for thing in things if thing in names]
        same = sum(names[thing] == english.get(thing) for thing in known)
        if folder.name not in LANGUAGES and len(known) >= LEAST_NAMES and same <= MOST_ENGLISH * len(known):
            found[folder.name] = names
    return found


def _names(modules: Path, code: str) -> dict[str, str]:
    """The short names of one language by emoji, those of single symbols and of sequences."""
    names: dict[str, str] = {}
    for package, part in ((ANNOTATIONS, "annotations"), (DERIVED, "annotationsDerived")):
        path = modules / package / part / code / "annotations.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8")).get(part, {}).get("annotations", {})
            names |= {
                _plain(emoji): " ".join(entry["tts"][0].split()) for emoji, entry in content.items() if "tts" in entry
            }
    return names


def _distinct_names(names: Mapping[str, str], emoji: Iterable[str]) -> list[str | None]:
    """The name of each emoji; None where there is none, or another one has the same (ignoring case)."""
    found = [names.get(one) for one in emoji]
    keys = [name.casefold() if name else None for name in found]
    return [name if name and keys.count(key) == 1 else None for name, key in zip(found, keys, strict=True)]


def _pattern(modules: Path, code: str) -> dict[str, str]:
    content = json.loads((modules / MISC / "main" / code / "listPatterns.json").read_text(encoding="utf-8"))
    return content["main"][code]["listPatterns"]["listPattern-type-standard"]


def _sprites(package: Path, emoji: Iterable[str]) -> list[bytes]:
    """The drawings of emoji, cut out, centred and scaled as those of the table."""
    listed: list[dict[str, Any]] = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
    files = {_from_hex(entry["unified"]): entry["image"] for entry in listed if entry["has_img_twitter"]}
    return [encoded_sprite(_sprite(package / "img" / "twitter" / "64" / files[one])) for one in emoji]


def _sprite(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGBA")
    return squared(image.crop(image.getbbox()))


def _from_hex(code_points: str) -> str:
    return _plain("".join(chr(int(part, 16)) for part in code_points.split("-")))


def _plain(emoji: str) -> str:
    return emoji.replace(VARIATION_SELECTOR, "")


def _version(package: Path) -> str:
    return str(json.loads((package / "package.json").read_text(encoding="utf-8"))["version"])


def _write(path: Path, columns: Mapping[str, pa.Array], provenance: Mapping[str, str]) -> None:
    buffer = io.BytesIO()
    table = pa.table(dict(columns)).replace_schema_metadata(dict(provenance))
    pq.write_table(
        table, buffer, compression="zstd", compression_level=19, use_dictionary=False, write_statistics=False
    )
    with replaced_file(path) as draft:
        draft.write_bytes(buffer.getvalue())
