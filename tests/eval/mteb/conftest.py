"""mteb's real tasks on made data: tiny folders in the layouts in which the data sets are published."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

mteb = pytest.importorskip("mteb")

ITEMS = 14
LANGUAGES = {"xm3600": ["de", "en", "mi"], "wit": ["ar", "en"], "vdr": ["de", "en"], "miracl": ["en", "sw"]}
FOLDERS = {
    "XM3600T2IRetrieval": "xm3600", "XM3600I2TRetrieval": "xm3600", "WITT2IRetrieval": "wit", "WITI2TRetrieval": "wit",
    "VDRMultilingualRetrieval": "vdr", "MIRACLVisionRetrieval": "miracl",
}  # fmt: skip


def encoded(item: int, form: str = "PNG") -> dict[str, Any]:
    """An image of one color, from which the model of `vectors` reads the item's number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (item * 10, 60, 200)).save(buffer, form)
    return {"bytes": buffer.getvalue(), "path": f"{item}.{form.lower()}"}


def save(path: Path, columns: Mapping[str, list]) -> None:
    """A parquet file whose column `image`, if any, is one of images."""
    from datasets import Dataset
    from datasets import Image as ImageColumn

    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.from_dict(dict(columns))
    (dataset.cast_column("image", ImageColumn()) if "image" in columns else dataset).to_parquet(path)


def xm3600(folder: Path) -> None:
    """A split for each language, images as plain structs; two captions each, of which some are equal."""
    (folder / "data").mkdir(parents=True)
    for language in LANGUAGES["xm3600"]:
        captions = [[f"{language} {i} one", f"{language} {i} {'one' if i % 5 == 0 else 'two'}"] for i in range(ITEMS)]
        columns: dict[str, list] = {
            "image_id": [f"{i:02}" for i in range(ITEMS)], "image": [encoded(i) for i in range(ITEMS)],
            "image_locale": ["xx"] * ITEMS, "captions": captions, "captions_tokenized": captions,
            "captions_tokenized_lowercase": captions,
        }  # fmt: skip
        pq.write_table(pa.table(columns), folder / "data" / f"{language}-00000-of-00001.parquet")


def wit(folder: Path) -> None:
    """A split for each language, other images in each; JPEGs."""
    for language in LANGUAGES["wit"]:
        shift = LANGUAGES["wit"].index(language) * 4
        items = range(shift, shift + ITEMS)
        columns = {
            "image_id": [f"{language}{i}" for i in items],
            "image": [encoded(i, "JPEG") for i in items],
            "captions": [[f"{language} {i}"] for i in items],
        }
        save(folder / "data" / f"{language}-00000-of-00001.parquet", columns)


def configured(folder: Path, files: Mapping[str, tuple[str, Mapping[str, list]]]) -> None:
    """Configurations by name, each with its split and its columns."""
    lines = ["---", "configs:"]
    for name, (split, columns) in files.items():
        save(folder / f"{name}.parquet", columns)
        lines += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {name}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def vdr(folder: Path) -> None:
    """A configuration for each language; the last pages have no query."""
    configured(
        folder,
        {
            language: (
                "train",
                {
                    "id": [str(i) for i in range(ITEMS)],
                    "query": [f"{language} {i}" if i < ITEMS - 3 else None for i in range(ITEMS)],
                    "image": [encoded(i) for i in range(ITEMS)],
                },
            )
            for language in LANGUAGES["vdr"]
        },
    )


def miracl(folder: Path) -> None:
    """Four configurations for each language; several pages are right, some judged ones are not, one is nowhere."""
    files: dict[str, tuple[str, Mapping[str, list]]] = {}
    for language in LANGUAGES["miracl"]:
        pages = [f"{i}#0" for i in range(ITEMS)]
        judged = [(q, d) for q in range(6) for d in (q, q + 1, q + 7)]
        grades = [[1, 1, 0][place % 3] for place in range(len(judged))]
        qrels = {
            "query-id": [f"q{q}" for q, _ in judged] + ["q0", "q6", "q6"],
            "corpus-id": [pages[d] for _, d in judged] + ["nowhere#0", "nowhere#1", pages[2]],
            "score": [*grades, 1, 1, 0],
        }
        files |= {
            f"corpus-{language}": ("default", {"_id": pages, "image_id": [f"f{i}" for i in range(ITEMS)]}),
            f"images-{language}": (
                "default",
                {"file_name": [f"f{i}" for i in range(ITEMS)], "image": [encoded(i) for i in range(ITEMS)]},
            ),
            f"queries-{language}": (
                "default",
                {"_id": [f"q{q}" for q in range(7)], "text": [f"{language} {q}" for q in range(7)]},
            ),
            f"qrels-{language}": ("default", qrels),
        }
    configured(folder, files)


BUILDERS = {"xm3600": xm3600, "wit": wit, "vdr": vdr, "miracl": miracl}


@pytest.fixture
def made_task(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A task of mteb by its name, whose data set is a made folder; `mteb.get_task` then gives it, too."""
    folders: dict[str, Path] = {}

    def get(name: str) -> Any:
        shape = FOLDERS[name]
        if shape not in folders:
            folders[shape] = tmp_path_factory.mktemp(shape)
            BUILDERS[shape](folders[shape])
        real = type(mteb.get_task(name))
        languages = {language: real.metadata.eval_langs[language] for language in LANGUAGES[shape]}
        changes = {"dataset": {"path": str(folders[shape]), "revision": "1"}, "eval_langs": languages}

        class Made(real):  # type: ignore[misc, valid-type]
            metadata = real.metadata.model_copy(update=changes)

            def task_specific_scores(self, scores: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
                """Means that are not rounded to five places."""
                names = {"ndcg_cut_10": "exact_ndcg", "recall_5": "exact_r5", "recall_10": "exact_r10"}
                return {
                    ours: float(np.mean([row[theirs] for row in scores.values()])) for theirs, ours in names.items()
                }

        registry = importlib.import_module("mteb.get_tasks")._TASKS_REGISTRY
        monkeypatch.setitem(registry, name, Made)
        return Made()

    return get


def _vector(seed: list[int]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=16)


@pytest.fixture
def vectors() -> Callable[[list, list], np.ndarray]:
    """A model that is right now and then: a row's item, and noise of its text or of its image's color."""

    def embed(texts: list[str | None], images: list[Any]) -> np.ndarray:
        embedded = []
        for text, image in zip(texts, images, strict=True):
            if image is not None:
                red = int(np.asarray(image.convert("RGB"))[0, 0, 0])
                embedded.append(_vector([round(red / 10)]) + 0.8 * _vector([7, red, len(text or "")]))
            else:
                number = int(next(word for word in str(text).split() if word.isdigit()))
                embedded.append(_vector([number]) + 0.8 * _vector([9, *str(text).encode()]))
        return np.array(embedded)

    return embed
