from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from xvlm2vec.corpus.captions import caption_benchmark, hold_out, pair_examples, pair_features, parallel_examples
from xvlm2vec.corpus.checks import check_parallel
from xvlm2vec.corpus.parallel_csv import read_csv
from xvlm2vec.corpus.schema import parallel_features, validate_parallel_rows
from xvlm2vec.corpus.stored import load_parallel, write_dataset
from xvlm2vec.corpus.stored_pairs import load_pairs


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / "below" / f"{number}.png")
    return folder


def write(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "texts.csv"
    path.write_bytes(text.encode(encoding))
    return path


def six_rows(tmp_path: Path) -> Path:
    rows = [f"below/{number}.png,text {number},Text {number},テキスト{number}" for number in range(6)]
    return write(tmp_path, "\n".join(["image,en,de,ja", *rows]) + "\n")


def test_csv_rows(tmp_path: Path, images: Path) -> None:
    path = write(
        tmp_path,
        'id,image,en,de,fr\nfirst,below/0.png,"a cat, asleep",eine Katze,un chat\n,,word,Wort,\n',
        "utf-8-sig",
    )

    corpus = read_csv(path, images)

    assert corpus.languages == ("en", "de", "fr")
    assert not corpus.rejected
    assert [row.id for row in corpus.rows] == ["first", "row-000001"]
    assert corpus.rows[0].texts == {"en": "a cat, asleep", "de": "eine Katze", "fr": "un chat"}
    assert corpus.rows[0].image == images / "below/0.png"
    assert corpus.rows[1].texts == {"en": "word", "de": "Wort"}
    assert corpus.rows[1].image is None


def test_english_alone_waits_for_translations(tmp_path: Path, images: Path) -> None:
    corpus = read_csv(write(tmp_path, "image,en\nbelow/0.png,a cat\n,\n,a dog\n"), images)

    assert corpus.languages == ("en",)
    assert [row.kind for row in corpus.rejected] == ["empty English text"]
    examples = list(parallel_examples(corpus.rows))
    assert [(row["text_en"], row["translations"]) for row in examples] == [("a cat", []), ("a cat", []), ("a dog", [])]
    assert validate_parallel_rows(examples) == 3


def test_marks_of_an_image_are_removed(tmp_path: Path, images: Path) -> None:
    corpus = read_csv(
        write(tmp_path, "image,en,de,fr\nbelow/0.png,<image> a cat,<|image_1|>eine Katze,<image>\n"), images
    )

    assert [row.texts for row in corpus.rows] == [{"en": "a cat", "de": "eine Katze"}]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_other_delimiters(tmp_path: Path, sign: str) -> None:
    corpus = read_csv(write(tmp_path, f"en{sign}de\na, b{sign}c\n"))

    assert corpus.rows[0].texts == {"en": "a, b", "de": "c"}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("none.png,a,b,c", "missing image"),
        ("../secret.png,a,b,c", "image outside the folder"),
        ("/etc/passwd,a,b,c", "image outside the folder"),
        ("link.png,a,b,c", "image outside the folder"),
        (f"{'x' * 300}.png,a,b,c", "missing image"),
        ("broken.png,a,b,c", "unreadable image"),
        (",,b,c", "empty English text"),
        (", ,b,c", "empty English text"),
        (",a,,", "no translation"),
        (",a, b, c, d", "too many cells"),
        (",<image> a,b,c", "marks of images"),
        ("below/0.png,a,[IMG] [IMG] b,c", "marks of images"),
        ("below/0.png,<|image_1|>,b,c", "empty English text"),
    ],
)
def test_bad_rows_are_collected_with_their_lines(tmp_path: Path, images: Path, line: str, kind: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    (images / "broken.png").write_bytes((images / "below/0.png").read_bytes()[:40])

    corpus = read_csv(write(tmp_path, f'image,en,de,fr\n,"two\nlines",b,c\n{line}\n,x,y,z\n'), images)

    assert [row.texts["en"] for row in corpus.rows] == ["two\nlines", "x"]
    assert [(row.line, row.kind) for row in corpus.rejected] == [(4, kind)]
    report = corpus.report()
    assert report["kept"] == 2
    assert report["faults"] == {kind: 1}
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,de,fr\n", "line 1: no column 'en'; there are the columns image, de, fr"),
        ("", "line 1: no column 'en'; there are the columns none"),
        ("en,de,de\n", "line 1: the column 'de' stands there 2 times"),
        ("en,pt-BR,pt_br\n", "line 1: the column 'pt-BR' stands there 2 times"),
        ("en,Deutsch\n", "'Deutsch' cannot be a column: .* did you mean 'de'"),
        ("image,en,de\n", "name the folder"),
        ("id,en,de\nx,a,b\nx,c,d\n", "the id 'x' occurs 2 times"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path, text))


def test_other_encodings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not UTF-8 .*save the file as UTF-8"):
        read_csv(write(tmp_path, "en,de\nfox,Füchse\n", "latin-1"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"texts\.csv"):
        read_csv(tmp_path / "texts.csv")
    with pytest.raises(FileNotFoundError, match="folder of images"):
        read_csv(write(tmp_path, "en,de\n"), tmp_path / "none")


def test_held_out_rows_do_not_leak(tmp_path: Path, images: Path) -> None:
    path = write(
        tmp_path,
        "image,en,de\nbelow/0.png,a,A\nbelow/0.png,b,B\nbelow/1.png,c,C\nbelow/2.png,C,D\nbelow/3.png,e,E\n"
        "below/4.png,f,\n,g,G\nbelow/5.png,h,H\n",
    )
    corpus = read_csv(path, images)

    train, test, joined = hold_out(corpus.rows, corpus.languages, 100, seed=0)

    # Rows 0 and 1 share an image, 2 and 3 an English text but for case, 6 has no image; 5 was left out as bad.
    assert [row.texts["en"] for row in test] == ["e", "h"]
    assert len(train) + len(test) == len(corpus.rows)
    assert joined == 4
    once, again = (hold_out(corpus.rows, corpus.languages, 1, seed=1) for _ in range(2))
    assert len(once[1]) == 1
    assert (list(once[0]), once[1]) == (list(again[0]), again[1])
    assert len(once[0]) == len(list(once[0])) == len(corpus.rows) - 1


def test_the_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "id,en,de\n" + "".join(f"{n},a caption of row {n},Text {n}\n" for n in range(4_000)))
    tracemalloc.start()
    corpus = read_csv(path)
    train, _, _ = hold_out(corpus.rows, corpus.languages, 0, seed=0)
    seen = sum(row.texts["de"] == f"Text {row.id}" for row in train)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == 4_000
    assert peak < 500_000, "a row in memory takes 600 bytes and more"


def test_held_out_rows_do_not_leak_under_other_names_and_spellings(tmp_path: Path, images: Path) -> None:
    Image.open(images / "below/0.png").save(images / "copy.bmp")  # the same pixels in another file
    rows = [
        "below/0.png,zero,Null",
        "copy.bmp,naught,Nichts",
        "below/1.png,caf\u00e9,eins",
        "below/2.png,cafe\u0301,zwei",  # the same letters in another Unicode form
        "below/3.png,a  dog,drei",
        "below/4.png,a\u00a0dog,vier",
        "below/5.png,five,fünf",
    ]
    corpus = read_csv(write(tmp_path, "\n".join(["image,en,de", *rows])), images)

    _, test, joined = hold_out(corpus.rows, corpus.languages, 100, seed=0)

    assert [row.texts["en"] for row in test] == ["five"]
    assert joined == 6


def test_null_words_are_told_and_left_out_on_demand(tmp_path: Path) -> None:
    path = write(tmp_path, "en,de,fr\na,nan,b\nNULL,c,d\ne,N/A,None\nf,g,h\n")

    told, dropped = read_csv(path), read_csv(path, drop_null_words=True)

    assert [(row.line, row.kind) for row in told.doubtful] == [
        (2, "null word"),
        *[(3, "null word")],
        *[(4, "null word")] * 2,
    ]
    assert len(told.rows) == 4
    assert not told.rejected
    assert [row.texts for row in dropped.rows] == [{"en": "a", "fr": "b"}, {"en": "f", "de": "g", "fr": "h"}]
    assert [(row.line, row.kind) for row in dropped.rejected] == [(3, "empty English text"), (4, "no translation")]
    assert told.report()["doubtful"][0] == {
        "kind": "null word", "problem": "'nan' in the column 'de' looks like a missing value", "line": 2,
        "id": "row-000000",
    }  # fmt: skip


def test_written_corpora_are_read_back(tmp_path: Path, images: Path) -> None:
    rows = read_csv(six_rows(tmp_path), images).rows

    write_dataset(lambda: parallel_examples(rows), parallel_features(), tmp_path / "parallel")
    write_dataset(lambda: pair_examples(rows), pair_features(), tmp_path / "pairs")

    parallel, pairs = load_parallel(tmp_path / "parallel"), load_pairs(str(tmp_path / "pairs"))
    assert validate_parallel_rows(parallel) == 12
    assert parallel[0] == {
        "id": "row-000000",
        "image": None,
        "text_en": "text 0",
        "translations": [{"lang": "de", "text": "Text 0"}, {"lang": "ja", "text": "テキスト0"}],
        "source": "texts",
    }
    assert parallel[3]["id"] == "row-000001/image"
    assert parallel[3]["image"].getpixel((0, 0)) == (40, 0, 0)
    assert [row["qry"] for row in pairs] == [f"text {number}" for number in range(6)]
    assert pairs[5]["pos_image"].getpixel((0, 0)) == (200, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "pairs", "parallel", "texts.csv"]


def test_nothing_to_write_leaves_what_was_there(tmp_path: Path) -> None:
    write_dataset(lambda: iter([{"qry": "a"}]), pair_features(), tmp_path / "pairs")

    def fails() -> Iterator[dict]:
        yield {"qry": "b"}
        raise OSError("the disk is full")

    with pytest.raises(ValueError, match="no row is usable"):
        write_dataset(lambda: iter([]), pair_features(), tmp_path / "pairs")
    with pytest.raises(ValueError, match=r"pairs could not be written: the disk is full"):
        write_dataset(fails, pair_features(), tmp_path / "pairs")
    assert len(load_pairs(tmp_path / "pairs")) == 1


def test_other_storage_is_read(tmp_path: Path, images: Path) -> None:
    rows = list(parallel_examples(read_csv(six_rows(tmp_path), images).rows))
    dataset = Dataset.from_list(rows, features=parallel_features())
    (tmp_path / "parquet").mkdir()
    dataset.select(range(4)).to_parquet(tmp_path / "parquet" / "0.parquet")
    dataset.select(range(4, 12)).to_parquet(tmp_path / "parquet" / "1.parquet")
    DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(str(tmp_path / "dict"))

    assert load_parallel(tmp_path / "parquet")["id"] == dataset["id"]
    assert load_parallel(tmp_path / "parquet" / "0.parquet")[1]["image"].size == (8, 8)
    assert len(load_parallel(tmp_path / "dict")) == 12
    assert len(load_parallel(tmp_path / "dict", split="test")) == 1
    with pytest.raises(ValueError, match=r"has the splits train, test"):
        load_parallel(tmp_path / "dict", split="validation")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.parquet").write_bytes(b"PAR1 and then nothing")
    Dataset.from_dict({"text_en": ["a"]}).save_to_disk(str(tmp_path / "other"))

    with pytest.raises(FileNotFoundError, match="no folder or file"):
        load_parallel(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="neither"):
        load_parallel(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"bad cannot be read"):
        load_parallel(tmp_path / "bad")
    with pytest.raises(ValueError, match=r"lacks id, image, translations, source"):
        load_parallel(tmp_path / "other")


def test_check_finds_faults(tmp_path: Path, images: Path) -> None:
    image = (images / "below/0.png").read_bytes()
    good = {"image": None, "text_en": "a", "translations": [{"lang": "de", "text": "b"}], "source": "s"}
    rows = [
        good | {"id": "0"},
        good | {"id": "1", "image": {"bytes": image, "path": None}},
        good | {"id": "1"},
        good | {"id": "3", "text_en": " "},
        good | {"id": "4", "image": {"bytes": image[:30], "path": None}},
        good | {"id": "5", "translations": []},
    ]
    corpus = Dataset.from_list(rows, features=parallel_features())

    found = check_parallel(corpus)

    assert (found.rows, found.images, found.languages, found.sources) == (6, 2, {"de": 5}, {"s": 6})
    assert [fault.partition(":")[0] for fault in found.faults] == [
        "Parallel corpus, row 2, column 'id'",
        "Parallel corpus, row 3, column 'text_en'",
        "Parallel corpus, row 4 (id '4'), column 'image'",
    ]
    assert found.warnings == {
        "rows without a translation": 1,
        "rows with the text and image of an earlier row": 2,
    }
    assert not check_parallel(corpus.select([0, 1])).faults
    assert len(check_parallel(corpus, most=1).faults) == 1


def test_caption_benchmark(tmp_path: Path, images: Path) -> None:
    corpus = read_csv(six_rows(tmp_path), images)

    made = caption_benchmark(corpus.rows, corpus.languages)

    assert made.tasks["t2i"]["de"][2]["text"] == "Text 2"
    assert made.tasks["t2i"]["de"][2]["images"][0] == made.images[2]["path"] == "images/below/2.png"
    assert sorted(made.tasks["i2t"]["ja"][5]["captions"]) == [f"テキスト{number}" for number in range(6)]
    assert made.tasks["i2t"]["ja"][5]["captions"][0] == "テキスト5"
    assert set(made.templates["i2t"]) == {"en", "de", "ja"}
