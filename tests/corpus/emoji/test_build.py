from __future__ import annotations

import builtins
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from xvlm2vec.corpus.emoji.build import SPRITE_SIZE, _provenance, build_emoji_table
from xvlm2vec.corpus.emoji.text import LANGUAGES
from xvlm2vec.corpus.emoji.world import TABLE

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
needs_font = pytest.mark.skipif(not FONT.exists(), reason="Noto Color Emoji is not installed")


def test_table_is_small_and_whole() -> None:
    assert TABLE.stat().st_size <= 3_000_000
    rows = pq.read_table(TABLE).to_pylist()
    assert len(rows) >= 1000
    assert len({row["id"] for row in rows}) == len(rows)
    for language in LANGUAGES:
        names = [row[f"name_{language}"].casefold() for row in rows]
        assert len(set(names)) == len(names), f"two concepts share a name in {language}"
        assert all(name.strip() == name and name and "_" not in name for name in names)
    for row in rows:
        assert row["id"] == f"{ord(row['emoji'][0]):x}"
        assert len(row["name_en"].split()) <= 2
    assert Image.open(io.BytesIO(rows[0]["image"])).convert("RGBA").size == (SPRITE_SIZE, SPRITE_SIZE)


@needs_font
def test_rebuilding_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("emoji")
    pytest.importorskip("babel")
    built_from = {k.decode(): v.decode() for k, v in pq.read_schema(TABLE).metadata.items()}
    if built_from != _provenance(FONT):
        pytest.skip(f"the shipped table was built from other versions: {built_from}")
    build_emoji_table(FONT, tmp_path / "emoji.parquet")
    assert (tmp_path / "emoji.parquet").read_bytes() == TABLE.read_bytes()
    patterns = "list_patterns.json"
    assert (tmp_path / patterns).read_bytes() == TABLE.with_name(patterns).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emoji.parquet", patterns]


def test_missing_font_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fonts-noto-color-emoji"):
        build_emoji_table(tmp_path / "none.ttf", tmp_path / "out.parquet")


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_babel(name, *args, **kwargs):
        if name.startswith("babel"):
            raise ImportError("no babel", name="babel")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_babel)
    font = tmp_path / "font.ttf"
    font.write_bytes(b"")
    with pytest.raises(ImportError, match=r"xvlm2vec\[world\]"):
        build_emoji_table(font, tmp_path / "out.parquet")
