"""Pairs as they are stored: MMEB's columns with paths of images, and what is refused."""

import pytest
from datasets import Dataset, Image, List
from PIL import Image as PIL

from xvlm2vec.common.pair_checks import check_pairs
from xvlm2vec.corpus.stored_pairs import load_pairs

ROW = {"qry": "<|image_1|>\nWhat is it?", "qry_image_path": "a/red.png", "pos_text": "red", "pos_image_path": ""}


@pytest.fixture
def stored(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    PIL.new("RGB", (4, 4), "red").save(tmp_path / "images" / "a" / "red.png")

    def write(*rows):
        Dataset.from_list(list(rows)).to_parquet(tmp_path / "pairs.parquet")
        return load_pairs(tmp_path / "pairs.parquet", images=tmp_path / "images")

    return write


def test_columns_of_mmeb_are_read_as_they_are(stored, tmp_path):
    rows = stored({**ROW, "neg_text": ["", "blue"], "neg_image_path": ["a/red.png", ""]}, {**ROW, "qry": "x"})
    check_pairs(rows)
    assert rows.features["qry_image"] == Image()
    assert rows.features["neg_image"] == List(Image())
    assert set(rows.column_names) == {"qry", "qry_image", "pos_text", "neg_text", "neg_image"}
    assert rows[0]["qry_image"].getpixel((0, 0)) == (255, 0, 0)
    assert rows[0]["neg_image"][1] is None
    (tmp_path / "images" / "a" / "red.png").unlink()
    with pytest.raises(ValueError, match=r"2 of 2 pairs are faulty: Row 0: there is no image .*red.png; Row 1"):
        check_pairs(rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "qry_image_path": "../red.png"}, "row 0: the image '../red.png' leads out of the folder"),
        ({**ROW, "qry_image": None}, "has the columns qry_image and qry_image_path"),
        ({"qry": "x", "pos": "y"}, "has no positive: neither pos_text nor pos_image"),
        ({"qry": "x", "pos_text": "y", "neg_texts": "z"}, "has the column 'neg_texts', none of those of pairs: qry"),
    ],
)
def test_columns_that_are_none_of_pairs_are_refused(stored, row, message):
    with pytest.raises(ValueError, match=message):
        stored(row)


def test_paths_need_a_folder(stored, tmp_path):
    stored(ROW)
    with pytest.raises(ValueError, match="--image-folder"):
        load_pairs(tmp_path / "pairs.parquet")
