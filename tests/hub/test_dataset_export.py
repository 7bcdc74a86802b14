from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset, DatasetDict, Features, Image, List, Value, load_dataset
from PIL import Image as PILImage

from xvlm2vec.hub.dataset_export import BenchmarkCard, DataSource, export_benchmark
from xvlm2vec.hub.staging import ExportError

CARD = BenchmarkCard(
    name="Tiny benchmark",
    repo_id="someone/tiny",
    description="Two tasks.",
    license="cc-by-4.0",
    sources=[DataSource("Glyphs", "OFL-1.1", "https://example.org", "Drawn anew"), DataSource("Names", "Unicode-3.0")],
    task_titles={"t2i": "text to image"},
    citation="@misc{tiny}",
)


@pytest.fixture
def images(tmp_path: Path) -> Dataset:
    """Images that lie in files, which the export must take in."""
    paths = []
    for number in range(3):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        PILImage.fromarray(np.full((4, 6, 3), 40 * number, dtype=np.uint8)).save(path)
        paths.append(str(path))
    features = Features({"path": Value("string"), "image": Image()})
    return Dataset.from_dict({"path": [f"images/{i}.png" for i in range(3)], "image": paths}, features=features)


@pytest.fixture
def tasks() -> dict[str, DatasetDict]:
    features = Features({"text": Value("string"), "images": List(Value("string"))})
    rows = {
        language: Dataset.from_dict(
            {
                "text": [text, text + "!"],
                "images": [["images/0.png", "images/1.png"], ["images/2.png", "images/0.png"]],
            },
            features=features,
        )
        for language, text in {"en": "a cat", "de": "eine Katze"}.items()
    }
    c_rows = Dataset.from_dict({"img": ["images/1.png"], "classes": [["Hund", "Katze"]]})
    return {"t2i": DatasetDict(rows), "c": DatasetDict({"de": c_rows})}


def test_load_dataset_reads_tasks_languages_and_images(tasks, images: Dataset, tmp_path: Path) -> None:
    folder = export_benchmark(tasks, images, tmp_path / "benchmark", CARD)
    for image in (tmp_path / "images").iterdir():
        image.unlink()  # the export holds the images itself
    cache = str(tmp_path / "cache")
    german = load_dataset(str(folder), "t2i", split="de", cache_dir=cache)
    assert german.to_list() == tasks["t2i"]["de"].to_list()
    assert german.features == tasks["t2i"]["de"].features
    assert set(load_dataset(str(folder), "t2i", cache_dir=cache)) == {"en", "de"}
    assert load_dataset(str(folder), "c", split="de", cache_dir=cache)[0]["classes"] == ["Hund", "Katze"]
    image_list = load_dataset(str(folder), "images", split="test", cache_dir=cache)
    assert image_list["path"][:] == ["images/0.png", "images/1.png", "images/2.png"]
    assert image_list[2]["image"].size == (6, 4)
    assert image_list[2]["image"].getpixel((0, 0)) == (80, 80, 80)


def test_the_same_data_give_the_same_bytes(tasks, images: Dataset, tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    first = contents(export_benchmark(tasks, images, tmp_path / "a", CARD))
    again = contents(export_benchmark(tasks, images, tmp_path / "b", CARD))
    assert first == again
    assert set(first) == {
        "README.md",
        "export.json",
        "t2i/en.parquet",
        "t2i/de.parquet",
        "c/de.parquet",
        "images/test.parquet",
    }
    assert not [name for name, content in first.items() if str(tmp_path).encode() in content], "a path of this machine"


def test_the_card_states_rows_licenses_and_sources(tasks, images: Dataset, tmp_path: Path) -> None:
    folder = export_benchmark(tasks, images, tmp_path / "benchmark", CARD)
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["language"] == ["en", "de"]
    assert [config["config_name"] for config in metadata["configs"]] == ["t2i", "c", "images"]
    assert "| `t2i` text to image | 2 | 2 |" in text
    assert "| `c` |  | 1 |" in text
    assert "3 images" in text
    assert "- [Glyphs](https://example.org): OFL-1.1. Drawn anew" in text
    assert "- Names: Unicode-3.0" in text
    assert 'load_dataset("someone/tiny", "t2i", split="en")' in text


def test_names_that_datasets_cannot_load_are_refused(tasks, tmp_path: Path) -> None:
    odd = {"t2i": DatasetDict({"zh-Hant": tasks["c"]["de"]})}
    with pytest.raises(ExportError, match="'zh-Hant'"):
        export_benchmark(odd, None, tmp_path / "benchmark", CARD)
    with pytest.raises(ExportError, match="cannot be called 'images'"):
        export_benchmark({"images": tasks["c"]}, None, tmp_path / "benchmark", CARD)
    with pytest.raises(ExportError, match="no rows in de"):
        export_benchmark({"c": DatasetDict({"de": tasks["c"]["de"].select([])})}, None, tmp_path / "benchmark", CARD)
    with pytest.raises(ExportError, match="no tasks"):
        export_benchmark({}, None, tmp_path / "benchmark", CARD)
    assert not (tmp_path / "benchmark").exists()


def test_a_foreign_folder_is_refused_and_an_earlier_export_replaced(tasks, images, tmp_path: Path) -> None:
    folder = export_benchmark(tasks, images, tmp_path / "benchmark", CARD)
    export_benchmark({"c": tasks["c"]}, None, folder, CARD)
    assert not (folder / "t2i").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(ExportError, match="no earlier benchmark export"):
        export_benchmark(tasks, images, tmp_path / "mine", CARD)
