"""Turns what a user calls an image into a safe RGB `PIL.Image`."""

from __future__ import annotations

import io
import os
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from PIL import ExifTags, Image, ImageOps

MAX_PIXELS = 100_000_000
MAX_DOWNLOAD_BYTES = 50_000_000
DOWNLOAD_SECONDS = 20.0
MAX_PATH = 4096
# The usual openers also follow a redirection to ftp.
_WEB_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
)


class ImageError(ValueError):
    """An image could not be read; the message names it and says why."""


def load_image(
    source: Any,
    *,
    allow_urls: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_aspect_ratio: float | None = None,
    name: str = "image",
) -> Image.Image:
    """Loads one image as RGB, upright (EXIF), on white where it was transparent.

    Args:
        source: A `PIL.Image`, a path, encoded bytes, a NumPy array `(H, W)`, `(H, W, 3)` or `(H, W, 4)` of `uint8`, a
            dictionary as `datasets.Image` stores it (`{"bytes", "path"}`), or, if allowed, an http(s) URL.
        allow_urls: URLs are fetched only when this is set.
        max_pixels: Larger images are refused before they are decoded.
        max_aspect_ratio: Images whose longest side is more than this many times the shortest are refused.
        name: How an error calls this image.

    Returns:
        A new RGB image; animated images give their first frame.

    Raises:
        ImageError: The image is missing, corrupt, too large, of an unknown kind, or a URL that may not be fetched.
    """
    with _named(name, max_pixels):
        opened = _open(source, allow_urls)
        _check_size(opened.size, max_pixels, max_aspect_ratio)
        return _to_rgb(opened)


def measure_image(
    source: Any,
    *,
    allow_urls: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_aspect_ratio: float | None = None,
    name: str = "image",
) -> tuple[int, int] | None:
    """Width and height that `load_image` would give, without decoding; `None` for a URL, which is not fetched for it.

    Raises:
        ImageError: As for `load_image`, as far as the beginning of a file tells.
    """
    with _named(name, max_pixels):
        if is_url(source) and allow_urls:
            return None
        opened = _open(source, allow_urls)
        try:
            _check_size(opened.size, max_pixels, max_aspect_ratio)
            # Other formats keep the orientation behind their pixels, which would have to be read first.
            turned = opened.format in {"JPEG", "MPO"} and opened.getexif().get(ExifTags.Base.Orientation, 1) > 4
        finally:
            if opened is not source:
                opened.close()
    return (opened.height, opened.width) if turned else opened.size


@contextmanager
def _named(name: str, max_pixels: int) -> Iterator[None]:
    """Turns whatever opening and decoding raise into a `ImageError` about the named image."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: it has far more than {max_pixels:,} pixels; make it smaller.") from error
    except MemoryError:
        raise
    except Exception as error:  # the decoders of broken files raise whatever they come across
        raise ImageError(f"{name}: cannot be read as an image ({shorten(str(error))}).") from error


def shorten(text: str, most: int = 200) -> str:
    """The text, or its beginning if it is too long for an error."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def is_url(source: Any) -> bool:
    """Whether a string is an http(s) address."""
    return isinstance(source, str) and urlparse(source).scheme in {"http", "https"}


def _open(source: Any, allow_urls: bool) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    if isinstance(source, dict) and (source.get("bytes") is not None or source.get("path")):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, bytes):
        return _open_file(io.BytesIO(source))
    if is_url(source):
        return _open_file(io.BytesIO(_download(source, allow_urls)))
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if len(os.fspath(source)) > MAX_PATH or not path.is_file():
            raise ImageError(f"there is no file {shorten(os.fspath(source))!r}.")
        return _open_file(path)
    raise ImageError(f"a {type(source).__name__} is not an image; pass a PIL image, a path, bytes or an array.")


def _open_file(file: Path | io.BytesIO) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_size applies the project's own limit
        return Image.open(file)


def _check_size(size: tuple[int, int], max_pixels: int, max_aspect_ratio: float | None) -> None:
    if size[0] * size[1] > max_pixels:
        raise ImageError(f"{size[0]} x {size[1]} pixels are more than the limit of {max_pixels:,}; make it smaller.")
    if 0 in size:
        raise ImageError("it has no pixels.")
    if max_aspect_ratio is not None and max(size) > max_aspect_ratio * min(size):
        raise ImageError(
            f"{size[0]} x {size[1]} pixels are longer than {max_aspect_ratio:g} to 1, too much here; crop it."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _scale_to_8_bit(image)
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """Deep greys to 8 bits: 16 bits are divided by 257, where PIL's own conversion would clip them to white.

    Mode `I;16` is 16 bits deep however dark it is. `I` and `F` do not tell their depth, their values do.
    """
    values = np.asarray(image, dtype=np.float64)
    top = 1.0 if image.mode == "F" and values.max() <= 1.0 else 255.0
    if image.mode.startswith("I") and (image.mode != "I" or values.max() > top):
        top = 65535.0
    if values.min() < 0 or values.max() > top or not np.isfinite(values).all():
        raise ImageError(f"greys from {values.min():g} to {values.max():g} in mode {image.mode}; scale them to 0..255.")
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def _download(url: str, allowed: bool) -> bytes:
    if not allowed:
        raise ImageError(
            f"{shorten(url)!r} is a URL and URLs are not fetched unless allow_urls=True (an argument of the processor)."
        )
    opener = urllib.request.OpenerDirector()
    for handler in _WEB_HANDLERS:
        opener.add_handler(handler())
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    content = bytearray()
    with opener.open(url, timeout=DOWNLOAD_SECONDS) as response:
        while chunk := response.read1(1 << 16):
            content += chunk
            if len(content) > MAX_DOWNLOAD_BYTES:
                raise ImageError(f"{shorten(url)!r} holds more than {MAX_DOWNLOAD_BYTES:,} bytes.")
            if time.monotonic() > deadline:
                raise ImageError(f"{shorten(url)!r} took more than {DOWNLOAD_SECONDS:g} seconds.")
    return bytes(content)
