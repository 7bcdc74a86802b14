"""GCompris: words with an image each in 45 languages, and images with a describing sentence in some 36."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .captions import Captioned
from .qt_files import Resources, read_translations

logger = logging.getLogger(__name__)

PACKAGE, VERSION = "gcompris-qt-data", "3.1-2"
COUNTS = {"words": 116, "sentences": 82}
"""The sets, and how many images each has in this version."""
_BELOW = ("usr/share/gcompris-qt", "gcompris-qt")
_WORDS = "/gcompris/src/activities/lang/resource/"
_CONTENT = re.compile(re.escape(_WORDS) + r"content-(.+)\.json")
_EXPLORED = ("explore_farm_animals", "explore_monuments", "explore_world_animals", "explore_world_music")
_BOARD = re.compile(r".*/(board[0-9]+)\.qml")
_SENTENCE = re.compile(
    r'"text"\s*:\s*qsTr\("((?:[^"\\]|\\.)*)"\)(?:(?!"text"\s*:).)*?"image2"\s*:\s*"qrc:([^"]+\.webp)"', re.DOTALL
)


def gcompris_folder(folder: Path) -> Path:
    """The folder of GCompris in an unpacked package.

    Raises:
        FileNotFoundError: It has none.
    """
    found = next((folder / name for name in _BELOW if (folder / name).is_dir()), folder)
    if not (found / "rcc" / "lang.rcc").is_file():
        raise FileNotFoundError(
            f"there is no file {found / 'rcc' / 'lang.rcc'}; pass the folder `gcompris-qt` of Debian's package "
            f"{PACKAGE} (`xvlm2vec data gcompris --output DIR` gets there)"
        )
    return found


def read_set(dataset: str, folder: Path) -> tuple[list[Captioned], Mapping[str, Any]]:
    """The captioned images of a set, and its images by their names; logs if there are not as many as are known.

    Args:
        dataset: `words` (a word for each image) or `sentences` (what the boards that explore animals, monuments and
            music say).
        folder: The one that `gcompris_folder` finds.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or is not of the form that is known.
    """
    items, images = _words(folder) if dataset == "words" else _sentences(folder)
    if len(items) != COUNTS[dataset]:
        logger.warning("%s: %d %s; version %s of %s has %d. Compare scores of one version only", folder, len(items),
                       dataset, VERSION, PACKAGE, COUNTS[dataset])  # fmt: skip
    return items, images


def is_translated(language: str, text: str, english: str) -> bool:
    """Whether a word is one of its language: *arm* is Dutch, too, but nothing of British English."""
    return text != english or language.split("-")[0] != "en"


def _words(folder: Path) -> tuple[list[Captioned], Mapping[str, Any]]:
    resources = Resources(folder / "rcc" / "lang.rcc")
    languages = {match[1]: _json(resources, name, dict) for name in resources if (match := _CONTENT.fullmatch(name))}
    if "en" not in languages:
        raise ValueError(f"{resources.path} has no {_WORDS}content-en.json; is it of another version than {VERSION}?")
    items = []
    for word in _word_list(resources):
        key = f"{Path(word['voice']).name.partition('.')[0]}.ogg"
        english = languages["en"].get(key)
        image = f"{_WORDS}words_sample/{word['image']}"
        if english and image in resources:
            others = {name: texts.get(key) or "" for name, texts in languages.items() if name != "en"}
            items.append(Captioned(image, english, others))
        else:
            logger.warning("%s: the word %r has no English text or no image, left out", resources.path, key)
    return items, MemberImages({image: resources for image in resources if image.endswith(".webp")})


def _word_list(resources: Resources) -> list[dict[str, str]]:
    """The words that have images in the package itself."""
    chapters = _json(resources, f"{_WORDS}words_sample.json", list)
    try:
        return [word for chapter in chapters for lesson in chapter["content"] for word in lesson["content"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{resources.path}: {_WORDS}words_sample.json is not of the form that is known") from error


def _json(resources: Resources, name: str, kind: type) -> Any:
    try:
        content = json.loads(resources[name])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{resources.path}: {name} is missing or no JSON ({error})") from error
    if not isinstance(content, kind):
        raise ValueError(f"{resources.path}: {name} holds a {type(content).__name__}, not a {kind.__name__}")
    return content


def _sentences(folder: Path) -> tuple[list[Captioned], Mapping[str, Any]]:
    translations = {
        path.stem.partition("_")[2]: read_translations(path)
        for path in sorted((folder / "translations").glob("gcompris_*.qm"))
    }
    if not translations:
        raise FileNotFoundError(f"there is no file {folder / 'translations' / 'gcompris_*.qm'}")
    items, images = [], {}
    for name in _EXPLORED:
        resources = Resources(folder / "rcc" / f"{name}.rcc")
        for board, text, image in _boards(resources):
            others = {language: texts.get((board, text), "") for language, texts in translations.items()}
            if image in resources:
                items.append(Captioned(image, text, others))
                images[image] = resources
            else:
                logger.warning("%s: there is no image %s, left out", resources.path, image)
    return items, MemberImages(images)


def _boards(resources: Resources) -> Iterator[tuple[str, str, str]]:
    """Each board's name, and the English sentences on it with their images."""
    for name in sorted(resources):
        if match := _BOARD.fullmatch(name):
            for text, image in _SENTENCE.findall(resources[name].decode("utf-8")):
                yield match[1], re.sub(r"\\(.)", r"\1", text), image


class MemberImages(Mapping[str, Any]):
    """Images that lie in resource files, still encoded, by their paths in them."""

    def __init__(self, files: Mapping[str, Resources]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> dict[str, Any]:
        return {"bytes": self._files[name][name], "path": f"{self._files[name].path}{name}"}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
