"""Streams of parallel rows from the places that data sets are read from."""

import pytest
from datasets import Dataset

from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import stream_parallel


@pytest.fixture
def corpus():
    rows = [
        {
            "id": f"row-{number}",
            "image": None,
            "text_en": f"text {number}",
            "translations": [{"lang": "de", "text": f"Text {number}"}],
            "source": "test",
        }
        for number in range(10)
    ]
    return Dataset.from_list(rows, features=parallel_features())


@pytest.mark.slow  # datasets waits for five seconds at the end of each pass over parquet files
def test_all_rows_come_once_in_an_order_that_the_seed_and_the_epoch_decide(tmp_path, corpus):
    corpus.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    corpus.select(range(4)).to_parquet(tmp_path / "parquet" / "0.parquet")
    corpus.select(range(4, 10)).to_parquet(tmp_path / "parquet" / "1.parquet")
    for place in ("saved", "parquet", "parquet/1.parquet"):
        expected = corpus["id"][4:] if place.endswith(".parquet") else corpus["id"]
        stream = stream_parallel(tmp_path / place, seed=1)
        names = [row["id"] for row in stream]
        assert sorted(names) == sorted(expected)
        assert [row["id"] for row in stream_parallel(tmp_path / place, seed=1)] == names
        assert [row["id"] for row in stream_parallel(tmp_path / place, seed=2)] != names
        stream.set_epoch(1)
        assert [row["id"] for row in stream] != names
    assert next(iter(stream))["translations"][0]["lang"] == "de"


def test_what_is_no_parallel_corpus_is_named(tmp_path, corpus):
    corpus.remove_columns(["source"]).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="lacks source"):
        stream_parallel(tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match="neither a data set"):
        stream_parallel(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        stream_parallel(tmp_path / "none")
