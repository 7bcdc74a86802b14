"""Turns what a user calls an image into a safe RGB `PIL.Image`."""

from __future__ import annotations

import base64
import binascii
import io
import os
import threading
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlparse
from urllib.request import url2pathname

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

MAX_PIXELS = 100_000_000
MAX_DOWNLOAD_BYTES = 50_000_000
DOWNLOAD_SECONDS = 20.0
MAX_PATH = 4096
LEAST_BASE64 = 64
"""Letters of the smallest images; a shorter string is a path."""
# PIL's images that are read when first needed, and the filters of warnings, belong to all threads.
_READING = threading.Lock()
# What the values of EXIF's orientation mean.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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
    """Loads one image as RGB, upright (EXIF, where that can be read), on white where it was transparent.

    Args:
        source: A `PIL.Image`, a path, encoded bytes, a NumPy array `(H, W)`, `(H, W, 3)` or `(H, W, 4)` of `uint8`, a
            dictionary as `datasets.Image` stores it (`{"bytes", "path"}`), a string with a data URI, base64, or the
            file URL of a file of this machine, or, if allowed, an http(s) URL.
        allow_urls: URLs are fetched only when this is set; data URIs and file URLs hold nothing to fetch.
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
        with _READING if opened is source else nullcontext():
            opened.load()  # first of all: a TIFF is then turned already
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
            turned = opened.format in {"JPEG", "MPO"} and orientation(opened) > 4
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
    except UnidentifiedImageError as error:  # its own words hold the address of the bytes in memory
        raise ImageError(f"{name}: cannot be read as an image (it is of no format that Pillow knows).") from error
    except Exception as error:  # the decoders of broken files raise whatever they come across
        raise ImageError(f"{name}: cannot be read as an image ({shorten(str(error))}).") from error


def shorten(text: str, most: int = 200) -> str:
    """The text, or its beginning if it is too long for an error."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def is_url(source: Any) -> bool:
    """Whether a string is an http(s) address."""
    return isinstance(source, str) and urlparse(source).scheme in {"http", "https"}


def orientation(image: Image.Image) -> int:
    """How an image is turned, 1 to 8 as EXIF counts; 1 (not at all) where its metadata are missing or damaged."""
    try:
        with _READING:
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # damaged metadata raise whatever their reader comes across, and the pixels may be sound
        return 1
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def decode_base64(text: str) -> bytes:
    """The bytes of an image that was written as base64; line breaks, and `=` that are missing, do not matter.

    Raises:
        ImageError: It is not base64, or longer than `MAX_DOWNLOAD_BYTES`.
    """
    _check_bytes(len(text) * 3 // 4)
    letters = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{shorten(text, 40)!r} is not base64 ({error}).") from error


def _open(source: Any, allow_urls: bool) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    if isinstance(source, dict) and (source.get("bytes") is not None or source.get("path")):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, bytes | bytearray | memoryview):
        return _open_file(io.BytesIO(source))
    if isinstance(source, str):
        return _open_string(source, allow_urls)
    if isinstance(source, os.PathLike):
        return _open_path(os.fspath(source))
    keys = f" (its keys: {', '.join(map(str, source))})" if isinstance(source, dict) else ""
    raise ImageError(f"a {type(source).__name__} is not an image{keys}; pass a PIL image, a path, bytes or an array.")


def _open_string(source: str, allow_urls: bool) -> Image.Image:
    """What a string stands for: what an address of any kind leads to, a file, or base64."""
    scheme = source[:5].lower()
    if scheme == "data:":
        return _open_file(io.BytesIO(_data_of(source)))
    if is_url(source):
        return _open_file(io.BytesIO(_download(source, allow_urls)))
    if scheme == "file:":
        return _open_path(_path_of(source))
    return _open_path(source)


def _open_path(path: str) -> Image.Image:
    if len(path) <= MAX_PATH and os.path.isfile(path):
        return _open_file(Path(path))
    if len(path) >= LEAST_BASE64:  # what transformers takes, too
        try:
            return _open_file(io.BytesIO(decode_base64(path)))
        except (ImageError, OSError):
            pass
    raise ImageError(f"there is no file {shorten(path)!r}.")


def _data_of(uri: str) -> bytes:
    """The bytes in a data URI (RFC 2397).

    Raises:
        ImageError: It has no data, or too much.
    """
    _check_bytes(len(uri) * 3 // 4)
    head, comma, data = uri.partition(",")
    if not comma:
        raise ImageError(f"{shorten(uri, 40)!r} is a data URI without data.")
    if head.lower().endswith(";base64"):
        return decode_base64(unquote(data) if "%" in data else data)
    return unquote_to_bytes(data)


def _path_of(url: str) -> str:
    """The path in the file URL of a file of this machine (RFC 8089).

    Raises:
        ImageError: It names another machine or no whole path.
    """
    parts = urlparse(url)
    if parts.netloc.lower() not in {"", "localhost"}:
        raise ImageError(f"{shorten(url)!r} names a file of {parts.netloc!r}; only files of this machine are read.")
    if not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ImageError(f"{shorten(url)!r} is no whole path; write file:///folder/name, `?` as %3F and `#` as %23.")
    return url2pathname(parts.path)


def _check_bytes(count: int) -> None:
    if count > MAX_DOWNLOAD_BYTES:
        raise ImageError(f"the string holds more than {MAX_DOWNLOAD_BYTES:,} bytes.")


def _open_file(file: Path | io.BytesIO) -> Image.Image:
    with _READING, warnings.catch_warnings():
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
    turn = _UPRIGHT.get(orientation(image))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith(("I", "F")):
        image = _scale_to_8_bit(image)
    if image.has_transparency_data:
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
