"""Tiny folders in the layouts in which benchmarks are published: three colors, their names, and nothing else."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

RGB = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}
COLORS = list(RGB)
WORDS = {
    "en": ["red", "lime", "blue"],
    "de": ["rot", "grün", "blau"],
    "ja": ["赤", "緑", "青"],
    "es": ["rojo", "verde", "azul"],
}
OTHER_WORDS = ["scarlet", "green", "azure"]
CLIP_WORDS = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "dog", "cat", "house", "red", "blue", "what", "is", "it"]


def encoded(color: str) -> dict[str, Any]:
    """An image as parquet files of the `datasets` library hold it."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{color}.png"}


def save_image(path: Path, color: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path)


def save_parquet(path: Path, columns: dict[str, list]) -> None:
    """A table whose column `image` is an image, as `Dataset.push_to_hub` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = datasets.Dataset.from_dict(columns)
    if "image" in columns:
        dataset = dataset.cast_column("image", datasets.Image())
    dataset.to_parquet(path)


def save_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def mmeb(folder: Path) -> None:
    """Parquet files of lists; an image's place in the text is marked, an empty path means that there is none."""
    for color in COLORS:
        save_image(folder / "images" / "toy" / f"{color}.jpg", color)
    paths = [f"toy/{color}.jpg" for color in COLORS]
    orders = [COLORS[i:] + COLORS[:i] for i in range(3)]
    save_parquet(
        folder / "ImageNet-1K" / "test-00000-of-00001.parquet",
        {
            "qry_text": ["<|image_1|>\nRepresent the given image for classification\n"] * 3,
            "qry_img_path": paths,
            "tgt_text": orders,
            "tgt_img_path": [[""] * 3] * 3,
        },
    )
    save_parquet(
        folder / "RefCOCO-Matching" / "test-00000-of-00001.parquet",
        {
            "qry_text": [f"<|image_1|>\nSelect the part: {color}\n" for color in COLORS],
            "qry_img_path": paths,
            "tgt_text": [[f"<|image_1|>\n{name}\n" for name in [*order, order[0]]] for order in orders],
            "tgt_img_path": [[f"toy/{name}.jpg" for name in [*order, order[0]]] for order in orders],
        },
    )  # fmt: skip


def xtd10(folder: Path) -> None:
    """One JSON file; one caption for each image and language."""
    names = [f"COCO_train2014_00000000000{i}.jpg" for i in range(3)]
    for name, color in zip(names, COLORS, strict=True):
        save_image(folder / "train2014" / name, color)
    captions = {code: [[word] for word in WORDS[lang]] for code, lang in (("en", "en"), ("de", "de"), ("jp", "ja"))}
    save_json(folder / "xtd.json", {"images": names, "captions": captions})


def babel_imagenet(folder: Path) -> None:
    """Upper-case codes, class numbers with labels; one class has no label in German, two share one in Spanish."""
    for number, color in enumerate([*COLORS, "red"]):
        for image in range(2):
            save_image(folder / "val" / f"n0000000{number}" / f"ILSVRC2012_val_0000000{image}.JPEG", color)
    save_json(
        folder / "data" / "babel_imagenet-298.json",
        {"DE": [[0, 2], ["rot", "blau"]], "ES": [[0, 1, 2, 3], ["rojo", "verde", "azul", "rojo"]]},
    )


def maxm(folder: Path) -> None:
    """A parquet file for each language, several right answers for each question."""
    for code, words in (("en", WORDS["en"]), ("fr", ["rouge", "vert", "bleu"]), ("iw", ["אדום", "ירוק", "כחול"])):
        save_parquet(
            folder / "data" / f"{code}-00000-of-00001.parquet",
            {
                "image_id": ["a", "b", "c"],
                "question_id": ["1", "2", "3"],
                "question": ["?"] * 3,
                "answers": [[word, OTHER_WORDS[i]] if code == "en" else [word] for i, word in enumerate(words)],
                "processed_answers": [[word] for word in words],
                "image": [encoded(color) for color in COLORS],
            },
        )


def cvqa(folder: Path) -> None:
    """All countries in one table; the right option has a number. The names are written as pairs."""
    local = [[*WORDS["es"], "gris"], ["gris", *WORDS["es"]], [*WORDS["de"], "grau"]]
    english = [[*WORDS["en"], "grey"], ["grey", *WORDS["en"]], [*WORDS["en"], "grey"]]
    save_parquet(
        folder / "data" / "test-00000-of-00001.parquet",
        {
            "image": [encoded(color) for color in ("red", "lime", "blue")],
            "ID": ["1", "2", "3"],
            "Subset": ["('Spanish', 'Mexico')", "('Spanish', 'Mexico')", "('Egyptian_Arabic', 'Egypt')"],
            "Question": ["?"] * 3,
            "Translated Question": ["?"] * 3,
            "Options": local,
            "Translated Options": english,
            "Label": [0, 2, 2],
            "License": ["CC BY-SA 4.0"] * 3,
        },
    )


def visr_bench(folder: Path) -> None:
    """A JSON file of documents for each kind of questions, and the pages as files."""
    for place, color in enumerate(COLORS):
        for below in ("Multimodal/0005", "Multilingual/doc1"):
            save_image(folder / below / f"{below.split('/')[1]}_{place}.png", color)
    for kind in ("figure", "table", "text"):
        questions = [{"question": word, "answer": "-", "page_index": i} for i, word in enumerate(WORDS["en"])]
        shelf = [f"0005_{i}.png" for i in range(3)]
        document = {"file_name": "0005", "qa_list": questions, "all_page_images": shelf, "all_page_md_str": ["-"] * 3}
        save_json(folder / "QA" / f"{kind}_QA.json", [document])
    questions = [
        {"question": WORDS[lang][i], "answer": "-", "page_index": i, "detected_language": name}
        for lang, name in (("de", "German"), ("es", "Spanish"))
        for i in range(3)
    ]
    shelf = [f"doc1_{i}.png" for i in range(3)]
    save_json(
        folder / "QA" / "multilingual_QA.json",
        [{"file_name": "doc1", "qa_list": questions, "all_page_images": shelf, "all_page_md_str": ["-"] * 3}],
    )


def merit(folder: Path) -> None:
    """A catalogue of products, and queries that name several of them."""
    save_parquet(
        folder / "data" / "test-00000-of-00001.parquet",
        {
            "idx": ["10", "11", "12", "13"],
            "image": [encoded(color) for color in [*COLORS, "red"]],
            "title": ["a", "b", "c", "d"],
            "class": ["drink"] * 4,
            "country": ["ID"] * 4,
            "language": ["id", "id", "English", "id"],
        },
    )
    save_json(
        folder / "queries-test.json",
        [
            {"query instruction": "seperti ini", "query": [10, 13], "pos_candidate": [10, 13]},
            {"query instruction": "seperti ini", "query": [11], "pos_candidate": [11]},
            {"query instruction": "like this", "query": [12, 12], "pos_candidate": [12]},
        ],
    )


def rsicd(folder: Path) -> None:
    """An image with five captions in each row; captions repeat, within a row and across rows."""
    save_parquet(
        folder / "data" / "test-00000-of-00001.parquet",
        {
            "filename": [f"rsicd_images/{color}.jpg" for color in [*COLORS, "red"]],
            "captions": [[w, w, o, w, w] for w, o in zip(WORDS["en"], OTHER_WORDS, strict=True)] + [["red"] * 5],
            "image": [encoded(color) for color in [*COLORS, "red"]],
        },
    )


def mmmeb(folder: Path) -> None:
    """JSON lines of lists with the right candidate first, images by name."""
    for color in COLORS:
        save_image(folder / "xm_images" / f"{color}.jpg", color)
    for lang in ("en", "de"):
        for task in ("t2i", "i2t"):
            lines = []
            for i in range(3):
                order = [(i + k) % 3 for k in range(3)]
                names, words = [COLORS[k] for k in order], [WORDS[lang][k] for k in order]
                row = {"text": words[0], "images": names} if task == "t2i" else {"img": names[0], "captions": words}
                lines.append(json.dumps(row, ensure_ascii=False))
            (folder / f"xm_{lang}_3_formatted_{task}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def emoji(folder: Path) -> None:
    """What a release writes of the built-in world: a table for each task and language, images apart."""
    names = [f"images/{i}.png" for i in range(3)]
    orders = [[(i + k) % 3 for k in range(3)] for i in range(3)]
    save_parquet(folder / "images" / "test.parquet", {"path": names, "image": [encoded(c) for c in COLORS]})
    for lang in ("en", "de"):
        lists = [[names[k] for k in order] for order in orders]
        save_parquet(folder / "t2i" / f"{lang}.parquet", {"text": WORDS[lang], "images": lists})
        words = [[WORDS[lang][k] for k in order] for order in orders]
        save_parquet(folder / "withheld" / f"{lang}.parquet", {"img": names, "classes": words})
    sides = {"t2i": {"query": "{text}", "target": ""}, "c": {"query": "?", "target": "{text}"}}
    save_json(folder / "templates.json", {task: {lang: side for lang in WORDS} for task, side in sides.items()})


BUILDERS: dict[str, Callable[[Path], None]] = {
    "mmmeb": mmmeb, "mmeb": mmeb, "xtd10": xtd10, "babel-imagenet": babel_imagenet, "maxm": maxm, "cvqa": cvqa,
    "visr-bench": visr_bench, "merit": merit, "rsicd": rsicd, "emoji": emoji,
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained CLIP with the files of a published one: configuration, weights, tokenizer and image settings."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(CLIP_WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": len(CLIP_WORDS), "max_position_embeddings": 16, "bos_token_id": 2,
                     "eos_token_id": 3, "pad_token_id": 0},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    image_size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessorPil(**image_size), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def published(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a benchmark in its published layout and returns the folder."""

    def build(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        BUILDERS[name](folder)
        return folder

    return build


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Changes columns of a parquet file, or drops those that are set to None."""

    def change(path: Path, **columns: list | None) -> None:
        table = pq.read_table(path)
        for name, values in columns.items():
            spelt = name.replace("_", " ") if name not in table.column_names else name
            place = table.column_names.index(spelt)
            table = table.remove_column(place) if values is None else table.set_column(place, spelt, pa.array(values))
        pq.write_table(table.replace_schema_metadata(None), path)

    return change


@pytest.fixture
def color_model() -> Callable[..., Callable]:
    """A function that embeds images by their color, and texts by the colors that they name in some languages."""

    def make(*languages: str) -> Callable[[list, list], np.ndarray]:
        known = {word: place for lang in languages for place, word in enumerate(WORDS[lang])}
        known |= {word: place for place, word in enumerate(OTHER_WORDS)} if "en" in languages else {}

        def embed(texts: list[str | None], images: list) -> np.ndarray:
            vectors = np.zeros((len(texts), 3))
            for vector, text, image in zip(vectors, texts, images, strict=True):
                shown = image if isinstance(image, list) else [image] if image is not None else []
                for one in shown:
                    vector += np.asarray(one.convert("RGB").resize((1, 1)), float).ravel() > 127
                for word, place in known.items():
                    vector[place] += word in (text or "")
            return vectors

        return embed

    return make


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium or ChromeDriver is not installed")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    for (
        flag
    ) in f"{flags} disable-component-update disable-sync force-prefers-reduced-motion window-size=1280,900".split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield session
    session.quit()
