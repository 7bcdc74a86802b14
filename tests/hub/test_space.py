"""The files of a Space and its app, without a browser and in one."""

from __future__ import annotations

import ast
import asyncio
import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub import RepoCard
from PIL import Image, ImageDraw
from sentence_transformers import SentenceTransformer

sys.path.insert(0, str(Path(__file__).parents[1] / "adoption"))
from saved_forms import build_st

from xvlm2vec import XVLM2VecModel, cli
from xvlm2vec.commands.demo import find_release
from xvlm2vec.hub import space, space_app
from xvlm2vec.hub.dataset_export import BenchmarkCard, export_benchmark
from xvlm2vec.hub.space import Place, read_gallery, write_space
from xvlm2vec.hub.staging import ExportError
from xvlm2vec.modeling.images import load_image
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig

ROOT = Path(__file__).resolve().parents[2]


COLOURS = ("red", "blue", "green", "yellow", "black", "white")
WORDS = {
    "en": ("red", "blue", "green", "yellow", "black", "white"),
    "de": ("rot", "blau", "grün", "gelb", "schwarz", "weiß"),
    "ar": ("أحمر", "أزرق", "أخضر", "أصفر", "أسود", "أبيض"),
    "ja": ("赤", "青", "緑", "黄色", "黒", "白"),
}
SIDE = 32


def draw(first: str, second: str) -> Image.Image:
    """Two colours, one inside the other."""
    image = Image.new("RGB", (SIDE, SIDE), second)
    ImageDraw.Draw(image).ellipse((6, 6, 25, 25), fill=first)
    return image


def pairs() -> list[tuple[int, int]]:
    return [(one, other) for one in range(len(COLOURS)) for other in range(len(COLOURS)) if one != other]


def caption(code: str, one: int, other: int) -> str:
    return f"{WORDS[code][one]} / {WORDS[code][other]}"


def make_benchmark(folder: Path) -> Path:
    paths = [f"images/{number:02}.png" for number in range(len(pairs()))]
    features = Features({"path": Value("string"), "image": ImageFeature()})
    image_list = [draw(COLOURS[one], COLOURS[other]) for one, other in pairs()]
    images = Dataset.from_dict({"path": paths, "image": image_list}, features=features)

    def rows(code: str) -> Dataset:
        texts = [caption(code, one, other) for one, other in pairs()]
        return Dataset.from_dict({"text": texts, "images": [[path, paths[0]] for path in paths]})

    card = BenchmarkCard("Two colours", license="apache-2.0")
    return export_benchmark({"t2i": DatasetDict({code: rows(code) for code in WORDS})}, images, folder, card)


def make_release(exported: Path, folder: Path) -> Path:
    shutil.copytree(exported, folder / "model")
    make_benchmark(folder / "benchmark")
    return folder


@pytest.fixture(scope="module")
def release(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(exported, tmp_path_factory.mktemp("space") / "release")


@pytest.fixture(scope="module")
def written(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, benchmark = find_release(str(release))
    return write_space(tmp_path_factory.mktemp("app") / "space", model, benchmark, title="Two <colours>")


@pytest.fixture(scope="module")
def settings(written: Path) -> dict:
    return json.loads((written / "space.json").read_text(encoding="utf-8"))


@pytest.fixture
def searcher(written: Path, settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> space_app.Searcher:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return space_app.load_searcher(written, settings)


def test_an_embedder_of_sentence_transformers_is_searched_by_its_own_code(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clip = build_st("clip", tmp_path / "clip")
    model, benchmark = find_release(str(clip), str(release / "benchmark"))
    folder = write_space(tmp_path / "space", model, benchmark, title="Two colours")
    app = space_app.load_searcher(folder, json.loads((folder / "space.json").read_text(encoding="utf-8")))
    own = SentenceTransformer(str(clip))
    vector = own.encode(["a red square"])[0]
    expected = app.vectors @ (vector / np.linalg.norm(vector))
    assert app.by_text("a red square", "en")[0][0] == int(expected.argmax())
    assert "sentence-transformers" in (folder / "requirements.txt").read_text(encoding="utf-8")
    assert not list(folder.glob("modeling_*"))


def test_a_space_is_what_demo_runs(written: Path) -> None:
    assert (written / "app.py").read_bytes() == Path(space_app.__file__).read_bytes()
    assert {path.name for path in written.iterdir()} == {
        "README.md", "app.css", "app.py", "export.json", "gallery.json", "requirements.txt", "space.json"
    }  # fmt: skip


def test_the_app_imports_only_what_a_space_installs() -> None:
    tree = ast.parse(Path(space_app.__file__).read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names)
    installed = {re.split("[<>=]", line)[0] for line in space.requirements().splitlines()} | {"gradio"}
    names = {"PIL": "pillow", "huggingface_hub": "huggingface-hub", "sentence_transformers": "sentence-transformers"}
    needed = {names.get(name, name) for name in tops}
    assert needed - installed == {"sentence-transformers"}
    stock = space.requirements(stock=True)  # only models without code of their own are run by it
    assert "sentence-transformers" in stock


def test_the_gallery_has_every_image_with_its_captions(release: Path) -> None:
    gallery = read_gallery(release / "benchmark")
    assert len(gallery) == len(pairs())
    for entry, (one, other) in zip(gallery, pairs(), strict=True):
        assert entry["captions"] == {code: caption(code, one, other) for code in WORDS}
        assert list(entry["captions"]) == list(WORDS)


def test_the_settings_name_languages_examples_and_scores(settings: dict, release: Path) -> None:
    assert [(item["code"], item["taught"]) for item in settings["languages"]] == [
        ("en", True), ("de", True), ("ar", False), ("ja", False)
    ]  # fmt: skip
    for code, texts in settings["examples"].items():
        assert len(texts) == space.EXAMPLES
        assert set(texts) <= {caption(code, *pair) for pair in pairs()}
    assert settings["scores"]["teacher"]["t2i"]["de"]["p_at_1"] == 0.31
    assert settings["tasks"] == {"t2i": "Text to image", "c": "Classification"}
    assert settings["model"] == {
        "id": str((release / "model").resolve()),
        "revision": None,
        "on_hub": False,
        "stock": False,
    }


def test_the_card_of_a_space_on_the_hub(release: Path, tmp_path: Path) -> None:
    model = Place(release / "model", "someone/tiny", "v1.0.0")
    benchmark = Place(release / "benchmark", "someone/tiny-benchmark")
    folder = write_space(tmp_path / "space", model, benchmark, title="Two colours", license="apache-2.0")
    data = RepoCard.load(folder / "README.md").data.to_dict()
    assert data["sdk"] == "gradio"
    assert data["app_file"] == "app.py"
    assert (data["models"], data["datasets"]) == (["someone/tiny"], ["someone/tiny-benchmark"])
    settings = json.loads((folder / "space.json").read_text(encoding="utf-8"))
    taught = [item for item in settings["languages"] if item["taught"]]
    assert len(taught) < len(settings["languages"]), "a control language is none that it may claim"
    assert data["short_description"] == f"Image search in {len(taught)} languages"
    assert settings["model"] == {"id": "someone/tiny", "revision": "v1.0.0", "on_hub": True, "stock": False}
    assert str(tmp_path.parent) not in "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())


def test_the_space_names_the_tested_version_of_gradio() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"gradio=={space.GRADIO}" in pins


def test_requirements_hold_the_tested_ranges() -> None:
    lines = space.requirements().splitlines()
    assert "pyarrow" in lines
    assert next(line for line in lines if line.startswith("transformers")).count("<") == 1


def test_images_without_captions_are_refused(tmp_path: Path, release: Path) -> None:
    with pytest.raises(ExportError, match=r"no images with captions.*t2i \(text, images\)"):
        write_space(tmp_path / "space", Place(release / "model"), Place(tmp_path), title="Nothing")
    assert list(tmp_path.iterdir()) == []


def test_damaged_scores_are_named(tmp_path: Path, release: Path) -> None:
    (tmp_path / "scores.json").write_text("[]")
    with pytest.raises(ExportError, match=r"scores\.json holds no scores"):
        write_space(tmp_path / "space", Place(tmp_path), Place(release / "benchmark"), title="x")


def test_a_folder_without_a_release_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no release: neither"):
        find_release(str(tmp_path))


def test_the_run_of_a_release_stands_for_it(release: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "release").symlink_to(release)
    model, benchmark = find_release(str(tmp_path / "run"))
    assert model.folder.samefile(release / "model")
    assert Path(benchmark.folder).samefile(release / "benchmark")


def test_searches_rank_by_the_models_own_vectors(searcher: space_app.Searcher, release: Path) -> None:
    model = XVLM2VecModel.from_pretrained(release / "model")
    images = [draw(COLOURS[one], COLOURS[other]) for one, other in pairs()]
    gallery = model.encode(text=[""] * len(images), images=images, instruction="document")
    scores = model.encode(text=["rot / blau"], instruction="query") @ gallery.T
    found = searcher.by_text("rot / blau", "de")
    assert [number for number, _ in found] == np.argsort(-scores[0], kind="stable")[: space_app.RESULTS].tolist()
    np.testing.assert_allclose([score for _, score in found], -np.sort(-scores[0])[: space_app.RESULTS], atol=1e-5)
    for number in (0, 17):
        assert searcher.by_image(images[number])[0] == (number, pytest.approx(1, abs=1e-5))


def test_the_language_button_says_which_adapter_speaks(searcher: space_app.Searcher, release: Path) -> None:
    model = XVLM2VecModel.from_pretrained(release / "model")
    add_activated(model, AdapterConfig(rank=2))
    model.language_adapters["default"].languages = ["de"]
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.3 * torch.randn(weight.shape)
    adapted = replace(searcher, model=model)
    assert adapted.by_text("red / blue", "en") == searcher.by_text("red / blue", "en")
    expected = adapted._nearest(model.encode(["rot / blau"], instruction="query", language="de"))
    assert adapted.by_text("rot / blau", "de") == expected != searcher.by_text("rot / blau", "de")
    assert adapted.by_text("rot / blau", "ja") == searcher.by_text("rot / blau", "ja"), "never taught: the base speaks"


def test_vectors_are_kept_until_the_model_or_an_image_changes(
    searcher: space_app.Searcher, written: Path, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is that of `searcher`: another start embeds nothing."""
    calls: list[int] = []
    embed = space_app.embed_gallery
    monkeypatch.setattr(space_app, "embed_gallery", lambda *given: calls.append(1) or embed(*given))
    again = space_app.load_searcher(written, settings)
    assert not calls
    np.testing.assert_array_equal(again.vectors, searcher.vectors)
    place = settings["model"]
    first = space_app.cache_file(place, searcher.images)
    assert space_app.cache_file(place, searcher.images[1:]) != first


def test_an_image_that_the_benchmark_lacks_is_named(settings: dict) -> None:
    with pytest.raises(ValueError, match=r"lacks the image images/none\.png"):
        space_app.read_images(settings["benchmark"], ["images/00.png", "images/none.png"])


@pytest.mark.parametrize(
    ("text", "message"), [("  ", "Type something"), ("x" * 301, "301 characters; 300"), ("a <image> b", "<image>")]
)
def test_texts_that_do_not_fit_are_refused(searcher: space_app.Searcher, text: str, message: str) -> None:
    with pytest.raises(gr.Error, match=message):
        space_app.answer_text(searcher, text, "en")


def test_captions_and_queries_stay_text(searcher: space_app.Searcher) -> None:
    hostile = '<script>alert("1")</script>'
    entry = {"path": "x", "captions": {"en": hostile}}
    marked = space_app.Searcher(searcher.model, [entry], searcher.images[:1], searcher.vectors[:1])
    page = space_app.results_page(marked, [(0, 0.5)], "en", hostile, 1.0)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4
    assert 'class="found right"' in page, "an image with this very caption is marked"


def test_uploads_are_limited_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (space_app.MAX_PIXELS // 1000 + 1, 1000)).save(large)
    assert large.stat().st_size < space_app.MAX_BYTES
    with pytest.raises(gr.Error, match="16001 x 1000 pixels; 16 million"):
        space_app.open_upload(str(large))
    fine = tmp_path / "fine.png"
    Image.new("RGB", (2000, 1000), "red").save(fine)
    assert space_app.open_upload(str(fine)).size == (1024, 512)
    monkeypatch.setattr(space_app, "MAX_BYTES", 100)
    with pytest.raises(gr.Error, match="too large"):
        space_app.open_upload(str(fine))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(gr.Error, match="no image that can be read"):
        space_app.open_upload(str(broken))
    rare = tmp_path / "rare.png"
    monkeypatch.setattr(space_app, "MAX_BYTES", 10_000)
    Image.new("RGB", (8, 8), "red").save(rare, "TIFF")
    with pytest.raises(gr.Error, match="no image that can be read"):
        space_app.open_upload(str(rare))
    with pytest.raises(gr.Error, match="as a file"):
        space_app.open_upload("https://example.org/image.png")


def test_an_upload_with_damaged_exif_is_taken_as_it_is(tmp_path: Path) -> None:
    for name, exif in (
        ("cut", b"Exif\0\0II*\0"),
        ("letters", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\1\2\0\2\0\0\0x\0\0\0\0\0\0\0"),
    ):
        for kind in ("JPEG", "WEBP"):
            file = tmp_path / f"{name}.{kind}"
            Image.new("RGB", (20, 10), "red").save(file, kind, exif=exif)
            assert space_app.open_upload(str(file)).size == (20, 10)
            assert space_app.data_uri(file.read_bytes()).startswith("data:image/")


def transparent(mode: str) -> Image.Image:
    """A red square on a ground that cannot be seen, and is black or green if transparency is dropped."""
    image = Image.new("RGBA", (SIDE, SIDE), (0, 90, 0, 0))
    ImageDraw.Draw(image).rectangle((8, 8, 23, 23), fill=(200, 0, 0, 255))
    return image.convert("LA") if mode == "LA" else image.quantize(16) if mode == "P" else image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_the_demo_reads_an_image_as_the_model_does(mode: str, tmp_path: Path, release: Path) -> None:
    """A gallery, an upload and a tile showed what is transparent on black, and the first two were embedded so."""
    file = tmp_path / "image.png"
    deep = Image.fromarray(np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE))
    (deep if mode == "I;16" else transparent(mode)).save(file)
    expected = load_image(file)
    np.testing.assert_array_equal(np.asarray(space_app.open_upload(str(file))), np.asarray(expected))
    model = XVLM2VecModel.from_pretrained(release / "model")
    found = space_app.embed_gallery(model, [file.read_bytes()])
    np.testing.assert_array_equal(found, space_app.embed_images(model, [expected]))


def test_a_large_transparent_image_is_shown_on_white() -> None:
    buffer = io.BytesIO()
    transparent("P").resize((1000, 1000)).save(buffer, "PNG")
    kind, _, content = space_app.data_uri(buffer.getvalue()).partition(",")
    assert kind == "data:image/webp;base64"
    assert min(Image.open(io.BytesIO(base64.b64decode(content))).getpixel((5, 5))) > 250


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.png", "https://example.org/x.png", "file:///etc/passwd"])
def test_an_address_in_the_place_of_an_image_is_refused(address: str) -> None:
    with gr.Blocks():
        upload = space_app.guarded(gr.Image())
    with pytest.raises(gr.Error, match="fetches no addresses"):
        asyncio.run(upload.async_move_resource_to_block_cache(address))


def test_scores_are_drawn_from_before_to_after(settings: dict) -> None:
    page = space_app.scores_page(settings, "t2i")
    assert re.findall(r'class="value">([^<]+)<', page) == ["92.0 → 91.0", "31.0 → 88.5"]
    assert 'class="dot before" style="left:31.0%"' in page
    assert re.findall(r'class="value">([^<]+)<', space_app.scores_page(settings, "c")) == ["100.0"]
    assert "95.5" in space_app.scores_page(settings, space_app.MEAN)
    assert "without scores" in space_app.scores_page({**settings, "scores": {}}, space_app.MEAN)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def served(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the Space, run as a Space runs it: `app.py` in a process where this package is not installed."""
    port, folder = free_port(), tmp_path_factory.mktemp("served")
    code = "import sys, runpy; sys.modules['xvlm2vec'] = None; runpy.run_path('app.py', run_name='__main__')"
    environment = {
        **os.environ,
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    with (folder / "log.txt").open("wb") as log:
        command = [sys.executable, "-c", code]
        server = subprocess.Popen(command, cwd=written, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: server.poll() is not None or answers(address), "the server", 600)
        assert server.poll() is None, (folder / "log.txt").read_text(errors="replace")
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)


def test_demo_writes_a_space_and_serves_it(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list = []

    def serve(folder: Path, port: int | None, open_browser: bool) -> None:
        given.extend([json.loads((folder / "space.json").read_text())["title"], port, open_browser])

    monkeypatch.setattr(space_app, "main", serve)
    assert cli.main(["demo", str(release), "--title", "Mine", "--port", "7999"]) == 0
    assert given == ["Mine", 7999, False]


def answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


def wait_for(condition: Callable, what: str, seconds: float = 180):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come in {seconds} s")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium or ChromeDriver is not installed")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    for flag in f"{flags} disable-component-update disable-sync window-size=1280,1000".split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    session = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield session
    session.quit()


class Page:
    """The page as a person sees it."""

    def __init__(self, browser, address: str) -> None:
        self.browser = browser
        browser.get(address)
        self.wait_for_answer("")

    def all(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements, read at once: an app replaces its elements while one looks."""
        script = "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText.trim())"
        return self.browser.execute_script(script, selector)

    def one(self, selector: str):
        return wait_for(lambda: self.all(selector), selector)[0]

    def choose(self, code: str) -> None:
        wait_for(lambda: self.all(f'#language input[value="{code}"]'), code)
        self.browser.execute_script(
            "arguments[0].closest('label').click()", self.all(f'#language input[value="{code}"]')[0]
        )
        first = caption(code, *pairs()[0])
        wait_for(lambda: first in self.texts("#examples button"), f"examples of {code}")

    def ask(self, text: str) -> list[int]:
        box = self.one("#text textarea, #text input")
        box.clear()
        box.send_keys(text + "\ue007")
        return self.wait_for_answer(text)

    def wait_for_answer(self, text: str) -> list[int]:
        """The numbers of the images that are shown for a text (any text if it is empty)."""
        script = """
            const answer = document.querySelector("#results .answer");
            const asked = answer && answer.querySelector("q");
            if (!answer || (arguments[0] !== null && (asked ? asked.textContent : "") !== arguments[0])) return null;
            return [...answer.querySelectorAll("figure")].map(one => [
                Number(one.dataset.image), one.querySelector("img").naturalWidth]);
        """
        found = wait_for(lambda: self.browser.execute_script(script, text or None), f"the answer to {text!r}")
        assert {width for _, width in found} == {SIDE}, "every thumbnail is an image"
        return [number for number, _ in found]


@pytest.fixture
def page(browser, served: str) -> Page:
    return Page(browser, served)


@pytest.mark.slow
@pytest.mark.browser
def test_queries_in_three_languages_show_what_the_model_ranks_first(page: Page, searcher, settings) -> None:
    for code, pair in (("en", (0, 1)), ("de", (2, 3)), ("ar", (1, 4))):
        page.choose(code)
        text = caption(code, *pair)
        assert page.ask(text) == [number for number, _ in searcher.by_text(text, code)]
        shown = page.one("#results figcaption")
        assert shown.text in {caption(code, *one) for one in pairs()}, "captions are in the chosen language"
        assert shown.get_attribute("lang") == code
    assert (
        page.browser.execute_script(
            "return getComputedStyle(document.querySelector('#text textarea, #text input')).unicodeBidi"
        )
        == "plaintext"
    ), "the text's own script gives its direction"


@pytest.mark.slow
@pytest.mark.browser
def test_an_example_is_searched_by_a_click(page: Page, searcher) -> None:
    page.choose("ja")
    button = page.all("#examples button")[2]
    text = button.text
    button.click()
    assert page.wait_for_answer(text) == [number for number, _ in searcher.by_text(text, "ja")]
    assert page.one("#text textarea, #text input").get_property("value") == text


@pytest.mark.slow
@pytest.mark.browser
def test_a_dropped_image_finds_itself(page: Page, searcher, tmp_path: Path) -> None:
    """The file is dropped on the page as a person would drop it."""
    number = 17
    one, other = pairs()[number]
    draw(COLOURS[one], COLOURS[other]).save(tmp_path / "dropped.png")
    page.one("#image input[type=file]").send_keys(str(tmp_path / "dropped.png"))
    wait_for(lambda: "your image" in " ".join(page.texts("#results .answer > p")), "the answer to the image")
    assert page.wait_for_answer("")[0] == number
    best = page.one("#results .found span").text
    assert float(best) == pytest.approx(1, abs=0.002)


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_loads_nothing_from_elsewhere(page: Page, served: str) -> None:
    page.ask(caption("en", 0, 1))
    events = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert sent
    strays = [address for address in sent if not address.startswith((served, "data:", "blob:", "chrome"))]
    assert not strays


@pytest.mark.slow
@pytest.mark.browser
def test_scores_before_and_after_are_a_tab(page: Page) -> None:
    next(tab for tab in page.all("button[role=tab]") if tab.text == "Before and after").click()
    values = wait_for(lambda: [text for text in page.texts("#scores .value") if text], "the scores")
    assert values == ["92.0 → 95.5", "31.0 → 88.5"]
    page.browser.execute_script("arguments[0].closest('label').click()", page.one('#task input[value="c"]'))
    wait_for(lambda: page.texts("#scores .value") == ["100.0"], "another task")


@pytest.mark.slow
def test_the_api_fetches_no_address(served: str) -> None:
    """A request by hand, with an address in the place of an upload, reaches no other server."""
    import http.server
    import threading

    asked: list[str] = []

    class Watcher(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Watcher) as watcher:
        threading.Thread(target=watcher.serve_forever, daemon=True).start()
        there = f"http://127.0.0.1:{watcher.server_port}/x.png"
        config = json.loads(urllib.request.urlopen(f"{served}/config", timeout=30).read())
        images = {part["id"] for part in config["components"] if part["type"] == "image"}
        number = next(one["id"] for one in config["dependencies"] if images & set(one["inputs"]))
        for place in ({"path": there}, {"path": "x", "url": there}, {"url": there}):
            upload = {**place, "meta": {"_type": "gradio.FileData"}}
            body = {"data": [upload, "en"], "fn_index": number, "session_hash": "watching"}
            request = urllib.request.Request(
                f"{served}/gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status == 200
            stream = urllib.request.urlopen(f"{served}/gradio_api/queue/data?session_hash=watching", timeout=60)
            text = stream.read().decode()
            assert '"success": false' in text or '"success":false' in text
        watcher.shutdown()
    assert not asked
