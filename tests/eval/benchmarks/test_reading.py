"""Every benchmark from a folder in its published layout, with a model that knows some of the words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xvlm2vec.common.store import content_digest
from xvlm2vec.eval.benchmarks import files
from xvlm2vec.eval.benchmarks.entries import ENTRIES
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS, instructions
from xvlm2vec.eval.benchmarks.layouts import READERS
from xvlm2vec.eval.benchmarks.reading import NAMES, read_benchmark
from xvlm2vec.eval.encoders import as_encoder
from xvlm2vec.eval.ranking import Row
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.runner import evaluate

PARQUET = "test-00000-of-00001.parquet"


def run(name: str, folder: Path, model: Callable, **options) -> Results:
    return evaluate(as_encoder(model, name="colors"), read_benchmark(name, folder, **options), progress=False)


def found(results: Results) -> dict[tuple[str, str, str], tuple[int, float]]:
    return {(row["dataset"], row["task"], row["language"]): (row["n"], row["p_at_1"]) for row in results.rows}


def test_mmeb(published: Callable, color_model: Callable) -> None:
    folder = published("mmeb")
    tasks = read_benchmark("mmeb", folder, datasets=["ImageNet-1K", "RefCOCO-Matching"])
    assert [task.name for task in tasks] == ["MMEB/ImageNet-1K/c/en/verbatim", "MMEB/RefCOCO-Matching/vg/en/verbatim"]
    assert tasks[0].queries[0] == Row("Represent the given image for classification\n", "toy/red.jpg")
    assert tasks[0].candidates[0] == Row("red")
    assert tasks[1].candidates[0] == Row("red\n", "toy/red.jpg")
    assert tasks[1].candidate_index.shape == (3, 3), "the published lists name candidates twice; each counts once"
    scores = found(run("mmeb", folder, color_model("en"), datasets=["ImageNet-1K"]))
    assert scores == {("ImageNet-1K", "c", "en"): (3, 1.0)}
    with pytest.raises(FileNotFoundError, match=r"MMEB: there is no file .*N24News/test-\*\.parquet"):
        read_benchmark("mmeb", folder)


def test_mmeb_has_36_data_sets() -> None:
    layouts = ENTRIES["mmeb"].layouts
    assert [len(layout.datasets) for layout in layouts] == [10, 10, 12, 4]
    assert len({name for layout in layouts for name in layout.datasets}) == 36


def test_xtd10(published: Callable, color_model: Callable) -> None:
    folder = published("xtd10")
    results = run("xtd10", folder, color_model("en", "ja"))
    assert found(results) == {
        ("xtd", task, language): (3, pytest.approx(1.0 if language != "de" else 1 / 3))
        for language in ("en", "de", "ja")
        for task in ("i2t", "t2i")
    }
    assert {summary["task"] for summary in results.summaries() if summary["mrv_n"] == 3} == {"i2t", "t2i"}
    (task,) = read_benchmark("xtd10", folder, languages=["ja"], tasks=["t2i"])
    assert task.queries[0].text == instructions()["t2i"]["ja"]["query"].replace("{text}", "赤")


def test_captions_of_one_image_have_the_same_number_in_every_language(published: Callable) -> None:
    folder = published("xtd10")
    content = json.loads((folder / "xtd.json").read_text(encoding="utf-8"))
    content["captions"]["en"][0] = ["red", "scarlet"]
    (folder / "xtd.json").write_text(json.dumps(content), encoding="utf-8")
    english, german = (
        read_benchmark("xtd10", folder, languages=[code], tasks=["t2i"])[0].row_ids for code in ("en", "de")
    )
    assert (english.tolist(), german.tolist()) == ([0, 1, 2, 4], [0, 2, 4])


def test_babel_imagenet(published: Callable, color_model: Callable) -> None:
    folder = published("babel-imagenet")
    scores = found(run("babel-imagenet", folder, color_model("de", "es")))
    assert scores == {("imagenet-1k-val", "c", "de"): (4, 1.0), ("imagenet-1k-val", "c", "es"): (8, 1.0)}
    german, spanish = read_benchmark("babel-imagenet", folder)
    assert [row.text for row in spanish.candidates] == ["rojo", "verde", "azul"], "a label of two classes is one answer"
    assert german.row_ids.tolist() == [0, 1, 4, 5], "images have the same numbers in every language"


def test_maxm(published: Callable, color_model: Callable) -> None:
    folder = published("maxm")
    with pytest.raises(FileNotFoundError, match=r"MaXM: there is no file .*data/hi-\*\.parquet"):
        read_benchmark("maxm", folder)
    results = run("maxm", folder, color_model("en"), languages=["en", "fr", "he"])
    assert found(results) == {
        ("maxm", "vqa", "en"): (3, 1.0),  # two right answers do not compete with each other
        ("maxm", "vqa", "fr"): (3, pytest.approx(1 / 3)),
        ("maxm", "vqa", "he"): (3, pytest.approx(1 / 3)),
    }
    assert not any("mrv_std" in summary for summary in results.summaries()), "its questions are not parallel"


def test_cvqa(published: Callable, color_model: Callable, rewrite: Callable) -> None:
    folder = published("cvqa")
    assert found(run("cvqa", folder, color_model("en", "es"))) == {
        ("local", "vqa", "es-Mexico"): (2, 1.0),
        ("local", "vqa", "arz-Egypt"): (1, 0.25),
        ("translated", "vqa", "es-Mexico"): (2, 1.0),
        ("translated", "vqa", "arz-Egypt"): (1, 1.0),
    }
    (task,) = read_benchmark("cvqa", folder, datasets=["local"], languages=["es"])
    assert task.queries[0].text == instructions()["vqa"]["es"]["query"].replace("{text}", "?")
    rewrite(folder / "data" / PARQUET, Label=[0, -1, 2])
    with pytest.raises(ValueError, match=r"parquet: row 1 has no gold candidate: Label is -1.* withholds"):
        read_benchmark("cvqa", folder)


def test_visr_bench(published: Callable, color_model: Callable) -> None:
    folder = published("visr-bench")
    scores = found(run("visr-bench", folder, color_model("en", "de")))
    assert scores == {
        **{(kind, "page", "en"): (3, 1.0) for kind in ("figure", "table", "text")},
        ("multilingual", "page", "de"): (3, 1.0),
        ("multilingual", "page", "es"): (3, pytest.approx(1 / 3)),
    }
    documents = json.loads((folder / "QA" / "text_QA.json").read_text())
    documents[0]["qa_list"][1]["page_index"] = 3
    (folder / "QA" / "text_QA.json").write_text(json.dumps(documents))
    with pytest.raises(ValueError, match=r"text_QA\.json: document 0: the gold page of .*'lime' is 3, for 3 pages"):
        read_benchmark("visr-bench", folder)


def test_merit(published: Callable, color_model: Callable) -> None:
    folder = published("merit")
    tasks = read_benchmark("merit", folder)
    assert [task.language for task in tasks] == ["id", "en"]
    assert tasks[0].queries[0] == Row(
        instructions()["product"]["id"]["query"].replace("{text}", "seperti ini\na\nd"), ("0", "3")
    )
    assert len(tasks[1].candidates) == 4, "all products compete in every language"
    scores = found(run("merit", folder, color_model("en")))
    assert scores == {("merit", "product", "id"): (2, 1.0), ("merit", "product", "en"): (1, 1.0)}


def test_rsicd(published: Callable, color_model: Callable) -> None:
    folder = published("rsicd")
    i2t, t2i = read_benchmark("rsicd", folder)
    assert (len(i2t.queries), len(i2t.candidates), i2t.gold_counts.tolist()) == (4, 6, [2, 2, 2, 1])
    assert (len(t2i.queries), len(t2i.candidates)) == (20, 4)
    assert t2i.candidate_index[0].tolist() == t2i.candidate_index[15].tolist(), "a caption is right for all its images"
    scores = found(run("rsicd", folder, color_model("en")))
    # "scarlet" is a caption of one of the two red images: the other is level with it, and each has half a hit
    assert scores == {("rsicd", "i2t", "en"): (4, 3.5 / 4), ("rsicd", "t2i", "en"): (20, 19.5 / 20)}


def test_large_files_stay_on_disk(published: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = published("cvqa")
    small = read_benchmark("cvqa", folder)
    monkeypatch.setattr(files, "_MEMORY", 0)
    large = read_benchmark("cvqa", folder)
    assert large[0].images._images.cache_files
    assert [task.queries for task in large] == [task.queries for task in small]
    assert content_digest(large[0].images["1"]) == content_digest(small[0].images["1"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("xtd10", {"languages": ["de", "fr"]}, "XTD10 in .* has no language fr; it has en, de, ja"),
        ("xtd10", {"tasks": ["vqa"]}, "has no task vqa; it has i2t, t2i"),
        ("cvqa", {"datasets": ["Mexico"]}, "has no data set Mexico; it has local, translated"),
        ("cvqa", {"languages": ["fr"]}, "has no language fr; it has es-Mexico, arz-Egypt"),
        ("visr-bench", {"datasets": ["text"], "languages": ["de"]}, "has no language de; it has en"),
        ("xtd10", {"styles": ["loud"]}, "unknown style 'loud'"),
        ("xtd10", {"templates": {"i2t": {"de": {"query": ""}}}}, "json: the templates have no 'query' for task 'i2t'"),
    ],
)  # fmt: skip
def test_unknown_names(published: Callable, name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_benchmark(name, published(name), **options)


def test_unknown_benchmark_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no benchmark 'flickr'; there are mmmeb, .*and mteb:NAME"):
        read_benchmark("flickr", tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_benchmark("MMMEB", tmp_path / "none")


@pytest.mark.parametrize("name", ENTRIES)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    entry = ENTRIES[name]
    with pytest.raises(FileNotFoundError, match=f"^{entry.name}: there is no file {tmp_path}/"):
        read_benchmark(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "columns", "message"),
    [
        ("mmeb", f"ImageNet-1K/{PARQUET}", {"tgt_text": [["red"], [], ["blue"]], "tgt_img_path": [[""], [], [""]]},
         "row 1 has an empty candidate list"),
        ("mmeb", f"ImageNet-1K/{PARQUET}", {"tgt_text": [["red"], ["a"], ["blue"]]},
         "row 0 has 1 candidate texts and 3 images"),
        ("mmeb", f"ImageNet-1K/{PARQUET}", {"tgt_text": [["", "a", "b"]] * 3},
         "row 0 has a gold candidate without text and image"),
        ("mmeb", f"ImageNet-1K/{PARQUET}", {"tgt_text": None}, "has no column tgt_text; it has qry_text"),
        ("cvqa", f"data/{PARQUET}", {"Options": [["a", "b", "c", "a"]] * 3}, "row 0 lists its gold candidate 'a' more"),
        ("cvqa", f"data/{PARQUET}", {"Label": [0, 4, 1]}, "row 1 has no gold candidate: Label is 4, for 4 candidates"),
        ("maxm", "data/fr-00000-of-00001.parquet", {"answers": [["a"], [], ["b"]]}, "row 1 has no gold candidate"),
        ("rsicd", f"data/{PARQUET}", {"captions": [["a"], [], ["b"], ["c"]]}, "image 1 .* has no caption in 'en'"),
        ("merit", f"data/{PARQUET}", {"idx": ["10", "11", "10", "13"]}, "rows 0 and 2 have the same id '10'"),
        ("merit", f"data/{PARQUET}", {"idx": ["1", "11", "12", "13"]},
         r"queries-test\.json: query 0 names the product 10, which the catalogue does not have"),
    ],
)  # fmt: skip
def test_damaged_rows(
    published: Callable, rewrite: Callable, name: str, file: str, columns: dict, message: str
) -> None:
    folder = published(name)
    rewrite(folder / file, **columns)
    options = {"mmeb": {"datasets": ["ImageNet-1K"]}, "maxm": {"languages": ["fr"]}}.get(name, {})
    with pytest.raises(ValueError, match=message) as error:
        read_benchmark(name, folder, **options)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": ["a"]', "no valid JSON"),
        ("[]", "must hold a dict, not a list"),
        ('{"images": ["a"]}', "lacks the field 'captions'"),
        ('{"images": ["a"], "captions": {"de": [["x"], ["y"]]}}', "2 captions in 'de' for 1 images"),
        ('{"images": ["a"], "captions": {"de": [[""]]}}', r"image 0 \(a\) has no caption in 'de', or an empty one"),
    ],
)
def test_damaged_json(published: Callable, content: str, message: str) -> None:
    folder = published("xtd10")
    (folder / "xtd.json").write_text(content)
    with pytest.raises(ValueError, match=rf"xtd\.json.*{message}"):
        read_benchmark("xtd10", folder)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([[0, 9], ["a", "b"]], "class 9 has no folder; there are 4 folders"),
        ([[0, 0], ["a", "b"]], "class 0 occurs twice"),
        ([[0], ["a", "b"]], "class numbers and one of as many names"),
        ({"0": "a"}, "class numbers and one of as many names"),
    ],
)
def test_damaged_classes(published: Callable, entry: object, message: str) -> None:
    folder = published("babel-imagenet")
    (folder / "data" / "babel_imagenet-298.json").write_text(json.dumps({"DE": entry}))
    with pytest.raises(ValueError, match=f"json: DE: .*{message}"):
        read_benchmark("babel-imagenet", folder)


def test_leftovers_among_classes(published: Callable, color_model: Callable, caplog: pytest.LogCaptureFixture) -> None:
    folder = published("babel-imagenet")
    clean = found(run("babel-imagenet", folder, color_model("de", "es")))
    for name in (".ipynb_checkpoints/x.png", "__MACOSX/x.png", ".DS_Store", "n00000000/Thumbs.db", "n00000001/._0.JPEG",
                 "n00000001/notes.txt"):  # fmt: skip
        (folder / "val" / name).parent.mkdir(exist_ok=True)
        (folder / "val" / name).touch()
    assert found(run("babel-imagenet", folder, color_model("de", "es"))) == clean
    assert "6 files and folders are no images or classes" in caplog.text
    (folder / "val" / "a-class-to-be").mkdir()
    with pytest.raises(ValueError, match=r"a-class-to-be has no images"):
        read_benchmark("babel-imagenet", folder)


def test_images_of_both_parts_of_coco(published: Callable, color_model: Callable) -> None:
    folder = published("xtd10")
    (folder / "val2014").mkdir()
    image = min((folder / "train2014").iterdir())
    image.rename(folder / "val2014" / image.name)
    run("xtd10", folder, color_model("en"))


def test_images_that_are_not_there(published: Callable, color_model: Callable) -> None:
    folder = published("xtd10")
    image = next((folder / "train2014").iterdir())
    image.unlink()
    with pytest.raises(FileNotFoundError, match=rf"no image .*images/{image.name}, .*train2014/{image.name}"):
        run("xtd10", folder, color_model("en"))
    content = json.loads((folder / "xtd.json").read_text())
    content["images"] = ["../secret.jpg"] * 3
    (folder / "xtd.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"'\.\./secret\.jpg' leads out of the data folder"):
        run("xtd10", folder, color_model("en"))


def test_styles_and_no_instructions(published: Callable) -> None:
    folder = published("xtd10")
    options = {"languages": ["de"], "templates": NO_INSTRUCTIONS}
    i2t, t2i = read_benchmark("xtd10", folder, styles=["punct"], **options)
    assert (i2t.queries[0], i2t.candidates[0]) == (Row("", i2t.queries[0].image), Row("rot"))
    assert (t2i.queries[0], t2i.candidates[0].text) == (Row("rot."), "")


def test_our_instructions_have_their_text_where_it_belongs() -> None:
    for task, languages in instructions().items():
        for sides in languages.values():
            assert ("{text}" in sides["query"]) == (task not in ("c", "i2t"))
            assert ("{text}" in sides["target"]) == (task not in ("t2i", "vg", "page"))


def test_every_entry_has_what_a_reader_wants_to_know() -> None:
    assert set(ENTRIES) < set(NAMES)
    for entry in ENTRIES.values():
        assert entry.source.startswith("https://")
        assert entry.license
        assert all(layout.reader in READERS for layout in entry.layouts)


@pytest.mark.parametrize("side", ["query", "target"])
def test_an_instruction_without_a_place_for_the_text(published: Callable, side: str) -> None:
    sides = {"query": "{text}", "target": "{text}"} | {side: "Answer the question."}
    with pytest.raises(ValueError, match=r"maxm.*the template 'Answer the question.' has no \{text\}, and a row has"):
        read_benchmark("maxm", published("maxm"), languages=["en"], templates={"vqa": {"*": sides}})
