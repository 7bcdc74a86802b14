"""Texts drawn as images: what is drawn, what cannot be, and that a model reads the image and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.modeling import text_pixels
from xvlm2vec.modeling.rows import BadRowsError
from xvlm2vec.modeling.text_pixels import TextPixels, TextPixelsError, missing_in, needs_layout, runs_from_right

DEJAVU = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
"""Debian's fonts-dejavu-core: Latin, Cyrillic, Hebrew and Arabic, and nothing of India or China."""


@pytest.fixture(scope="module")
def latin(tmp_path_factory) -> str:
    """A font of Latin letters only: the one inside Pillow."""
    path = tmp_path_factory.mktemp("fonts") / "latin.ttf"
    path.write_bytes(ImageFont.load_default(16).path.getvalue())
    return str(path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model, processor = build_tiny_model(
        TinyModelConfig(image_size=32, vision_layers=1, text_layers=1, vocab_size=300), ["a dog", "a cat"]
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model


def ink(image) -> np.ndarray:
    """Which pixels are not white."""
    return np.asarray(image.convert("L")) < 255


def test_lines_fill_the_square_and_no_more(latin):
    pixels = TextPixels(latin, size=16, side=96, margin=4)
    drawn = ink(pixels.draw("a dog and a cat in a house"))
    assert drawn.shape == (96, 96)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert rows.min() >= 4
    assert columns.min() >= 4
    assert columns.max() < 92
    assert rows.max() > 48, "several lines"
    assert np.array_equal(drawn, ink(pixels.draw("  a dog\tand a cat \x07in a house")))
    assert ink(pixels.draw("Donaudampfschifffahrt")).any(axis=0)[92:].sum() == 0, "a word is cut where it is too long"
    with pytest.raises(TextPixelsError, match=r"takes \d+ lines of \d+ pixels, more than fit a square of 96: 'aaaa"):
        pixels.draw("aaaa " * 40)


def test_a_script_from_the_right_is_joined_and_stands_at_the_right():
    pixels = TextPixels(DEJAVU, size=20, side=120)
    arabic, letters = "كلب", "ك ل ب"
    columns = np.flatnonzero(ink(pixels.draw(arabic)).any(axis=0))
    assert columns.min() > 60
    joined = ImageFont.truetype(DEJAVU, 20, layout_engine=ImageFont.Layout.RAQM).getlength(arabic)
    apart = ImageFont.truetype(DEJAVU, 20, layout_engine=ImageFont.Layout.BASIC).getlength(letters.replace(" ", ""))
    assert columns.max() - columns.min() < joined + 2 < apart, "letters that are joined take less room"
    assert (needs_layout("dog"), needs_layout(arabic), needs_layout("कुत्ता"), needs_layout("猫")) == (
        False, True, True, False,
    )  # fmt: skip
    assert (runs_from_right("3 כלבים"), runs_from_right("a כלב"), runs_from_right("123")) == (True, False, False)


def test_each_text_gets_a_font_that_has_all_of_it(latin):
    assert missing_in(latin, "a dog") == ""
    assert missing_in(latin, "пёс и dog\u200b") == "пёси"
    assert np.array_equal(ink(TextPixels([latin, DEJAVU]).draw("пёс")), ink(TextPixels(DEJAVU).draw("пёс")))
    with pytest.raises(
        TextPixelsError, match=r"No font has all characters of '猫 and пёс'; .*DejaVuSans\.ttf lacks 猫 \(U\+732B\)"
    ):
        TextPixels([latin, DEJAVU]).draw("猫 and пёс")


def test_what_cannot_be_drawn(latin, tmp_path, monkeypatch):
    with pytest.raises(TextPixelsError, match="pass the path of one or more font files"):
        TextPixels(())
    with pytest.raises(TextPixelsError, match="no room for a font of 16"):
        TextPixels(latin, side=20)
    (tmp_path / "no.ttf").write_text("no font")
    with pytest.raises(TextPixelsError, match=r"no\.ttf cannot be read as a font"):
        TextPixels(str(tmp_path / "no.ttf"))
    with pytest.raises(TextPixelsError, match="without a visible character"):
        TextPixels(latin).draw(" \n")
    monkeypatch.setattr(text_pixels.features, "check", lambda name: False)
    text_pixels._font.cache_clear()
    with pytest.raises(TextPixelsError, match="drawn right by Raqm only"):
        TextPixels(DEJAVU).draw("كلب")
    assert ink(TextPixels(DEJAVU).draw("dog")).any()


def test_a_model_embeds_the_image_of_a_text(latin, tiny):
    _, model = tiny
    pixels = TextPixels(latin, side=64)
    drawn = model.encode(text=["a dog", "a cat"], text_as_pixels=pixels)
    shown = model.encode(images=[pixels.draw("a dog"), pixels.draw("a cat")])
    np.testing.assert_allclose(drawn, shown, atol=1e-6)
    photo = pixels.draw("photo")
    both = model.encode(text=["a dog"], images=[photo], text_as_pixels=pixels, instruction="Find: ")
    np.testing.assert_allclose(
        both, model.encode(images=[[photo, pixels.draw("a dog")]], instruction="Find: "), atol=1e-6
    )
    with pytest.raises(BadRowsError, match=r"1 of 2 rows cannot be embedded: row 1: No font has all characters"):
        model.encode(text=["a dog", "猫"], text_as_pixels=pixels)
    with pytest.raises(ValueError, match="leave language out"):
        model.encode(text="a dog", text_as_pixels=pixels, language="de")


def test_the_command(latin, tiny, tmp_path: Path, capsys):
    folder, model = tiny
    (tmp_path / "texts.txt").write_text("a dog\n猫\n", encoding="utf-8")
    flags = ["--text", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out.npy")]
    assert main(["encode", str(folder), *flags, "--text-as-pixels", latin, "--pixel-side", "64"]) == 1
    assert "No font has all characters of '猫'" in (tmp_path / "out.npy.bad.json").read_text(encoding="utf-8")
    vectors = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(
        vectors[0], model.encode(text="a dog", text_as_pixels=TextPixels(latin, side=64)), atol=1e-5
    )
    assert np.isnan(vectors[1]).all()
    assert main(["encode", str(folder), *flags, "--text-as-pixels", "No Such Family"]) == 1
    assert "no font file No Such Family, and fontconfig" in capsys.readouterr().err
