from __future__ import annotations

import json
import tracemalloc
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from xvlm2vec.common.store import content_digest
from xvlm2vec.eval.benchmarks.images import named_images
from xvlm2vec.eval.benchmarks.instructions import apply_style, mmmeb_instructions, templates_hash
from xvlm2vec.eval.benchmarks.list_rows import TASKS, ranking_task
from xvlm2vec.eval.benchmarks.mmmeb import DATASETS, mmmeb_images, read_mmmeb_folder
from xvlm2vec.eval.embedding import distinct_rows
from xvlm2vec.eval.encoders import as_encoder
from xvlm2vec.eval.ranking import Row
from xvlm2vec.eval.row_images import open_image, opened_images
from xvlm2vec.eval.runner import evaluate

TEMPLATES = {
    "t2i": {"de": {"query": "Finde: {text}", "target": "Bild."}},
    "i2t": {"de": {"query": "Was passt?", "target": "{text}"}},
    "vqa": {"de": {"query": "Frage: {text}"}},
    "vg": {"de": {"query": "Teil: {text}", "target": "Ausschnitt"}},
    "c": {"de": {"query": "Was ist das"}},
}
ROWS = {
    "c": {"img": ["a", "b"], "classes": [["Hund", "Katze"], ["Katze", "Hund"]]},
    "i2t": {"img": ["a", "b"], "captions": [["ein Hund.", "eine Katze"], ["eine Katze", "ein Hund."]]},
    "t2i": {"text": ["Hund", "Katze"], "images": [["a", "b", "c"], ["b", "a"]]},
    "vqa": {"img": ["a", "b"], "question": ["Was ist da?", "Wo"], "answers": [["Hund", "Haus"], ["Haus", "Hund"]]},
    "vg": {"img": ["a", "b"], "text": ["Hund", "Katze"], "imgs": [["c1", "c2"], ["c2", "c1"]]},
}


def convert(task: str, rows: dict | None = None, style: str = "plain", templates: dict | None = None):
    table = pa.table(rows or ROWS[task])
    return ranking_task(table, {}, templates or TEMPLATES, task=task, language="de", dataset="xm", style=style)


def test_every_task() -> None:
    assert convert("c").queries == [Row("Was ist das", "a"), Row("Was ist das", "b")]
    assert convert("c").candidates == [Row("Hund"), Row("Katze")]
    assert convert("i2t").queries[0] == Row("Was passt", "a")
    assert convert("i2t").candidates[0] == Row("ein Hund."), "text targets keep their form in every style"
    t2i = convert("t2i")
    assert t2i.queries == [Row("Finde: Hund"), Row("Finde: Katze")]
    assert t2i.candidates == [Row("Bild", "a"), Row("Bild", "b"), Row("Bild", "c")]
    assert t2i.candidate_index.tolist() == [[0, 1, 2], [1, 0, -1]]
    assert convert("vqa").queries == [Row("Frage: Was ist da", "a"), Row("Frage: Wo", "b")]
    assert convert("vg").queries[1] == Row("Teil: Katze", "b")
    assert convert("vg").candidates[1] == Row("Ausschnitt", "c2")


@pytest.mark.parametrize(
    ("text", "mark", "plain", "punct"),
    [
        ("x", ".", "x", "x."),
        ("x.", ".", "x", "x."),
        ("x..", ".", "x.", "x.."),
        ("x?", "?", "x", "x?"),
        ("x", "?", "x", "x?"),
        ("これは何？", "?", "これは何？", "これは何？"),
    ],
)
def test_styles(text: str, mark: str, plain: str, punct: str) -> None:
    assert apply_style(text, "plain", mark) == plain
    assert apply_style(text, "punct", mark) == punct
    assert apply_style(text, "newline", mark) == punct + "\n"


def test_styles_apply_to_queries_and_image_targets() -> None:
    assert convert("t2i", style="punct").queries[0] == Row("Finde: Hund.")
    assert convert("t2i", style="newline").candidates[0] == Row("Bild.\n", "a")
    assert [row.text for row in convert("vqa", style="punct").queries] == ["Frage: Was ist da?", "Frage: Wo?"]
    assert convert("i2t", style="newline").candidates[1] == Row("eine Katze")
    with pytest.raises(ValueError, match="unknown style 'bold'; choose from plain"):
        convert("t2i", style="bold")


def test_braces_in_a_text_are_text() -> None:
    rows = {"text": ["{text} {0}", "b"], "images": [["a", "b"], ["b", "a"]]}
    assert convert("t2i", rows).queries[0] == Row("Finde: {text} {0}")


def test_null_texts_leave_the_denominator() -> None:
    rows = {"text": [None, "Katze", None], "images": [["a", "b"], ["b", "a"], ["c", "a"]]}
    task = convert("t2i", rows)
    assert (task.skipped, len(task.queries), task.row_ids.tolist()) == (2, 1, [1])
    with pytest.raises(ValueError, match=r"no rows to score \(2 were skipped\)"):
        convert("t2i", {"text": pa.array([None, None], pa.string()), "images": [["a"], ["b"]]})


def test_a_null_candidate_cannot_be_retrieved() -> None:
    rows = {"img": ["a", "b"], "captions": [["x", None, "y"], ["y", "x", None]]}
    assert convert("i2t", rows).candidate_index.tolist() == [[0, -1, 1], [1, 0, -1]]


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("i2t", {"img": ["a", "b"], "captions": [["x"], []]}, "row 1 has an empty candidate list"),
        ("i2t", {"img": ["a", "b"], "captions": [["x"], None]}, "row 1 has an empty candidate list"),
        ("i2t", {"img": ["a", "b"], "captions": [["x"], [None, "x"]]}, "row 1 has no gold candidate"),
        (
            "i2t",
            {"img": ["a", "b"], "captions": [["x"], ["y", "x", "y"]]},
            "row 1 .* 'y' more than once",
        ),
        ("i2t", {"img": ["a", None], "captions": [["x"], ["y"]]}, "row 1 has no img"),
        ("i2t", {"img": ["a"], "classes": [["x"]]}, "no column captions; task 'i2t' needs img, captions"),
        ("i2t", {"img": ["a"], "captions": ["x"]}, "must be lists of strings, not string"),
        ("i2t", {"img": [3], "captions": [["x"]]}, "column img must hold strings, not int64"),
        ("x", {"img": [3]}, "unknown task 'x'; choose from c, i2t, t2i, vqa, vg"),
    ],
)
def test_bad_rows(task: str, rows: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(task, rows)


def test_templates_with_gaps() -> None:
    with pytest.raises(ValueError, match="no 'query' for task 't2i' in language 'de'"):
        convert("t2i", templates={"t2i": {"en": TEMPLATES["t2i"]["de"]}})
    with pytest.raises(ValueError, match=r"needs \{text\}: 'Finde'"):
        convert("t2i", templates={"t2i": {"de": {"query": "Finde", "target": "Bild"}}})
    with pytest.raises(ValueError, match=r"must not have \{text\}"):
        convert("c", templates={"c": {"de": {"query": "{text}"}}})


def test_shipped_templates_are_complete_and_named_by_content() -> None:
    templates = mmmeb_instructions()
    for task, form in TASKS.items():
        assert set(templates[task]) == {"en", "it", "es", "fr", "de"}
        for sides in templates[task].values():
            assert ("{text}" in sides["query"]) == (form.text is not None)
            assert ("{text}" in sides["target"]) != form.image_candidates
    changed = json.loads(json.dumps(templates))
    assert templates_hash(changed) == templates_hash(templates)
    changed["c"]["de"]["query"] += "!"
    assert templates_hash(changed) != templates_hash(templates)


def test_the_candidates_of_a_full_task_never_become_python_objects() -> None:
    """A million of them would take 85 MB, and seconds; the matrix of their numbers takes 2 MB."""
    names = [f"Bildunterschrift Nummer {i}" for i in range(1000)]
    orders = [np.random.default_rng(i).permutation(1000).tolist() for i in range(1000)]
    rows = datasets.Dataset.from_dict(
        {"img": names, "captions": [[names[j] for j in order] for order in orders]},
    ).select(range(999, -1, -1))
    tracemalloc.start()
    try:
        task = ranking_task(rows, {}, TEMPLATES, task="i2t", language="de", dataset="emoji")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6
    assert task.candidate_index.shape == (1000, 1000)
    assert [task.candidates[i].text for i in task.candidate_index[0]] == [names[j] for j in orders[-1]]


def write_folder(folder: Path) -> Path:
    (folder / "xm_images").mkdir(parents=True)
    Image.new("RGB", (2, 2), "red").save(folder / "xm_images" / "1.jpg")
    Image.new("RGB", (2, 2), "blue").save(folder / "xm_images" / "2.png")
    for language in ("en", "de"):
        rows = [{"text": f"eins {language}.", "images": ["1", "2.png"]}, {"text": None, "images": ["2.png", "1"]}]
        path = folder / f"xm_{language}_1000_formatted_t2i.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def test_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    tasks = read_mmmeb_folder(folder, ["xm"], ["en", "de"], ["t2i", "vqa"], ["plain", "punct"])
    assert [task.name for task in tasks] == [
        f"MMMEB/xm/t2i/{lang}/{s}" for lang in ("en", "de") for s in ("plain", "punct")
    ]
    assert {(len(task.queries), task.skipped) for task in tasks} == {(1, 1)}
    assert tasks[0].queries[0].text.endswith("eins en")
    assert tasks[1].queries[0].text.endswith("eins en.")
    assert tasks[0].images["1"].name == "1.jpg"
    assert tasks[0].templates_hash == templates_hash(mmmeb_instructions())
    assert sorted(tasks[0].images) == ["xm_images/1.jpg", "xm_images/2.png"]


def test_missing_and_broken_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"xm_fr_<N>_formatted_t2i.jsonl is missing"):
        read_mmmeb_folder(folder, ["xm"], ["en", "fr"], ["t2i"])
    with pytest.raises(FileNotFoundError, match=r"mine_\*_<N>_formatted_\*.jsonl"):
        read_mmmeb_folder(folder, ["mine"])
    with pytest.raises(ValueError, match="nothing to read: flickr30k_entities"):
        read_mmmeb_folder(folder, ["flickr30k_entities"], ["de"])
    with pytest.raises(ValueError, match="unknown task 'i2i'"):
        read_mmmeb_folder(folder, tasks=["i2i"])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_mmmeb_folder(folder / "none")
    broken = folder / "xm_de_1000_formatted_t2i.jsonl"
    broken.write_text('{"text": "a", "images": ["1"')
    with pytest.raises(ValueError, match=broken.name):
        read_mmmeb_folder(folder, ["xm"], ["de"], ["t2i"])
    broken.write_text("")
    with pytest.raises(ValueError, match=broken.name):
        read_mmmeb_folder(folder, ["xm"], ["de"], ["t2i"])
    (folder / "xm_en_7_formatted_t2i.jsonl").touch()
    with pytest.raises(ValueError, match="several files for one task"):
        read_mmmeb_folder(folder, ["xm"], ["en"], ["t2i"])


def save_rows(folder: Path, task: str, rows: list[dict]) -> Path:
    path = folder / f"xm_en_9_formatted_{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"img": "1", "captions": [None, "a"]}, {"img": "2", "captions": ["b", "c"]}], "row 0 has no gold candidate"),
        ([{"img": "1", "captions": ["a"]}, {"img": "2", "captions": [None, "c"]}], "row 1 has no gold candidate"),
        (
            [{"img": "1", "captions": ["a", ""]}, {"img": "2", "captions": ["", "c"]}],
            "row 1 has no gold candidate: .*empty",
        ),
        ([{"img": "1", "captions": ["a", 2]}], "cannot be read as JSON lines of img, captions: .* in row 0"),
        ([{"img": 1, "captions": ["a"]}], "cannot be read as JSON lines of img, captions: .* in row 0"),
        ([{"img": "1", "captions": "a"}], "cannot be read as JSON lines of img, captions: .* in row 0"),
        ([{"img": "1", "captions": ["a"]}, {"captions": ["b"]}], "row 1 has no img"),
        ([{"img": "1", "captions": ["a"]}, {"img": "2"}], "row 1 has an empty candidate list"),
        ([{"img": "1", "texts": ["a"]}], "no column captions; task 'i2t' needs img, captions"),
    ],
)
def test_damaged_rows_of_a_file(tmp_path: Path, rows: list[dict], message: str) -> None:
    path = save_rows(tmp_path, "i2t", rows)
    with pytest.raises(ValueError, match=f"{path.name}.*{message}"):
        read_mmmeb_folder(tmp_path, ["xm"], ["en"], ["i2t"])


def test_texts_of_a_file_stay_texts(tmp_path: Path) -> None:
    """Arrow would take them for dates, and further columns may hold anything."""
    rows = [{"text": "2020-01-01", "images": ["1", "2"], "id": 3}, {"text": "2", "images": ["2", None, "1"], "id": "x"}]
    save_rows(tmp_path, "t2i", rows)
    task = read_mmmeb_folder(tmp_path, ["xm"], ["en"], ["t2i"], styles=["plain"])[0]
    assert [row.text.split()[-1] for row in task.queries] == ["2020-01-01", "2"]
    assert task.candidate_index.tolist() == [[0, 1, -1], [1, -1, 0]]


@pytest.mark.parametrize("copy", ["1.jpg", "xm_images/1", "xm_images/1.jpg", "./xm_images//1.jpg"])
def test_an_image_under_two_names(tmp_path: Path, copy: str) -> None:
    """As an answer it is one candidate; as the right answer it must not stand in the list again."""
    rows = [{"text": "a", "images": ["2", "1", copy, "3"]}, {"text": "b", "images": ["3", copy]}]
    path = save_rows(tmp_path, "t2i", rows)
    task = read_mmmeb_folder(tmp_path, ["xm"], ["en"], ["t2i"])[0]
    assert [row.image for row in task.candidates] == ["2", "1", "3"]
    assert task.candidate_index.tolist() == [[0, 1, 1, 2], [2, 1, -1, -1]]
    save_rows(tmp_path, "t2i", [{"text": None, "images": ["2"]}, {"text": "b", "images": ["1", "2", copy]}])
    with pytest.raises(ValueError, match=f"{path.name}: row 1 lists its gold candidate '1' more than once, maybe"):
        read_mmmeb_folder(tmp_path, ["xm"], ["en"], ["t2i"])


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    task = read_mmmeb_folder(folder, ["xm"], ["de"], ["t2i"])[0]
    encoder = as_encoder(lambda texts, images: np.ones((len(texts), 2)), name="m")
    torn = folder / "xm_images" / "2.png"
    torn.write_bytes(torn.read_bytes()[:40])
    with pytest.raises(ValueError, match=rf"{torn}: cannot be read as an image"):
        evaluate(encoder, [task], progress=False)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for path in sorted((folder / "xm_images").iterdir()):
            archive.write(path, f"some/xm_images/{path.name}")
            path.unlink()
    with pytest.raises(ValueError, match=r"images\.zip/some/xm_images/2\.png: cannot be read as an image"):
        evaluate(encoder, [task], progress=False)
    content = (folder / "images.zip").read_bytes()
    (folder / "images.zip").write_bytes(content.replace(b"IHDR", b"IHDX", 1))
    with pytest.raises(ValueError, match=r"images\.zip/some/xm_images/2\.png is damaged \(Bad CRC-32.*download it"):
        evaluate(encoder, read_mmmeb_folder(folder, ["xm"], ["de"], ["t2i"]), progress=False)


def test_own_data_set_in_the_layout(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "xm_de_1000_formatted_t2i.jsonl").rename(folder / "mine_de_2_formatted_t2i.jsonl")
    assert [task.name for task in read_mmmeb_folder(folder, ["mine"])] == ["MMMEB/mine/t2i/de/plain"]


def test_image_names(tmp_path: Path) -> None:
    images = mmmeb_images(write_folder(tmp_path), "xm")
    assert images["1"] == tmp_path / "xm_images" / "1.jpg"
    assert images["xm_images/2.png"] == tmp_path / "xm_images" / "2.png"
    assert images["xm_images/1"] == tmp_path / "xm_images" / "1.jpg"
    with pytest.raises(FileNotFoundError, match=r"no image '9': no file .*xm_images/9\.jpg"):
        images["9"]


@pytest.mark.parametrize("below", ["", "some/folder/"])
def test_images_in_the_archive_as_it_is_downloaded(tmp_path: Path, below: str) -> None:
    folder = write_folder(tmp_path)
    loose = mmmeb_images(folder, "xm")
    digests = {name: content_digest(loose[name]) for name in ("1", "xm_images/2.png")}
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for path in sorted((folder / "xm_images").iterdir()):
            archive.write(path, f"{below}xm_images/{path.name}")
            path.unlink()
    images = mmmeb_images(folder, "xm")
    assert {name: content_digest(images[name]) for name in digests} == digests
    tasks = read_mmmeb_folder(folder, ["xm"], ["de"], ["t2i"])
    distinct, _ = distinct_rows(tasks)
    opened = opened_images(distinct.rows, distinct.images)
    assert [image.mode for image in opened if image is not None] == ["RGB", "RGB"]
    with pytest.raises(FileNotFoundError, match=r"no file .*9\.jpg, and .*images\.zip has none of the name"):
        images["9"]
    (folder / "images.zip").write_bytes(b"PK torn")
    with pytest.raises(ValueError, match=r"images\.zip is damaged"):
        mmmeb_images(folder, "xm")["1"]


def test_names_without_any_file_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*_pt_<N>_formatted_\*\.jsonl for the data sets"):
        read_mmmeb_folder(folder, ["xm"], ["de", "pt"], ["t2i"])
    assert not caplog.text
    read_mmmeb_folder(folder, ["xm", "maxm_v1"], ["de"], ["t2i", "vqa"])
    assert "Nothing of data set maxm_v1" in caplog.text
    assert "Nothing of task vqa" in caplog.text


@pytest.mark.parametrize("name", ["../secret.jpg", "xm_images/../../secret.jpg", "/etc/passwd.jpg", "..\\secret.jpg"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.jpg").touch()
    with pytest.raises(ValueError, match="leads out of the data folder"):
        mmmeb_images(write_folder(tmp_path / "data"), "xm")[name]


def test_images_of_a_data_set(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "1.png")
    features = datasets.Features({"path": datasets.Value("string"), "image": datasets.Image()})
    content = {"path": ["a", "b"], "image": [str(tmp_path / "1.png"), Image.new("RGB", (3, 2), "blue")]}
    images = named_images(datasets.Dataset.from_dict(content, features=features))
    assert (list(images), len(images)) == (["a", "b"], 2)
    assert open_image(images["a"]).getpixel((0, 0)) == (255, 0, 0)
    assert open_image(images["b"]).size == (3, 2)
    assert content_digest(images["a"]) == content_digest(tmp_path / "1.png") != content_digest(images["b"])
    with pytest.raises(KeyError):
        images["c"]
    with pytest.raises(ValueError, match="occurs twice"):
        named_images(datasets.Dataset.from_dict({**content, "path": ["a", "a"]}, features=features))
    with pytest.raises(ValueError, match="missing: image"):
        named_images(datasets.Dataset.from_dict({"path": ["a"]}))


def test_published_combinations() -> None:
    assert {task for tasks, _ in DATASETS.values() for task in tasks} == set(TASKS)
