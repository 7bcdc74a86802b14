"""Marks that stand for an image in a text: every family's, with their image and without it."""

from __future__ import annotations

import pytest

from xvlm2vec.common.image_marks import parallel_row_without_marks, strip_marks, without_marks
from xvlm2vec.modeling.families import FAMILIES

MARKS = [
    "<|image_1|>", "<|image_2|>", "<|image|>", "<image>", "<image_1>", "[IMG]", "<start_of_image>", "<|image_pad|>",
    "<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>", "<img><IMG_CONTEXT></img>",
]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("text", ["{}\nWhat is it?", "{}What is it?", "What is {}it?"])
def test_a_mark_goes_with_its_line_break(mark: str, text: str) -> None:
    assert without_marks(text.format(mark), 1, "row") == "What is it?"
    assert strip_marks(text.format(mark)) == "What is it?"
    with pytest.raises(ValueError, match=r"Row 7: the text holds 1 marks of an image .* and the row has no image"):
        without_marks(text.format(mark), 0, "Row 7")


def test_every_family_has_its_mark_here() -> None:
    for name, family in FAMILIES.items():
        if family.image:
            assert strip_marks(f"a {family.image}b") == "a b", name


def test_more_marks_than_images_are_told() -> None:
    assert without_marks("<image>\n<image>\nwhich?", 2, "row") == "which?"
    with pytest.raises(ValueError, match=r"2 marks .* the row has one image"):
        without_marks("<image>\n<image>\nwhich?", 1, "row")


@pytest.mark.parametrize("text", ["", "a < b and c > d", "[img] <images> <|image_x|>", "x <img> y", None])
def test_other_texts_stay(text: str | None) -> None:
    assert strip_marks(text) == text


def test_a_parallel_row_is_cleaned_in_all_its_texts() -> None:
    row = {"id": "a", "image": "x.png", "text_en": "<|image_1|>\na dog", "translations": [
        {"lang": "de", "text": "<|image_1|>\nein Hund"}, {"lang": "it", "text": "un cane"}]}  # fmt: skip
    clean = parallel_row_without_marks(row)
    assert clean["text_en"] == "a dog"
    assert [item["text"] for item in clean["translations"]] == ["ein Hund", "un cane"]
    plain = {**row, "text_en": "a dog", "translations": None}
    assert parallel_row_without_marks(plain) is plain
    with pytest.raises(ValueError, match="Row 'a'"):
        parallel_row_without_marks({**row, "image": None})
