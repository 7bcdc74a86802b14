"""A cleaned corpus: what is kept, and the report on what is not."""

import io
import json

import pytest
from datasets import Dataset
from PIL import Image

from xvlm2vec.cli import main
from xvlm2vec.corpus.checks import check_parallel, clean_parallel
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import load_parallel


@pytest.fixture
def corpus():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    image = file.getvalue()
    good = {"image": None, "text_en": "a", "translations": [{"lang": "de", "text": "b"}], "source": "s"}
    rows = [
        good | {"id": "0"},
        good | {"id": "1", "image": {"bytes": image, "path": None}},
        good | {"id": "1"},
        good | {"id": "3", "text_en": " "},
        good | {"id": "4", "image": {"bytes": image[:30], "path": None}},
        good | {"id": "5", "translations": []},
        good | {"id": "6", "image": {"bytes": None, "path": "no-such-file.png"}},
        good | {"id": "7"},
    ]
    return Dataset.from_list(rows, features=parallel_features())


def test_good_rows_are_kept_and_bad_ones_are_counted_and_named(tmp_path, corpus):
    report = clean_parallel(corpus, tmp_path / "clean")
    kept = load_parallel(tmp_path / "clean" / "parallel")
    assert kept["id"] == ["0", "1", "7"]
    assert kept[1]["image"].getpixel((0, 0)) == (255, 0, 0)
    assert not check_parallel(kept).faults
    assert (report["kept"], report["bad"]) == (3, 5)
    assert report["faults"] == {"image": 2, "id": 1, "text_en": 1, "translations": 1}
    assert [(row["row"], row["id"]) for row in report["bad_rows"]] == [(2, "1"), (3, "3"), (4, "4"), (5, "5"), (6, "6")]
    assert "no-such-file.png" in report["bad_rows"][-1]["problem"]
    assert json.loads((tmp_path / "clean" / "bad-rows.json").read_text(encoding="utf-8")) == report


def test_a_mark_without_its_image_would_stop_a_training(tmp_path):
    row = {"image": None, "source": "s", "translations": [{"lang": "de", "text": "ein Hund"}]}
    rows = [row | {"id": "0", "text_en": "a dog"}, row | {"id": "1", "text_en": "<image> a dog"}]
    corpus = Dataset.from_list(rows, features=parallel_features())
    (fault,) = check_parallel(corpus).faults
    assert "row 1, column 'image'" in fault
    assert "1 marks of an image" in fault
    assert clean_parallel(corpus, tmp_path / "clean")["faults"] == {"image": 1}


def test_the_command_writes_both_and_says_how_many(tmp_path, corpus, capsys):
    corpus.select([0, 1, 2, 3, 4, 5, 7]).save_to_disk(str(tmp_path / "corpus"))  # which embeds the images' files
    assert main(["corpus", "check", str(tmp_path / "corpus"), "--clean", str(tmp_path / "clean")]) == 1
    text = capsys.readouterr().out
    assert "3 rows are kept, 4 are left out" in text
    assert "1  image" in text
    assert main(["corpus", "check", str(tmp_path / "clean" / "parallel")]) == 0


def test_a_corpus_without_a_good_row_is_named(tmp_path, corpus):
    with pytest.raises(ValueError, match="no row is usable"):
        clean_parallel(corpus.select([3, 4]), tmp_path / "clean")
    assert json.loads((tmp_path / "clean" / "bad-rows.json").read_text(encoding="utf-8"))["bad"] == 2


def test_codes_become_normal_and_null_words_and_alignments_are_kept_unless_dropped(tmp_path):
    item = {"lang": "zh_tw", "text": "b", "alignment": "0-0"}
    row = {"image": None, "text_en": "a", "source": "s"}
    rows = [
        row | {"id": "0", "translations": [item, {"lang": "de", "text": "nan", "alignment": None}]},
        row | {"id": "1", "translations": [{"lang": "de", "text": "NULL", "alignment": None}]},
    ]
    corpus = Dataset.from_list(rows, features=parallel_features(["alignment"]))
    check = check_parallel(corpus)
    assert check.warnings["translations into 'zh_tw': the code's normal form is 'zh-TW'"] == 1
    assert check.null_words == [
        "row 0 (id '0'): the text in 'de' is 'nan'",
        "row 1 (id '1'): the text in 'de' is 'NULL'",
    ]

    clean_parallel(corpus, tmp_path / "kept")
    report = clean_parallel(corpus, tmp_path / "dropped", drop_null_words=True)

    assert len(load_parallel(tmp_path / "kept" / "parallel")) == 2
    (only,) = load_parallel(tmp_path / "dropped" / "parallel")
    assert only["translations"] == [{"lang": "zh-TW", "text": "b", "alignment": "0-0"}]
    assert report["faults"] == {"translations": 1}
    assert len(report["doubtful"]) == 2
