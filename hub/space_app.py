"""Searches the images of a benchmark with a text in any language, or with an image.

This file is the `app.py` of a Space, and what `xvlm2vec demo` runs. Beside it lie `space.json` (model, benchmark,
languages, example queries, scores) and `gallery.json` (the images and their captions). The model
brings its own code along.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import numpy as np
import pyarrow.parquet as pq
import torch
from huggingface_hub import hf_hub_download, snapshot_download
from PIL import Image, ImageOps
from transformers import AutoModel

logger = logging.getLogger(__name__)

MAX_CHARACTERS = 300
MAX_BYTES = 5_000_000
MAX_PIXELS = 16_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # what an upload may be; rarer decoders are not lent to strangers
LONGEST_EDGE = 1024  # a larger image is made smaller before it is embedded
THUMBNAIL = 256
RESULTS = 12
EXAMPLES = 6
STEP = 100  # images between two lines of the log
MEAN = "mean"


@dataclass(frozen=True)
class Searcher:
    """A model, and the images that it has embedded.

    Args:
        model: The model, with `encode` and `config.prompts`.
        gallery: `{"path": ..., "captions": {language: text}}` of each image.
        images: The encoded images, in the same order.
        vectors: Their embeddings, `(N, D)` float32 of length 1.
    """

    model: Any
    gallery: Sequence[dict[str, Any]]
    images: Sequence[bytes]
    vectors: np.ndarray

    def by_text(self, text: str, language: str) -> list[tuple[int, float]]:
        """Numbers and cosines of the images that fit a text best, asked for in its language if that was taught.

        Of a model with adapters that of the language speaks; without one the base does.
        """
        names = (f"t2i-{language}", "query")
        prompt = next((name for name in names if name in self.model.config.prompts), None)
        speaker = {"language": language} if language in getattr(self.model, "languages", ()) else {}
        return self._nearest(self.model.encode(text=[text], instruction=prompt, **speaker))

    def by_image(self, image: Image.Image) -> list[tuple[int, float]]:
        """Numbers and cosines of the images that are most like another."""
        return self._nearest(embed_images(self.model, [image]))

    def _nearest(self, query: np.ndarray) -> list[tuple[int, float]]:
        scores = self.vectors @ unit(query)[0]
        order = np.argsort(-scores, kind="stable")[:RESULTS]
        return [(int(number), float(scores[number])) for number in order]


def guarded(image: gr.Image) -> gr.Image:
    """An upload of limited size; an address in its place is refused, not fetched, also when it comes by the API."""
    keep_file = image.async_move_resource_to_block_cache

    async def keep_only_files(place: str | Path | None) -> str | None:
        if "://" in str(place):
            raise gr.Error("This demo fetches no addresses. Upload the image itself.")
        return await keep_file(place)

    # The component is changed rather than subclassed: Gradio writes a stub file beside each subclass.
    image.async_move_resource_to_block_cache = keep_only_files  # type: ignore[method-assign, assignment]
    image.preprocess = lambda payload: open_upload(payload.path) if payload else None  # type: ignore[method-assign]
    return image


def open_upload(path: str | None) -> Image.Image:
    """An uploaded image as RGB; its bytes and pixels are counted before it is decoded.

    Raises:
        gr.Error: It is too large, or no image.
    """
    if not path or not os.path.isfile(path):
        raise gr.Error("Upload the image as a file.")
    if os.path.getsize(path) > MAX_BYTES:
        raise gr.Error(f"This file is too large: images may have {MAX_BYTES // 1_000_000} MB.")
    try:
        width, height = Image.open(path, formats=FORMATS).size
        image = as_rgb(Image.open(path, formats=FORMATS)) if width * height <= MAX_PIXELS else None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise gr.Error("This file is no image that can be read; try PNG, JPEG or WebP.") from error
    if image is None:
        raise gr.Error(f"This image has {width} x {height} pixels; {MAX_PIXELS // 1_000_000} million is the limit.")
    image.thumbnail((LONGEST_EDGE, LONGEST_EDGE))
    return image


def as_rgb(image: Image.Image) -> Image.Image:
    """The image as the model reads it: upright, on white where it is transparent, and greys of 16 bits in 8."""
    image = upright(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; as it is where that is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # damaged metadata raise whatever their reader comes across
        logger.info("The orientation of an image cannot be read: %s", error)
        return image


def load_searcher(folder: Path, settings: dict[str, Any]) -> Searcher:
    """The model and its embeddings of the gallery, which are computed once and then kept in a cache."""
    gallery = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))
    place = settings["model"]
    model = load_model(place)
    images = read_images(settings["benchmark"], [entry["path"] for entry in gallery])
    cache = cache_file(place, images)
    if cache.is_file():
        vectors = np.load(cache, allow_pickle=False)
    else:
        vectors = embed_gallery(model, images)
        cache.parent.mkdir(parents=True, exist_ok=True)
        draft = cache.with_suffix(f".{os.getpid()}.tmp")
        with draft.open("wb") as file:
            np.save(file, vectors)
        os.replace(draft, cache)
    return Searcher(model, gallery, images, vectors)


def load_model(place: dict[str, Any]) -> Any:
    """The model, by its own code or, where it has none, by sentence-transformers."""
    if place.get("stock"):
        from sentence_transformers import SentenceTransformer  # other models do without it

        return StockModel(SentenceTransformer(place["id"], revision=place["revision"]))
    model = AutoModel.from_pretrained(place["id"], revision=place["revision"], trust_remote_code=True).eval()
    return model.to("cuda") if torch.cuda.is_available() else model


class StockModel:
    """A model of sentence-transformers, called as the others are.

    Args:
        model: A `SentenceTransformer`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = SimpleNamespace(prompts={name: prompt for name, prompt in model.prompts.items() if prompt})

    def encode(self, text: list[str], images: list[Any] | None = None, instruction: str | None = None) -> np.ndarray:
        """Embeddings of images where there are any, else of texts."""
        prompt = self.config.prompts.get(instruction or "", instruction)
        return self.model.encode(images or text, prompt=prompt, show_progress_bar=False)


def read_images(benchmark: dict[str, Any], paths: Sequence[str]) -> list[bytes]:
    """The encoded images of a benchmark, a folder or a data set on the Hub, in the order of their paths."""
    folder = Path(benchmark["id"])
    if not folder.is_dir():
        where = {"repo_type": "dataset", "revision": benchmark["revision"]}
        folder = Path(snapshot_download(benchmark["id"], allow_patterns=["images/*.parquet"], **where))
    missing = set(paths)
    images: dict[str, bytes] = {}
    for file in sorted(folder.glob("images/*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=200, columns=["path", "image"]):
            rows = (row for row in batch.to_pylist() if row["path"] in missing)
            images |= {row["path"]: row["image"]["bytes"] for row in rows}
    if missing - images.keys():
        raise ValueError(f"{benchmark['id']} lacks the image {min(missing - images.keys())}.")
    return [images[path] for path in paths]


def cache_file(place: dict[str, Any], images: Sequence[bytes]) -> Path:
    """Where the embeddings of these images by the model of a place lie, or are to lie."""
    folder = Path(place["id"])
    if folder.is_dir():
        files = [path for path in sorted(folder.rglob("*")) if path.suffix in {".safetensors", ".json", ".py"}]
        version: list[Any] = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    else:
        config = hf_hub_download(place["id"], "config.json", revision=place["revision"])
        version = [(place["id"], Path(config).parent.name)]  # which is the commit
    digest = hashlib.sha256(repr(version).encode())
    for image in images:
        digest.update(hashlib.sha256(image).digest())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "xvlm2vec-demo" / f"{digest.hexdigest()[:32]}.npy"


def embed_gallery(model: Any, images: Sequence[bytes]) -> np.ndarray:
    """Embeddings `(N, D)` of encoded images."""
    logger.info("Embedding %d images, once", len(images))
    parts = []
    for start in range(0, len(images), STEP):
        decoded = [as_rgb(Image.open(io.BytesIO(image))) for image in images[start : start + STEP]]
        parts.append(embed_images(model, decoded))
        logger.info("  %d of %d", start + len(decoded), len(images))
    return np.concatenate(parts)


def embed_images(model: Any, images: Sequence[Image.Image]) -> np.ndarray:
    """Embeddings of images, each beside the instruction for documents if the model has one."""
    instruction = model.config.prompts.get("document")
    return unit(model.encode(text=[""] * len(images), images=list(images), instruction=instruction))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(N, D)` at length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@functools.lru_cache(maxsize=4096)
def data_uri(content: bytes) -> str:
    """A small image as the page holds it; a large one is made smaller."""
    image: Image.Image = Image.open(io.BytesIO(content))
    if max(image.size) > THUMBNAIL or image.format not in {"PNG", "JPEG", "WEBP"}:
        image = as_rgb(image)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=85)
        kind, content = "WEBP", buffer.getvalue()
    else:
        kind = str(image.format)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"


def results_page(searcher: Searcher, nearest: Sequence[tuple[int, float]], language: str, asked: str, ms: float) -> str:
    """The found images as HTML: each with its caption in a language and its cosine.

    Args:
        searcher: What searched.
        nearest: Numbers and cosines.
        language: Language of the captions.
        asked: The text that was searched; empty for an image. An image with this very caption is marked.
        ms: How long it took.
    """
    query_text = asked.strip().casefold()
    cards = []
    for number, score in nearest:
        captions = searcher.gallery[number]["captions"]
        caption = html.escape(captions.get(language) or next(iter(captions.values()), ""))
        right = bool(query_text) and query_text in {text.casefold() for text in captions.values()}
        cards.append(
            f'<figure class="found{" right" if right else ""}" data-image="{number}">'
            f'<img src="{data_uri(searcher.images[number])}" alt="{caption}">'
            f'<figcaption dir="auto" lang="{html.escape(language)}" title="{caption}">{caption}</figcaption>'
            f'<div class="cosine"><i style="width:{100 * min(max(score, 0.0), 1.0):.0f}%"></i></div>'
            f"<small>{'<b>this caption</b>' if right else ''}<span>{score:.3f}</span></small></figure>"
        )
    query = f'<q dir="auto">{html.escape(asked)}</q>' if asked else "your image"
    line = f"<p>Nearest to {query} among {len(searcher.gallery):,} images, in {ms:,.0f} ms</p>"
    return f'<div class="answer">{line}<div class="grid">{"".join(cards)}</div></div>'


def scores_page(settings: dict[str, Any], task: str) -> str:
    """Before and after as HTML: a line per language from the teacher's score to this model's."""
    student = settings["scores"].get("student", {})
    teacher = settings["scores"].get("teacher", {})
    rows = []
    for language in settings["languages"]:
        after, before = (mean_score(scores, task, language["code"]) for scores in (student, teacher))
        if after is not None:
            rows.append(score_row(language, before, after))
    if not rows:
        return '<p class="note">This release came without scores.</p>'
    key = '<span class="key before"></span>before distillation' if teacher else ""
    head = f'<p class="legend">{key}<span class="key after"></span>this model</p>'
    return f'<div class="scores">{head}{"".join(rows)}</div>'


def score_row(language: dict[str, Any], before: float | None, after: float) -> str:
    """One language's line; scores are percentages."""
    name = f"<bdi>{html.escape(language['native_name'])}</bdi> ({html.escape(language['code'])})"
    control = "" if language["taught"] else '<em title="left out of distillation on purpose">control</em>'
    start = after if before is None else before
    low, high = sorted((start, after))
    dot = "" if before is None else f'<i class="dot before" style="left:{before:.1f}%"></i>'
    text = f"{after:.1f}" if before is None else f"{before:.1f} → {after:.1f}"
    return (
        f'<div class="row"><span class="name"><span>{name}</span>{control}</span><span class="track">'
        f'<i class="line" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>{dot}'
        f'<i class="dot after" style="left:{after:.1f}%"></i></span><span class="value">{text}</span></div>'
    )


def mean_score(scores: dict[str, Any], task: str, language: str) -> float | None:
    """Precision at 1 in percent, of a task or the mean over all; `None` if there is none."""
    tasks = list(scores) if task == MEAN else [task]
    values = [scores[name][language]["p_at_1"] for name in tasks if language in scores.get(name, {})]
    return 100 * float(np.mean(values)) if values else None


def answer_text(searcher: Searcher, text: str | None, language: str) -> tuple[str, None, str]:
    """What the page shows for a text: the text, no image, and the results.

    Raises:
        gr.Error: The text is empty, too long, or holds one of the model's own tokens.
    """
    text = (text or "").strip()
    if not text:
        raise gr.Error("Type something to search for.")
    if len(text) > MAX_CHARACTERS:
        raise gr.Error(f"This text has {len(text)} characters; {MAX_CHARACTERS} is the limit.")
    started = time.perf_counter()
    try:
        nearest = searcher.by_text(text, language)
    except ValueError as error:
        raise gr.Error(str(error)) from error
    return text, None, results_page(searcher, nearest, language, text, 1000 * (time.perf_counter() - started))


def answer_image(searcher: Searcher, image: Image.Image | None, language: str) -> tuple[str, str]:
    """What the page shows for an image: no text, and the results.

    Raises:
        gr.Error: There is no image.
    """
    if image is None:
        raise gr.Error("Upload an image to search with.")
    started = time.perf_counter()
    nearest = searcher.by_image(image)
    return "", results_page(searcher, nearest, language, "", 1000 * (time.perf_counter() - started))


def example_buttons(examples: dict[str, list[str]], language: str) -> list[Any]:
    """The example queries of a language, as changes to the buttons."""
    texts = [*examples.get(language, []), *[""] * EXAMPLES][:EXAMPLES]
    return [gr.Button(value=text, visible=bool(text)) for text in texts]


def build(settings: dict[str, Any], searcher: Searcher) -> gr.Blocks:
    """The page."""
    with gr.Blocks(title=settings["title"], analytics_enabled=False) as page:
        gr.HTML(header(settings, searcher), elem_id="head")
        with gr.Tab("Search"):
            search_tab(settings, searcher, page)
        if settings["scores"]:
            with gr.Tab("Before and after"):
                scores_tab(settings)
    return page


def search_tab(settings: dict[str, Any], searcher: Searcher, page: gr.Blocks) -> None:
    """Language buttons, box, examples, upload and results."""
    languages, examples = settings["languages"], settings["examples"]
    language = pills([(language_label(item), item["code"]) for item in languages], "language")
    with gr.Row(elem_id="ask"):
        with gr.Column(scale=5):
            text = gr.Textbox(
                placeholder="Describe an image in any of these languages",
                label="Text",
                show_label=False,
                max_length=MAX_CHARACTERS,
                submit_btn=True,
                autofocus=True,
                elem_id="text",
            )
            with gr.Row(elem_id="examples"):
                buttons = [gr.Button(size="sm", min_width=40, elem_classes="example") for _ in range(EXAMPLES)]
        with gr.Column(scale=2, min_width=220):
            image = guarded(gr.Image(sources=["upload"], label="or an image", height=130, elem_id="image", buttons=[]))
    results = gr.HTML(elem_id="results")

    limits: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
    by_text, by_image = functools.partial(answer_text, searcher), functools.partial(answer_image, searcher)
    shown = [text, image, results]
    text.submit(by_text, [text, language], shown, **limits)
    for button in buttons:
        button.click(by_text, [button, language], shown, **limits)
    image.upload(by_image, [image, language], [text, results], **limits)
    for event in (page.load, language.change):
        event(functools.partial(example_buttons, examples), language, buttons, api_visibility="private")
    if first := examples.get(languages[0]["code"]):
        page.load(by_text, [gr.State(first[0]), language], shown, **limits)


def scores_tab(settings: dict[str, Any]) -> None:
    """The scores before and after, of a task or the mean."""
    gr.Markdown("Precision at 1 in percent: how often the right answer comes first.")
    task = pills([("mean of all tasks", MEAN), *((title, name) for name, title in settings["tasks"].items())], "task")
    shown = gr.HTML(scores_page(settings, MEAN), elem_id="scores")
    task.change(functools.partial(scores_page, settings), task, shown, api_visibility="private")


def pills(choices: Sequence[tuple[str, str]], name: str) -> gr.Radio:
    """Buttons of which one is chosen, the first at the start."""
    return gr.Radio(choices, value=choices[0][1], label=name, show_label=False, container=False, elem_id=name)


def header(settings: dict[str, Any], searcher: Searcher) -> str:
    """Title and origin as HTML."""
    links = " · ".join(
        f'<a href="https://huggingface.co/{kind}{html.escape(place["id"])}" target="_blank">{label}</a>'
        for label, kind, place in (("model", "", settings["model"]), ("images", "datasets/", settings["benchmark"]))
        if place["on_hub"]
    )
    facts = f"{len(searcher.gallery):,} images · {searcher.vectors.shape[1]} values each"
    count = len(settings["languages"])
    return (
        f"<h1>{html.escape(settings['title'])}</h1>"
        f"<p>Search images in {count} languages: one model turns every text and every image into a vector.</p>"
        f'<p class="facts">{facts}{" · " + links if links else ""}</p>'
    )


def language_label(language: dict[str, Any]) -> str:
    """What stands on a language's button; controls are marked."""
    return language["native_name"] + ("" if language["taught"] else " (control)")


def main(folder: Path, port: int | None = None, open_browser: bool = False) -> None:
    """Serves the page until it is interrupted.

    Args:
        folder: The folder with `space.json` and `gallery.json`.
        port: Port of the server; by default the first free one from 7860 on.
        open_browser: Whether the page is opened.
    """
    settings = json.loads((folder / "space.json").read_text(encoding="utf-8"))
    page = build(settings, load_searcher(folder, settings))
    page.queue(max_size=32)
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"]  # loaded from nowhere
    page.launch(
        server_port=port,
        inbrowser=open_browser,
        max_file_size=MAX_BYTES,
        theme=gr.themes.Soft(primary_hue="indigo", font=fonts, font_mono=["ui-monospace", "monospace"]),
        css_paths=Path(__file__).with_suffix(".css"),
        ssr_mode=False,
        footer_links=["gradio"],
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(Path(__file__).parent)
