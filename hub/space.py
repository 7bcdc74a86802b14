"""Writes a Space: a small app that searches the images of a released benchmark with a released model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from xvlm2vec.common.files import files_below, write_json, write_text
from xvlm2vec.common.languages import language, normal_or_same
from xvlm2vec.common.renamed import renamed_keywords
from xvlm2vec.common.tasks import task_title
from xvlm2vec.common.templates import render_template

from .card import SCORES_FILE, read_metadata
from .export import tested_versions
from .saved_weights import transformer_folder
from .staging import ExportError, staged_folder

APP = Path(__file__).with_name("space_app.py")
STYLE = APP.with_suffix(".css")
GRADIO = "6.31.0"
"""The version that the app is tested with; a Space names one."""
LIBRARIES = ("torch", "transformers", "huggingface-hub", "pillow", "numpy")
MAX_GALLERY = 2000
EXAMPLES = 6
LONGEST_EXAMPLE = 40
HUB_DESCRIPTION = 60


@dataclass(frozen=True)
class Place:
    """Where the app finds a model or a benchmark, and a folder with the same files.

    Args:
        folder: The files, here.
        hub_id: Its id on the Hub; `None` if the app is to read the folder.
        revision: Its revision on the Hub.
        home: Where the folder will lie when the app reads it, if that is elsewhere.
    """

    folder: Path
    hub_id: str | None = None
    revision: str | None = None
    home: Path | None = None

    def settings(self) -> dict[str, Any]:
        """As the app reads it."""
        name = self.hub_id or str(Path(self.home or self.folder).resolve())
        return {"id": name, "revision": self.revision, "on_hub": self.hub_id is not None}

    @property
    def is_stock(self) -> bool:
        """Whether a model has the form of sentence-transformers or transformers and no code of its own."""
        configs = [self.folder / "config.json", transformer_folder(self.folder) / "config.json"]
        return not any(path.is_file() and '"auto_map"' in path.read_text(encoding="utf-8") for path in configs)


@dataclass(frozen=True)
class CaptionColumns:
    """A configuration of a benchmark whose rows have a text and its image: the columns of both."""

    task: str
    text: str
    image: str


CAPTION_COLUMNS = (CaptionColumns("t2i", "text", "images"), CaptionColumns("c", "classes", "img"))
"""Where captions are from; of a column of lists the first entry is the right one."""


@renamed_keywords(licence="license")
def write_space(
    folder: str | os.PathLike[str], model: Place, benchmark: Place, *, title: str, license: str | None = None
) -> Path:
    """Writes the files of a Space: `app.py`, its style, `requirements.txt`, `README.md` and what the app reads.

    Args:
        folder: Where to write: missing, empty, or an earlier Space, which is replaced.
        model: The released model.
        benchmark: The released benchmark.
        title: Title of the page.
        license: License of the Space, as the Hub spells it.

    Raises:
        ExportError: The benchmark has no images with captions, or the folder is a foreign one.
    """
    gallery = read_gallery(benchmark.folder)
    settings = space_settings(model, benchmark, title, gallery)
    with staged_folder(folder, "space") as staging:
        shutil.copyfile(APP, staging / "app.py")
        shutil.copyfile(STYLE, staging / "app.css")
        write_json(staging / "space.json", settings)
        write_json(staging / "gallery.json", gallery)
        write_text(staging / "requirements.txt", requirements(model.is_stock))
        write_text(staging / "README.md", _readme(settings, license))
    return Path(folder)


def space_settings(model: Place, benchmark: Place, title: str, gallery: list[dict[str, Any]]) -> dict[str, Any]:
    """What `space.json` holds: where everything lies, languages, example queries and scores."""
    codes = list(dict.fromkeys(code for entry in gallery for code in entry["captions"]))
    taught = _card_languages(model.folder / "README.md") or codes
    scores = _read_scores(model.folder / SCORES_FILE)
    return {
        "title": title,
        "model": {**model.settings(), "stock": model.is_stock},
        "benchmark": benchmark.settings(),
        "languages": [_language(code, code in taught) for code in sorted(codes, key=lambda code: code not in taught)],
        "examples": {code: _examples(gallery, code) for code in codes},
        "tasks": {task: task_title(task) for task in scores.get("student", {})},
        "scores": scores,
    }


def read_gallery(benchmark: Path) -> list[dict[str, Any]]:
    """The images to search: `{"path": ..., "captions": {language: text}}`, in the order of the benchmark.

    Raises:
        ExportError: No configuration names images beside texts.
    """
    captions: dict[str, dict[str, str]] = {}
    for columns in CAPTION_COLUMNS:
        for file in files_below(benchmark / columns.task, "*.parquet"):
            for path, text in _pairs(file, columns):
                captions.setdefault(path, {})[normal_or_same(file.stem)] = text
    if not captions:
        names = " or ".join(f"{columns.task} ({columns.text}, {columns.image})" for columns in CAPTION_COLUMNS)
        raise ExportError(f"{benchmark} has no images with captions to search: it needs the task {names}.")
    order = _language_order(benchmark)
    return [
        {"path": path, "captions": {code: texts[code] for code in sorted(texts, key=order)}}
        for path, texts in list(captions.items())[:MAX_GALLERY]
    ]


def requirements(stock: bool = False) -> str:
    """The libraries of the app beside Gradio, in the versions that the model is tested with.

    Args:
        stock: Whether sentence-transformers runs the model.
    """
    tested, names = tested_versions(), [*LIBRARIES, *(["sentence-transformers"] if stock else [])]
    return "\n".join([*(f"{name}{tested.get(name, '')}" for name in names), "pyarrow"]) + "\n"


def _pairs(file: Path, columns: CaptionColumns) -> Iterator[tuple[str, str]]:
    """Path and text of each row of a parquet file, if it has the columns."""
    schema = pq.read_schema(file)
    if not {columns.text, columns.image} <= set(schema.names):
        return
    table = pq.read_table(file, columns=[columns.image, columns.text])
    images, texts = (_first(table[column]) for column in (columns.image, columns.text))
    yield from zip(images, texts, strict=True)


def _first(column: pa.ChunkedArray) -> list[str]:
    """Strings as they are, of lists the first."""
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    return (pc.list_element(column, 0) if is_list else column).to_pylist()


def _language_order(benchmark: Path) -> Any:
    """The order in which the benchmark's card names its languages."""
    place = {code: number for number, code in enumerate(_card_languages(benchmark / "README.md"))}
    return lambda code: (place.get(code, place.get(code.split("-")[0], len(place))), code)


def _card_languages(card: Path) -> list[str]:
    """The languages that a card names, regions and scripts included."""
    metadata = read_metadata(card) if card.is_file() else {}
    return [*(metadata.get("language") or ()), *(metadata.get("language_bcp47") or ())]


def _examples(gallery: list[dict[str, Any]], code: str) -> list[str]:
    """Short captions from all over the gallery, the same images in every language."""
    pool = [entry for entry in gallery if all(len(text) <= LONGEST_EXAMPLE for text in entry["captions"].values())]
    pool = [entry for entry in pool or gallery if code in entry["captions"]]
    step = max(1, len(pool) // EXAMPLES)
    return list(dict.fromkeys(entry["captions"][code] for entry in pool[::step]))[:EXAMPLES]


def _language(code: str, taught: bool) -> dict[str, Any]:
    info = language(code)
    return {"code": code, "name": info.name, "native_name": info.native_name, "taught": taught}


def _read_scores(path: Path) -> dict[str, Any]:
    """The scores of `scores.json`; none where an older release has no such file."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["scores"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path} holds no scores ({error!r}); release the model again.") from error


def _readme(settings: dict[str, Any], license: str | None) -> str:
    model, benchmark = settings["model"], settings["benchmark"]
    taught = [item["name"] for item in settings["languages"] if item["taught"]]
    head: dict[str, Any] = {
        "title": settings["title"],
        "emoji": "🌍",
        "colorFrom": "indigo",
        "colorTo": "blue",
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "app_file": "app.py",
        "short_description": f"Image search in {len(taught)} languages"[:HUB_DESCRIPTION],
        "tags": ["xvlm2vec", "multimodal", "multilingual", "embeddings"],
    }
    head |= {"license": license} if license else {}
    head |= {"models": [model["id"]]} if model["on_hub"] else {}
    head |= {"datasets": [benchmark["id"]]} if benchmark["on_hub"] else {}
    return render_template(
        "space.md",
        metadata=yaml.safe_dump(head, sort_keys=False, allow_unicode=True),
        title=settings["title"],
        model=model["id"],
        benchmark=benchmark["id"],
        languages=taught,
    )
