from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Image
from PIL import Image as PILImage

from xvlm2vec.eval.benchmarks.exported import read_exported
from xvlm2vec.eval.benchmarks.instructions import read_templates
from xvlm2vec.eval.encoders import CallableEncoder
from xvlm2vec.eval.row_images import open_image
from xvlm2vec.eval.runner import evaluate

NAMES = {"en": ["dog", "cat", "cow"], "de": ["Hund", "Katze", "Kuh"]}
TEMPLATES = {
    task: {code: {"query": f"{code}: {{text}}" if task == "t2i" else f"{code}?", "target": target} for code in NAMES}
    for task, target in (("c", "{text}"), ("t2i", "image"))
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    paths = [f"images/{number}.png" for number in range(3)]

    def first(pool: list[str]) -> list[list[str]]:
        return [[gold, *(one for one in pool if one != gold)] for gold in pool]

    for code, names in NAMES.items():
        write(tmp_path / "c" / f"{code}.parquet", {"id": names, "img": paths, "classes": first(names)})
        write(tmp_path / "withheld" / f"{code}.parquet", {"img": paths[:1], "classes": first(names)[:1]})
        write(tmp_path / "t2i" / f"{code}.parquet", {"text": names, "images": first(paths)})
    colors = [PILImage.new("RGB", (4, 4), (number, 0, 0)) for number in range(3)]
    images = Dataset.from_dict({"path": paths, "image": colors}).cast_column("image", Image())
    (tmp_path / "images").mkdir()
    images.to_parquet(tmp_path / "images" / "test.parquet")
    (tmp_path / "templates.json").write_text(json.dumps(TEMPLATES), encoding="utf-8")
    return tmp_path


def write(path: Path, columns: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    Dataset.from_dict(columns).to_parquet(path)


def test_tasks(folder: Path) -> None:
    tasks = read_exported(folder, "animals")

    assert [task.name for task in tasks] == [
        "animals/animals/c/de/verbatim",
        "animals/animals/c/en/verbatim",
        "animals/animals/t2i/de/verbatim",
        "animals/animals/t2i/en/verbatim",
        "animals/withheld/c/de/verbatim",
        "animals/withheld/c/en/verbatim",
    ]
    assert tasks[2].queries[0].text == "de: Hund"
    assert tasks[2].candidates[0].text == "image"
    assert open_image(tasks[0].images["images/2.png"]).getpixel((0, 0)) == (2, 0, 0)


def test_scores_of_a_model_that_knows_english(folder: Path) -> None:
    def embed(texts: list[str | None], images: list) -> list[list[float]]:
        return [vector(text, image) for text, image in zip(texts, images, strict=True)]

    def vector(text: str | None, image: PILImage.Image | None) -> list[float]:
        name = (text or "").removeprefix("en: ")
        place = image.getpixel((0, 0))[0] if image else NAMES["en"].index(name) if name in NAMES["en"] else 3
        return [float(place == number) for number in range(4)]

    results = evaluate(CallableEncoder(embed, name="made"), read_exported(folder, "animals"), progress=False)

    scores = results.scores(dataset="animals")
    assert scores["t2i"]["en"] == scores["c"]["en"] == 1
    assert scores["t2i"]["de"] == pytest.approx(1 / 3)


def test_selection(folder: Path) -> None:
    only = read_exported(folder, "animals", datasets=["withheld"], languages=["de"], tasks=["c"], styles=["punct"])

    assert [task.name for task in only] == ["animals/withheld/c/de/punct"]
    assert only[0].queries[0].text == "de?"


def test_a_language_stands_for_its_regions(folder: Path) -> None:
    for task in ("c", "t2i", "withheld"):
        (folder / task / "de.parquet").rename(folder / task / "de-AT.parquet")
    tasks = read_exported(folder, "animals", languages=["de"], datasets=["animals"])
    assert [task.name for task in tasks] == ["animals/animals/c/de-AT/verbatim", "animals/animals/t2i/de-AT/verbatim"]
    assert tasks[1].queries[0].text == "de: Hund"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["fr"]}, "has no language fr; it has de, en"),
        ({"tasks": ["vqa"]}, "has no task vqa; it has c, t2i"),
        ({"datasets": ["xm"]}, "has no data set xm; it has animals, withheld"),
        ({"datasets": ["withheld"], "tasks": ["t2i"]}, "no file for these data sets, tasks and languages together"),
        ({"styles": ["loud"]}, "unknown style"),
    ],
)
def test_unknown_names(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_exported(folder, "animals", **options)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_exported(folder / "none", "animals")
    with pytest.raises(FileNotFoundError, match="no exported benchmark"):
        read_exported(folder / "images", "animals")
    (folder / "templates.json").unlink()
    with pytest.raises(FileNotFoundError, match="--templates"):
        read_exported(folder, "animals")
    (folder / "images" / "test.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.parquet with the images"):
        read_exported(folder, "animals", templates=TEMPLATES)


def test_damaged_files(folder: Path) -> None:
    (folder / "c" / "de.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"de\.parquet is damaged"):
        read_exported(folder, "animals")
    write(folder / "c" / "de.parquet", {"img": ["images/0.png"]})
    with pytest.raises(ValueError, match=r"de\.parquet: one of the columns classes"):
        read_exported(folder, "animals")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no valid JSON"),
        ("[]", "the file must be an object"),
        ('{"c": 1}', "'c' must be an object"),
        ('{"c": {"de": "x"}}', "'c', 'de' must be an object"),
        ('{"c": {"de": {"query": 1}}}', "may hold texts for query and target"),
        ('{"c": {"de": {"other": "x"}}}', "no 'other'"),
    ],
)
def test_templates_are_checked(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.json").write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        read_templates(tmp_path / "t.json")


@pytest.mark.parametrize("form", ["c", "t2i"])
def test_an_image_that_is_not_there(folder: Path, form: str) -> None:
    """Named with its row, before anything is embedded."""
    images = pq.read_table(folder / "images" / "test.parquet")
    lost = images.column("path")[1].as_py()
    pq.write_table(images.filter(pc.not_equal(images.column("path"), lost)), folder / "images" / "test.parquet")
    with pytest.raises(ValueError, match=rf"{form}/\w+\.parquet: row \d names the image '{lost}', which .*test.parq"):
        read_exported(folder, "animals", tasks=[form])


def test_a_target_of_null_is_none(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"i2t": {"de": {"query": "Was?", "target": null}}}', encoding="utf-8")
    assert read_templates(tmp_path / "t.json") == {"i2t": {"de": {"query": "Was?"}}}
