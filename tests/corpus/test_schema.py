from __future__ import annotations

import pytest
from datasets import Dataset
from PIL import Image

from xvlm2vec.common.columns import PARALLEL_COLUMNS
from xvlm2vec.corpus.schema import parallel_features, validate_parallel_rows


def row(**changes):
    good = {
        "id": "a",
        "image": None,
        "text_en": "a dog",
        "translations": [{"lang": "de", "text": "ein Hund"}],
        "source": "mine",
    }
    return {**good, **changes}


def test_good_rows_pass_as_mappings_and_as_a_dataset() -> None:
    rows = [row(), row(id="b", image=Image.new("RGB", (4, 4), "red"))]
    assert validate_parallel_rows(rows) == 2
    dataset = Dataset.from_list(rows, features=parallel_features())
    assert tuple(dataset.column_names) == PARALLEL_COLUMNS
    assert validate_parallel_rows(dataset) == 2
    assert dataset[1]["image"].size == (4, 4)
    assert dataset[0]["image"] is None


@pytest.mark.parametrize(
    ("changes", "column", "what"),
    [
        ({"text_en": ""}, "text_en", "empty"),
        ({"text_en": None}, "text_en", "NoneType"),
        ({"id": "a"}, "id", "already the id of row 0"),
        ({"image": 3}, "image", "expected an image"),
        ({"translations": "Hund"}, "translations", "expected a list"),
        ({"translations": [{"lang": "de"}]}, "translations", "entry 0"),
        ({"translations": [{"lang": "de", "text": " "}]}, r"translations\[0\].text", "empty"),
        ({"translations": [{"lang": "de", "text": "x"}, {"lang": "de", "text": "y"}]}, "translations", "twice"),
    ],
)
def test_faults_name_row_and_column(changes, column, what) -> None:
    with pytest.raises(ValueError, match=rf"row 1, column '{column}': .*{what}"):
        validate_parallel_rows([row(), row(**{"id": "b", **changes})])


def test_missing_column_is_named() -> None:
    bad = row()
    del bad["source"]
    with pytest.raises(ValueError, match="row 0, column 'source': missing"):
        validate_parallel_rows([bad])
