"""The self-contained HTML report: scores of one model or two, examples with images, a search box, how it was made.

:class:`ReportData` holds everything that the page shows. The page is one file: images are data URIs, style and script
are inline, and a content security policy forbids it to load anything. ``report.html`` is its Jinja2 template.
"""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any, cast

from markupsafe import Markup
from PIL import Image

from xvlm2vec.common.files import write_text
from xvlm2vec.common.result_keys import METRICS

from .colors import change_colors, heat_colors
from .data import Answer, Model, ReportData, Role, check_report
from .failing import PARTS
from .summary import cards, duration, headline, mean_tasks, parity
from .templates import environment, signed

_GROUPS: tuple[tuple[Role, str], ...] = (("english", "English"), ("taught", ""), ("control", "Control: never taught"))
_WORDS = {"teacher": ("before", "Before"), "student": ("after", "After")}
_SIGNATURES = {b"\x89PNG": "image/png", b"RIFF": "image/webp", b"\xff\xd8": "image/jpeg", b"GIF8": "image/gif"}
_WIDE = 8  # columns from which two heat maps stand below each other
_LIKELY = 0.05
_SMALL, _COLORS = 128, 128  # pixels of a side, and colors that nobody tells from all of them at that size


def render_report(data: ReportData) -> str:
    """Renders the page.

    Args:
        data: What to show.

    Returns:
        The HTML document.

    Raises:
        ValueError: If the data contradicts itself: a missing score, an unknown image, language or task, an image of
            unknown format; the message names it.
    """
    check_report(data)
    env = environment(duration=duration, heat=heat_colors, change=change_colors, signed=signed, data_uri=_data_uri)
    env.tests["likely"] = lambda p_value: p_value < _LIKELY
    env.tests["web"] = lambda url: bool(url) and url.startswith(("https://", "http://"))
    return env.get_template("report.html").render(
        data=data,
        groups=[
            (title or data.taught_word.capitalize(), [lang for lang in data.languages if lang.role == role])
            for role, title in _GROUPS
        ],
        models=_models(data),
        wide=len(data.tasks) > _WIDE,
        mean_tasks=mean_tasks(data),
        headline=headline(data),
        cards=cards(data),
        parity=parity(data),
        payload=_payload(data),
        metric=METRICS[data.failing.metric] if data.failing else "",
        parts=PARTS,
    )


def write_report(data: ReportData, path: str | os.PathLike[str]) -> Path:
    """Renders the page into a file; a page that was there stays whole until the new one is complete.

    Args:
        data: What to show.
        path: The file to write; its folder is created.

    Returns:
        The path.

    Raises:
        ValueError: As :func:`render_report`.
        OSError: If the file cannot be written.
    """
    html = render_report(data)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, html)
    return target


def _models(data: ReportData) -> list[tuple[Model, str, str, str]]:
    """Key, style, word and name of each model."""
    if data.scored_models == ["student"]:
        return [("student", "after", "Score", data.models[-1])]
    return [(model, *_WORDS[model], name) for model, name in zip(data.scored_models, data.models, strict=True)]


def _data_uri(image: bytes | Image.Image, key: str) -> str:
    """Encodes an image, known by its key, for an ``img`` element."""
    if isinstance(image, Image.Image):
        image = _webp(image)
    for signature, mime in _SIGNATURES.items():
        if image.startswith(signature):
            return f"data:{mime};base64,{base64.b64encode(image).decode('ascii')}"
    raise ValueError(f"image {key!r} is neither PNG, WebP, JPEG nor GIF; give a PIL image or encoded bytes")


def _webp(image: Image.Image) -> bytes:
    """Small images, which are shown large, in few colors and no further loss; large ones with some loss."""
    buffer = io.BytesIO()
    if "A" in image.getbands():
        image.convert("RGBA").save(buffer, "WEBP", lossless=True, method=4)
    elif max(image.size) > _SMALL:
        image.convert("RGB").save(buffer, "WEBP", quality=90)
    else:
        few = image.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
        few.convert("RGB").save(buffer, "WEBP", lossless=True, method=6)
    return buffer.getvalue()


def _payload(data: ReportData) -> Markup:
    """The script's data as JSON that is safe inside a ``script`` element; images are referred to by their index."""
    index = {key: number for number, key in enumerate(data.images)}

    def image(key: str | None, where: str) -> int:
        if key is None:
            return -1
        if key not in index:
            raise ValueError(f"{where} refers to image {key!r}, which is not among the {len(index)} images")
        return index[key]

    def candidate(item: Answer, where: str) -> list[Any]:
        return [item.text, image(item.image, where), int(item.correct)]

    content = {
        "sides": [[style, word] for _, style, word, _ in _models(data)],
        "images": [_data_uri(value, key) for key, value in data.images.items()],
        "captions": [data.captions.get(key, "") for key in data.images],
        "languages": [[lang.code, lang.name, lang.native_name, int(lang.rtl), lang.role] for lang in data.languages],
        "tasks": list(data.tasks.items()),
        "search": [
            [entry.lang, entry.text, image(entry.gold, f"search[{i}]")]
            + [[image(key, f"search[{i}]") for key in getattr(entry, model)] for model in data.scored_models]
            for i, entry in enumerate(data.search)
        ],
        "examples": [
            {
                "task": example.task,
                "lang": example.lang,
                "text": example.query_text,
                "image": image(example.query_image, f"examples[{i}]"),
                "gold": candidate(example.gold, f"examples[{i}]"),
                "found": [
                    [candidate(item, f"examples[{i}]") for item in getattr(example, model)]
                    for model in data.scored_models
                ],
                "ranks": [getattr(example, f"{model}_rank") for model in data.scored_models],
            }
            for i, example in enumerate(data.examples)
        ],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return Markup(text.translate(str.maketrans(cast(dict[str, str | int | None], escapes))))
