"""Whatever people call an image becomes the right RGB image, or an error that says why not."""

from __future__ import annotations

import base64
import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from xvlm2vec.modeling import images as images
from xvlm2vec.modeling.images import ImageError, load_image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def colours(image: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(int(value) for value in pixel) for pixel in np.asarray(image).reshape(-1, 3)]


def noise(width: int = 32, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_truncated_files_are_refused(kind: str, share: float, tmp_path: Path) -> None:
    content = encoded(noise(), kind)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match="row 3, image 0: cannot be read as an image"):
        load_image(path, name="row 3, image 0")


def test_truncated_file_opened_by_the_caller() -> None:
    content = encoded(noise())
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(Image.open(io.BytesIO(content[: len(content) // 2])))


def png_header(width: int, height: int) -> bytes:
    """A PNG whose pixels compress to nothing: enough of it to open, too much to decode."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_huge_file_is_refused_before_it_is_decoded() -> None:
    started = time.monotonic()
    with pytest.raises(ImageError, match="row 0: it has far more than 100,000,000 pixels"):
        load_image(png_header(30_000, 30_000), name="row 0")
    with pytest.raises(ImageError, match=r"12000 x 12000 pixels are more than the limit of 100,000,000"):
        load_image(png_header(12_000, 12_000))
    assert time.monotonic() - started < 2


def test_limit_is_the_callers() -> None:
    assert load_image(Image.new("L", (50, 20)), max_pixels=1000).size == (50, 20)
    with pytest.raises(ImageError, match="50 x 20 pixels are more than the limit of 999"):
        load_image(Image.new("L", (50, 20)), max_pixels=999)


def test_aspect_ratio() -> None:
    assert load_image(Image.new("L", (200, 1)), max_aspect_ratio=200).size == (200, 1)
    with pytest.raises(ImageError, match="201 x 1 pixels are longer than 200 to 1"):
        load_image(Image.new("L", (201, 1)), max_aspect_ratio=200)


MODES = {
    "1": (Image.new("1", (2, 2), 1), (255, 255, 255)),
    "L": (Image.new("L", (2, 2), 90), (90, 90, 90)),
    "RGB": (Image.new("RGB", (2, 2), (1, 2, 3)), (1, 2, 3)),
    "CMYK": (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
    "YCbCr": (Image.new("RGB", (2, 2), (255, 0, 0)).convert("YCbCr"), (254, 0, 0)),
    "HSV": (Image.new("HSV", (2, 2), (0, 255, 255)), (255, 0, 0)),
    "P": (Image.new("RGB", (2, 2), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE), (10, 200, 30)),
    "LA opaque": (Image.new("LA", (2, 2), (100, 255)), (100, 100, 100)),
    "LA clear": (Image.new("LA", (2, 2), (100, 0)), (255, 255, 255)),
    "RGBA half": (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), (127, 127, 127)),
    "PA clear": (Image.new("RGBA", (2, 2), (9, 9, 9, 0)).convert("PA"), (255, 255, 255)),
    "I;16 middle": (Image.fromarray(np.full((2, 2), 32896, dtype=np.uint16)), (128, 128, 128)),
    "I;16 dark": (Image.fromarray(np.full((2, 2), 200, dtype=np.uint16)), (1, 1, 1)),
    "I deep": (Image.fromarray(np.array([[0, 65535], [65535, 65535]], dtype=np.int32)), None),
    "I shallow": (Image.new("I", (2, 2), 77), (77, 77, 77)),
    "F of one": (Image.new("F", (2, 2), 0.5), (128, 128, 128)),
    "F of 255": (Image.new("F", (2, 2), 200.0), (200, 200, 200)),
}


@pytest.mark.parametrize(("image", "colour"), MODES.values(), ids=MODES.keys())
def test_modes(image: Image.Image, colour: tuple[int, int, int] | None) -> None:
    loaded = load_image(image)
    assert loaded.mode == "RGB"
    assert loaded.size == image.size
    assert colours(loaded) == ([(0, 0, 0)] + [(255, 255, 255)] * 3 if colour is None else [colour] * 4)


def test_transparency_of_palettes_and_colour_keys() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert colours(load_image(encoded(palette, transparency=1))) == [(255, 0, 0), (255, 255, 255)]
    keyed = Image.new("RGB", (1, 1), (5, 6, 7))
    assert colours(load_image(encoded(keyed, transparency=(5, 6, 7)))) == [(255, 255, 255)]


def test_a_palette_in_memory_that_holds_its_own_transparency() -> None:
    """`quantize` writes the alpha of each colour into the palette, and not where files name the transparent one."""
    seen = Image.new("RGBA", (2, 1), (0, 90, 0, 0))
    seen.putpixel((0, 0), (200, 0, 0, 255))
    assert colours(load_image(seen.quantize(2))) == [(200, 0, 0), (255, 255, 255)]


def test_sixteen_bit_png(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 25700, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert colours(load_image(tmp_path / "deep.png")) == [(0, 0, 0), (100, 100, 100), (255, 255, 255)]


@pytest.mark.parametrize("value", [-1, 70_000])
def test_greys_of_unknown_depth_are_refused(value: int) -> None:
    with pytest.raises(ImageError, match=r"scale them to 0\.\.255"):
        load_image(Image.new("I", (2, 2), value))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert set(colours(load_image(content))) == {(255, 0, 0)}


def test_exif_rotation() -> None:
    image = noise(8, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    loaded = load_image(encoded(image, exif=exif))
    assert loaded.size == (4, 8)
    assert np.array_equal(np.asarray(loaded), np.rot90(np.asarray(image), 3))


def test_sources_agree(tmp_path: Path) -> None:
    image = noise()
    path = tmp_path / "image.png"
    image.save(path)
    sources = [path, str(path), path.read_bytes(), np.asarray(image), {"bytes": path.read_bytes(), "path": None}]
    sources += [{"bytes": None, "path": str(path)}, bytearray(path.read_bytes()), memoryview(path.read_bytes())]
    sources += [np.asarray(image)[:, ::-1][:, ::-1], Image.open(path)]
    for source in sources:
        assert np.array_equal(np.asarray(load_image(source)), np.asarray(image))


def test_the_callers_image_is_left_alone() -> None:
    image = Image.new("LA", (2, 2), (100, 0))
    load_image(image)
    assert image.mode == "LA"
    rgb = noise()
    assert load_image(rgb) is not rgb


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "a NoneType is not an image"),
        (7, "a int is not an image"),
        ("no/such/file.png", "there is no file 'no/such/file.png'"),
        ("x" * 200_000, r"there is no file 'x+\.\.\. \(200,000 characters\)'"),
        ("ftp://localhost/image.png", "there is no file"),
        (b"not an image", "cannot be read as an image"),
        (np.zeros((3, 20, 20), dtype=np.uint8), "cannot be read as an image"),
        (np.zeros((20, 20, 3)), "cannot be read as an image"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "image: "),
        (np.zeros((20, 20, 5), dtype=np.uint8), "cannot be read as an image"),
        (np.full((20, 20), np.nan, dtype=np.float32), "greys from nan to nan"),
        (torch.zeros((3, 20, 20)), "a Tensor is not an image"),
        (io.BytesIO(b""), "a BytesIO is not an image"),
        ({"url": "a.png"}, r"a dict is not an image \(its keys: url\)"),
        ({"path": None, "bytes": None}, "a dict is not an image"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_no_image(source: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source)
    assert len(str(caught.value)) < 600


class Pages(BaseHTTPRequestHandler):
    """A loopback site with an image, a page without end, a slow page, and redirections."""

    content = encoded(noise())

    def do_GET(self) -> None:
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/x" if self.path == "/away-ftp" else "/image.png")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        try:
            if self.path == "/image.png":
                self.wfile.write(self.content)
            for _ in range(50 if self.path == "/slow" else 0):
                self.wfile.write(b"x")
                time.sleep(0.05)
            for _ in range(100 if self.path == "/large" else 0):
                self.wfile.write(b"x" * 1000)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_are_not_fetched_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", fetch)
    with pytest.raises(ImageError, match="URLs are not fetched unless allow_urls=True"):
        load_image("http://127.0.0.1:1/image.png")


@pytest.mark.parametrize("page", ["/image.png", "/away"])
def test_urls_are_fetched_when_asked(site: str, page: str) -> None:
    loaded = load_image(site + page, allow_urls=True)
    assert np.array_equal(np.asarray(loaded), np.asarray(noise()))


def test_size_limit_of_downloads(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_DOWNLOAD_BYTES", 5000)
    with pytest.raises(ImageError, match="holds more than 5,000 bytes"):
        load_image(site + "/large", allow_urls=True)


def test_time_limit_of_downloads(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "DOWNLOAD_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"took more than 0\.3 seconds"):
        load_image(site + "/slow", allow_urls=True)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(("page", "reason"), [("/missing", "404"), ("/away-ftp", "cannot be read as an image")])
def test_failed_downloads(site: str, page: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load_image(site + page, allow_urls=True)


PNG = encoded(noise())
BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "source",
    [
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/PNG;charset=utf-8;BASE64,{BASE64}",
        f"data:;base64,{BASE64}",
        "data:image/png;base64," + "\n".join(BASE64[start : start + 76] for start in range(0, len(BASE64), 76)),
        f"data:image/png;base64,{quote(BASE64, safe='')}",
        f"data:image/png;base64,{BASE64.rstrip('=')}",
        f"data:image/png,{quote(PNG, safe='')}",
        BASE64,
    ],
    ids=["plain", "capitals", "no type", "lines", "percent", "no padding", "no base64", "bare"],
)
def test_data_uris_and_base64(source: str) -> None:
    assert np.array_equal(np.asarray(load_image(source)), np.asarray(noise()))
    assert images.measure_image(source) == noise().size


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("data:image/png;base64", "a data URI without data"),
        ("data:image/png;base64,", "cannot be read as an image"),
        ("data:image/png;base64,äöü", "is not base64"),
        (f"data:image/png;base64,{BASE64[:300]}", "cannot be read as an image"),
        ("data:text/plain,hello", "cannot be read as an image"),
        (f"data:image/png;base64,{base64.b64encode(png_header(30_000, 30_000)).decode()}", "far more than 100,000,000"),
        (f"data:image/png;base64,{base64.b64encode(png_header(12_000, 12_000)).decode()}", "12000 x 12000 pixels are"),
        (base64.b64encode(png_header(12_000, 12_000)).decode(), "12000 x 12000 pixels are"),
    ],
)
def test_broken_data_uris(source: str, message: str) -> None:
    with pytest.raises(ImageError, match=f"row 2: .*{message}") as caught:
        load_image(source, name="row 2")
    assert len(str(caught.value)) < 400


def test_size_limit_of_data_uris(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_DOWNLOAD_BYTES", 1000)
    for source in (f"data:image/png;base64,{BASE64}", f"data:image/png,{quote(PNG, safe='')}"):
        with pytest.raises(ImageError, match="the string holds more than 1,000 bytes"):
            load_image(source)


@pytest.mark.parametrize("host", ["", "localhost"])
def test_file_urls(tmp_path: Path, host: str) -> None:
    path = tmp_path / "a picture, 100% ä#1.png"
    path.write_bytes(PNG)
    url = path.as_uri().replace("file://", f"file://{host}", 1)
    assert np.array_equal(np.asarray(load_image(url)), np.asarray(noise()))
    assert images.measure_image(url) == noise().size


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file://elsewhere/a.png", "names a file of 'elsewhere'"),
        ("file:a.png", "is no whole path"),
        ("file:///a.png?b", "is no whole path"),
        ("file:///no/such%20file.png", "there is no file '/no/such file.png'"),
        ("file:///a%00b.png", "there is no file"),
    ],
)
def test_file_urls_of_other_places(source: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(source)


def exif(*entries: tuple[int, int, int, int | bytes]) -> bytes:
    """EXIF with entries of tag, type, count, and value or offset."""
    content = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in entries:
        content += struct.pack("<HHI", tag, kind, count)
        content += value if isinstance(value, bytes) else struct.pack("<I", value)
    return content + struct.pack("<I", 0)


TURNED = (0x112, 3, 1, 6)
DAMAGED = {
    "cut header": b"II*\0",
    "no EXIF": b"no EXIF at all",
    "cut entry": exif(TURNED)[:16],
    "offset outside": exif((0x112, 3, 400, 9999)),
    "directory outside": b"II*\0" + struct.pack("<I", 0xFFFFFFF0),
    "giant directory": b"II*\0" + struct.pack("<IH", 8, 65535) + b"\1" * 40,
    "orientation in letters": exif((0x112, 2, 2, b"x\0\0\0")),
    "orientation of a broken type": exif((0x112, 99, 1, 6)),
    "orientation as a fraction": exif((0x112, 5, 1, 0)),
    "orientation not a number": exif((0x112, 11, 1, struct.pack("<f", float("nan")))),
    "giant count": exif((0x112, 3, 0xFFFFFFFF, 6)),
    "unknown orientation": exif((0x112, 3, 1, 9)),
}
BESIDE = {
    "resolution in letters": exif((0x11A, 2, 4, b"abc\0"), TURNED),
    "directory of the camera outside": exif(TURNED, (0x8769, 4, 1, 0xFFFFFFF0)),
    "directory that holds itself": exif(TURNED, (0x8825, 4, 1, 8)),
}


def with_exif(kind: str, content: bytes) -> bytes:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    return encoded(noise(), kind, exif=content if kind == "PNG" else b"Exif\0\0" + content, **options)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
class TestDamagedExif:
    @pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
    def test_counts_as_none(self, kind: str, content: bytes) -> None:
        damaged = with_exif(kind, content)
        assert np.array_equal(np.asarray(load_image(damaged)), np.asarray(load_image(with_exif(kind, b""))))
        assert np.array_equal(np.asarray(load_image(Image.open(io.BytesIO(damaged)))), np.asarray(load_image(damaged)))
        assert images.measure_image(damaged) == noise().size

    @pytest.mark.parametrize("content", BESIDE.values(), ids=BESIDE.keys())
    def test_beside_an_orientation_that_can_be_read(self, kind: str, content: bytes) -> None:
        upright = np.asarray(load_image(with_exif(kind, b"")))
        assert np.array_equal(np.asarray(load_image(with_exif(kind, content))), np.rot90(upright, -1))


@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation(value: int) -> None:
    """As Pillow itself turns images."""
    for kind in ("PNG", "TIFF"):
        turned = Image.Exif()
        turned[0x112] = value
        content = encoded(noise(), kind, exif=turned)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
        assert np.array_equal(np.asarray(load_image(content)), expected)


def test_orientation_in_xmp() -> None:
    content = encoded(noise(), "JPEG", xmp=b'<rdf:Description tiff:Orientation="6"/>')
    assert load_image(content).size == images.measure_image(content) == (24, 32)


def tiff(*more: tuple[int, int, int, int | bytes]) -> bytes:
    """A TIFF of noise with more tags."""
    pixels = np.asarray(noise()).tobytes()
    tags = [(256, 3, 1, 32), (257, 3, 1, 24), (258, 3, 3, -1), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, -2)]
    tags = sorted([*tags, (277, 3, 1, 3), (278, 3, 1, 24), (279, 4, 1, len(pixels)), *more])
    end = len(exif(*((0, 0, 0, 0) for _ in tags)))
    places = {-1: end, -2: end + 6}
    return exif(*((*tag[:3], places.get(tag[3], tag[3])) for tag in tags)) + struct.pack("<HHH", 8, 8, 8) + pixels


@pytest.mark.parametrize(
    ("tags", "turned"),
    [
        ([], False),
        ([TURNED], True),
        ([(0x112, 2, 2, b"x\0\0\0")], False),
        ([(0x112, 99, 1, 6)], False),
        ([(0x112, 3, 1, 9)], False),
        ([TURNED, (0x8769, 4, 1, 0xFFFFFFF0)], True),
        ([TURNED, (0x8769, 2, 4, b"abc\0")], True),
        ([(0x8825, 4, 1, 8)], False),
    ],
)
def test_damaged_tags_of_a_tiff(tags: list[Any], turned: bool) -> None:
    loaded = np.asarray(load_image(tiff(*tags)))
    assert np.array_equal(loaded, np.rot90(np.asarray(noise()), -1) if turned else np.asarray(noise()))
