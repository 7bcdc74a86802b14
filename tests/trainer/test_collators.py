"""Batches of parallel rows: the ids are those of the processor, the draw is the row's own, faults name the row."""

import copy
import logging

import pytest
import torch

from xvlm2vec.common.store import content_digest, row_key
from xvlm2vec.trainer.collators import ParallelCollator


def collate(processor, rows, **settings):
    (batch,) = ParallelCollator(processor, **settings)(rows)["batches"]
    return batch


def real_ids(inputs):
    pairs = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]


def texts_of(row):
    return [row["text_en"], *(item["text"] for item in row["translations"])]


def assert_ids_are_the_processors(processor, rows):
    batch = collate(processor, rows)
    for row, group in zip(rows, batch.groups, strict=True):
        expected = [real_ids(processor(text=[text], images=[row["image"]]))[0] for text in texts_of(row)]
        assert [group.prefix + text for text in group.texts] == expected
    return batch


def test_token_ids_are_those_of_the_full_processor(processor, rows):
    batch = assert_ids_are_the_processors(processor, rows)
    assert batch.row_of_pair.tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 3]
    assert batch.languages == ["it", "de", "ar", "it", "ar", "de", "it", "de", "ar"]
    assert batch.ids == ["row-0", "row-1", "row-2", "row-3"]
    assert batch.texts == [row["text_en"] for row in rows]
    assert batch.translations == [item["text"] for row in rows for item in row["translations"]]
    assert batch.pairs == 9
    assert batch.has_image.tolist() == [True, False, True, False]


def test_rows_with_several_images(processor, rows, image):
    several = {**rows[0], "image": [image(5), image(6)]}
    one_in_a_list = {**rows[2], "image": [image(7)]}
    batch = assert_ids_are_the_processors(processor, [rows[1], several, one_in_a_list, rows[3]])
    assert len(set(batch.digests)) == 3


@pytest.mark.parametrize("text", [" a red bicycle", "a red bicycle\n", "!", "دراجة", "a  red", "Bäckerei"])
@pytest.mark.parametrize("with_image", [True, False])
def test_texts_that_start_or_end_oddly(processor, rows, image, text, with_image):
    odd = {**rows[0], "image": image(0) if with_image else None, "text_en": text}
    assert_ids_are_the_processors(processor, [odd])
    reverse = {**rows[0], "image": odd["image"], "translations": [{"lang": "it", "text": text}]}
    assert_ids_are_the_processors(processor, [reverse])


def test_a_text_that_is_cut_is_told(processor, rows):
    short = copy.copy(processor)
    short.max_length = 14
    long_text = "a red bicycle by the wall of the old bakery in the park over the sea"
    with pytest.warns(UserWarning, match="were cut"):
        assert_ids_are_the_processors(short, [{**rows[0], "text_en": long_text}])


@pytest.mark.parametrize("sharing", [True, False], ids=["shared", "whole"])
def test_a_budget_cuts_a_batch_and_loses_nothing(processor, rows, sharing):
    whole = collate(processor, rows, sharing=sharing)
    parts = ParallelCollator(processor, sharing=sharing, max_tokens=60)(rows)["batches"]
    assert len(parts) > 1
    assert sum(part.pairs for part in parts) == whole.pairs
    assert sum(part.tokens for part in parts) == whole.tokens
    assert len(ParallelCollator(processor, sharing=sharing, max_tokens=1)(rows)["batches"]) == 4
    found = {
        (part.ids[row], language, text)
        for part in parts
        for row, language, text in zip(part.row_of_pair.tolist(), part.languages, part.translations, strict=True)
    }
    assert found == {(row["id"], item["lang"], item["text"]) for row in rows for item in row["translations"]}


def test_texts_are_prepared_whole_where_images_cannot_be_shared(processor, rows):
    batch = collate(processor, rows, sharing=False)
    assert batch.groups is None
    english = processor(text=[row["text_en"] for row in rows], images=[row["image"] for row in rows])
    assert set(batch.english) == set(english)
    for name, value in english.items():
        assert torch.equal(batch.english[name], value), name
    pairs = [(item["text"], row["image"]) for row in rows for item in row["translations"]]
    assert real_ids(batch.translated) == real_ids(
        processor(text=[text for text, _ in pairs], images=[image for _, image in pairs])
    )


def test_images_and_translations_alone_are_prepared_on_demand(processor, rows):
    batch = collate(processor, rows, unimodal=True)
    assert real_ids(batch.images_only) == real_ids(
        processor(text=["", ""], images=[rows[0]["image"], rows[2]["image"]])
    )
    shown = [item["text"] for row in (rows[0], rows[2]) for item in row["translations"]]
    assert real_ids(batch.translations_only) == real_ids(processor(text=shown))
    assert collate(processor, [rows[1]], unimodal=True).images_only is None


def test_rows_are_named_by_their_content(processor, rows):
    batch = collate(processor, rows)
    digest = content_digest(rows[0]["image"])
    assert batch.keys[0] == row_key(rows[0]["text_en"], digest)
    assert batch.keys[1] == row_key(rows[1]["text_en"])
    assert batch.image_keys == [row_key("", digest), row_key("", content_digest(rows[2]["image"]))]
    keys = ParallelCollator(processor, unimodal=True).keys(rows)
    texts, (first, second) = batch.keys, batch.image_keys
    assert keys == [[texts[0], first], [texts[1]], [texts[2], second], [texts[3]]]


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


@pytest.mark.parametrize("translations", [[], None, [{"lang": "it", "text": ""}]])
def test_rows_without_a_translation_are_left_out_and_told(processor, rows, translations, caplog):
    rows[1]["translations"] = translations
    with caplog.at_level(logging.WARNING):
        assert collate(processor, rows).ids == ["row-0", "row-2", "row-3"]
    assert "1 rows have had no translation so far and are left out, the last of them 'row-1'" in caplog.text
    only = collate(processor, rows[1:2])  # other processes may wait for a batch
    assert (only.ids, only.weight) == (["row-1"], 0)


def test_images_have_the_same_number_in_every_row_and_batch(processor, rows):
    shown = {**rows[1], "image": rows[0]["image"]}
    first, second = collate(processor, [rows[0], shown, rows[2], rows[3]]), collate(processor, [rows[2], rows[0]])
    numbers = first.image_numbers.tolist()
    assert numbers[0] == numbers[1] != numbers[2]
    assert numbers[3] == 0
    assert second.image_numbers.tolist() == [numbers[2], numbers[0]]


def test_blank_translations_are_missing_ones(processor, rows):
    row = {**rows[3], "translations": [{"lang": "it", "text": "  "}, {"lang": "de", "text": "Regen"}]}
    assert collate(processor, [row]).languages == ["de"]


def test_a_batch_moves_whole(processor, rows):
    moved = collate(processor, rows, sharing=False, unimodal=True).to("meta")
    for inputs in (moved.english, moved.translated, moved.images_only, moved.translations_only):
        assert {value.device.type for value in inputs.values()} == {"meta"}
    assert moved.row_of_pair.device.type == "meta"
