"""Batches of parallel rows: the ids are those of the processor, the draw is the row's own, faults name the row."""

import copy

import pytest
import torch

from xvlm2vec.trainer.collators import ParallelCollator, pad_ids, real_ids


def collate(processor, rows, **settings):
    return ParallelCollator(processor, **settings)(rows)["batch"]


def ids_of_processor(processor, row, text):
    return real_ids(processor(text=[text], images=[row["image"]]))[0]


def assert_ids_are_the_processors(processor, rows):
    batch = collate(processor, rows)
    expected = [ids_of_processor(processor, row, row["text_en"]) for row in rows]
    expected += [ids_of_processor(processor, row, item["text"]) for row in rows for item in row["translations"]]
    assert batch.token_ids == expected
    return batch


def test_token_ids_are_those_of_the_full_processor(processor, rows):
    batch = assert_ids_are_the_processors(processor, rows)
    assert batch.row_of_pair.tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 3]
    assert batch.languages == ["it", "de", "ar", "it", "ar", "de", "it", "de", "ar"]


def test_rows_with_several_pictures(processor, rows, picture):
    several = {**rows[0], "image": [picture(5), picture(6)]}
    one_in_a_list = {**rows[2], "image": [picture(7)]}
    assert_ids_are_the_processors(processor, [rows[1], several, one_in_a_list, rows[3]])


def test_only_texts(processor, rows):
    batch = assert_ids_are_the_processors(processor, [rows[1], rows[3]])
    assert set(batch.english) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("text", [" a red bicycle", "a red bicycle\n", "!", "دراجة", "a  red", "Bäckerei"])
@pytest.mark.parametrize("with_picture", [True, False])
def test_texts_that_start_or_end_oddly(processor, rows, picture, text, with_picture):
    odd = {**rows[0], "image": picture(0) if with_picture else None, "text_en": text}
    assert_ids_are_the_processors(processor, [odd])
    reverse = {**rows[0], "image": odd["image"], "translations": [{"lang": "it", "text": text}]}
    assert_ids_are_the_processors(processor, [reverse])


def test_an_english_text_that_is_cut(processor, rows):
    short = copy.copy(processor)
    short.max_length = 14
    long_text = "a red bicycle by the wall of the old bakery in the park over the sea"
    with pytest.warns(UserWarning, match="were cut"):
        assert_ids_are_the_processors(short, [{**rows[0], "text_en": long_text}])


def test_the_pictures_are_prepared_once_for_all_texts_of_a_row(processor, rows):
    batch = collate(processor, rows)
    expected = processor(text=[row["text_en"] for row in rows], images=[row["image"] for row in rows])
    assert set(batch.english) == set(expected)
    for name, value in expected.items():
        assert torch.equal(batch.english[name], value), name


def test_the_draw_is_the_rows_own(processor, rows):
    many = [{**rows[3], "id": f"row-{index}"} for index in range(30)]

    def drawn(given, seed=0):
        batch = collate(processor, given, translations_per_row=1, seed=seed)
        return dict(zip([given[index]["id"] for index in batch.row_of_pair.tolist()], batch.languages, strict=True))

    first = drawn(many)
    assert set(first.values()) == {"it", "de", "ar"}
    assert drawn(many[::-1]) == first
    assert drawn(many[7:9]) == {name: first[name] for name in ("row-7", "row-8")}
    assert drawn(many, seed=1) != first
    other_text = [{**row, "text_en": "rain over the park"} for row in many]
    assert drawn(other_text) != first


def test_all_translations_where_a_row_has_no_more(processor, rows):
    batch = collate(processor, rows, translations_per_row=2)
    assert batch.row_of_pair.tolist() == [0, 0, 1, 1, 2, 3, 3]


def test_empty_translations_are_missing_ones(processor, rows):
    row = {**rows[0], "translations": [{"lang": "it", "text": ""}, {"lang": "de", "text": "Regen"}]}
    assert collate(processor, [row]).languages == ["de"]


@pytest.mark.parametrize("column", ["id", "image", "text_en", "translations"])
def test_a_missing_column_is_named_with_its_row(processor, rows, column):
    rows[2].pop(column)
    name = "2" if column == "id" else "'row-2'"
    with pytest.raises(ValueError, match=f"Row {name} lacks the column '{column}'"):
        collate(processor, rows)


@pytest.mark.parametrize("translations", [[], [{"lang": "it", "text": ""}]])
def test_a_row_without_a_translation_is_named(processor, rows, translations):
    rows[1]["translations"] = translations
    with pytest.raises(ValueError, match="Row 'row-1' has no translation"):
        collate(processor, rows)


def test_padding_is_on_the_right_and_masked():
    padded = pad_ids([[5, 6, 7], [8]], 3, torch.device("cpu"))
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 3, 3]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_batch_moves_whole(processor, rows):
    moved = collate(processor, rows).to("meta")
    assert {value.device.type for value in moved.english.values()} == {"meta"}
    assert moved.row_of_pair.device.type == "meta"
