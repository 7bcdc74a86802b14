"""Images and texts of a benchmark are found in a corpus, whatever was done to them, and others are not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image, ImageFilter, ImageOps

from xvlm2vec.cli import main
from xvlm2vec.corpus.contamination.hashes import WHOLE, View, greys, hashes, shrunk
from xvlm2vec.corpus.contamination.images import match_images
from xvlm2vec.corpus.contamination.texts import TextIndex
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import load_parallel


def photo(seed: int) -> Image.Image:
    """Smooth patches of colour, as photographs have them."""
    draw = np.random.default_rng(seed)
    patches = Image.fromarray(draw.integers(0, 256, (9, 12, 3), np.uint8))
    return patches.resize((160, 120), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))


def jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def squares(images: list[Image.Image]) -> np.ndarray:
    return np.stack([greys(image) for image in images])


CHANGES = {
    "the same image": lambda image: image,
    "the same image in other pixels": lambda image: jpeg(image.resize((80, 60)), 20),
    "mirrored": lambda image: jpeg(ImageOps.mirror(image)),
    "a part of the benchmark's image": lambda image: jpeg(image.crop((10, 5, 150, 110))),
    "a part of the benchmark's image, mirrored": lambda image: ImageOps.mirror(image.crop((0, 0, 144, 108))),
}


@pytest.mark.parametrize("how", CHANGES)
def test_an_image_is_found_whatever_was_done_to_it(how: str) -> None:
    photos = [photo(seed) for seed in range(12)]
    changed = [photo(100), CHANGES[how](photos[5]), photo(101), Image.new("RGB", (20, 20), "white")]

    (match,) = match_images(squares(changed), squares([*photos, Image.new("RGB", (9, 9), "white")]))

    assert (match.first, match.second, match.how) == (1, 5, how)
    assert match.likeness >= 0.9


def test_a_benchmark_may_show_a_part_of_the_corpus() -> None:
    (match,) = match_images(squares([photo(1), photo(2)]), squares([photo(2).crop((8, 6, 150, 112))]))

    assert (match.first, match.how) == (1, "the benchmark has a part of it")


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = squares([photo(seed) for seed in range(20)])
    whole = match_images(photos, photos[::-1])
    monkeypatch.setattr("xvlm2vec.corpus.contamination.images._BLOCK", 30)

    assert [(match.first, match.second) for match in whole] == [(number, 19 - number) for number in range(20)]
    assert match_images(photos, photos[::-1]) == whole
    assert match_images(photos[:0], photos) == match_images(photos, photos[:0]) == []


def test_a_part_is_what_pillow_would_crop() -> None:
    square = greys(photo(3))
    part = shrunk(square[None], View(0.25, 0.5, 0.5, 0.5, mirrored=True))[0]
    cropped = ImageOps.mirror(Image.fromarray(square).crop((16, 32, 48, 64)))

    assert np.abs(part - np.asarray(cropped)).max() < 0.01
    assert hashes(np.full((1, 64, 64), 7, np.uint8), WHOLE)[0] == 0


TEXT = "A man in a blue shirt is standing on a ladder and cleaning a window."


def test_texts_are_compared_by_what_they_say() -> None:
    index = TextIndex([TEXT, "A dog.", "一个穿蓝色衬衫的男人站在梯子上擦窗户。"])

    def how(text: str) -> str | None:
        match = index.find(text)
        return match and match.how

    assert len(index) == 2  # the short one tells nothing
    assert how("a man in a BLUE shirt, is standing on a ladder and cleaning a window") == "the same text"
    assert how(TEXT.replace("cleaning", "washing")) is None
    assert how(TEXT.replace("a window", "the window")) == "nearly the same text"
    assert how("一个穿蓝色衬衫的男人站在梯子上擦窗户") == "the same text"
    assert how("A dog.") is None
    assert how("A woman in a red dress is sitting on a bench and reading a book.") is None


def stored(path: Path, rows: list[tuple[Image.Image | None, str, str]]) -> None:
    examples: list[dict[str, Any]] = [
        {"id": str(number), "image": image, "text_en": english, "source": "s",
         "translations": [{"lang": "de", "text": text}]}
        for number, (image, english, text) in enumerate(rows)
    ]  # fmt: skip
    Dataset.from_list(examples, features=parallel_features()).save_to_disk(str(path))


def test_the_command_reports_and_excludes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    photo(1).save(tmp_path / "images" / "deep" / "one.jpg")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    stored(tmp_path / "corpus", [(photo(1), "a", "b"), (photo(2), TEXT, "b"), (None, "a", "b"), (photo(3), "a", "b")])
    stored(tmp_path / "other", [(photo(3), "x", "y"), (None, "x", TEXT.upper())])
    command = ["corpus", "contamination", str(tmp_path / "corpus"), "--json", str(tmp_path / "found.json")]

    assert main([*command, "--folder", str(tmp_path / "images"), "--exclude", str(tmp_path / "clean")]) == 1
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [(match["row"], match["benchmark"]) for match in found["matches"]] == [(0, str(Path("deep") / "one.jpg"))]
    assert "broken.png" in found["unreadable"][0]
    kept = load_parallel(tmp_path / "clean" / "parallel")
    assert kept["id"] == ["1", "2", "3"]
    assert kept[0]["image"].size == (160, 120)

    assert main([*command, "--folder", str(tmp_path / "other")]) == 1
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [(match["row"], match["kind"], match["how"]) for match in found["matches"]] == [
        (1, "en", "the same text"), (3, "image", "the same image"),
    ]  # fmt: skip
    assert "2 rows have something in common" in capsys.readouterr().out
    assert main(command) == 1
    assert "either --benchmark or --folder" in capsys.readouterr().err


DISTINCT = (
    "A red bicycle leans against the old bakery wall", "Two children feed the ducks on a frozen pond",
    "The night train crosses an iron bridge", "A lighthouse keeper paints his door bright yellow",
    "Fresh bread cools beside an open window", "Seven goats climb into a crooked tree",
)  # fmt: skip


def test_a_benchmark_that_this_package_wrote(tmp_path: Path) -> None:
    lines = ["image,en,de"]
    for number in range(6):
        photo(number).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{DISTINCT[number]},{DISTINCT[number][::-1]}")
    (tmp_path / "texts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main(["corpus", "csv", str(tmp_path / "texts.csv"), "--images", str(tmp_path), "--output",
                 str(tmp_path / "data"), "--test-rows", "2"]) == 0  # fmt: skip
    stored(tmp_path / "corpus", [(jpeg(photo(number)), f"t{number}", "x") for number in range(6)])
    command = ["corpus", "contamination", "--benchmark", "folder", "--data", str(tmp_path / "data" / "benchmark")]

    assert main([*command, str(tmp_path / "data" / "parallel")]) == 0  # held out
    assert main([*command, str(tmp_path / "corpus"), "--json", str(tmp_path / "found.json")]) == 1
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (found["contaminated"], found["benchmark_images"]) == (2, 2)
    assert found["benchmark_texts"] == 4
