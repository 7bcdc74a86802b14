"""XTD10: a caption in each of 11 languages for 1,000 images of COCO 2014, as its files or in one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import LANG, TEXT
from xvlm2vec.common.files import files_below
from xvlm2vec.corpus.rows import ENGLISH

from .parallel_lines import read_parallel
from .records import Entries, ReadOptions, Record

_CODES = {"jp": "ja", "kr": "ko", "cn": "zh"}
_START, _NAMES, _JSON = "test_1kcaptions_", "test_image_names.txt", "xtd.json"


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """The authors' folder (`XTD10/`, `MIC/`, `STAIR/`), or `xtd.json` as Babel-ImageNet has it.

    Raises:
        FileNotFoundError: It is neither.
        ValueError: The JSON file is damaged.
    """
    for path in inputs:
        file = path if path.is_file() else next(iter(files_below(path, f"**/{_JSON}")), None)
        if file is not None:
            yield from _of_json(file)
            continue
        files = {_code(text.stem.removeprefix(_START)): text for text in files_below(path, f"**/{_START}*.txt")}
        names = files_below(path, f"**/{_NAMES}")
        if ENGLISH not in files or not names:
            raise FileNotFoundError(f"{path} has no {_START}en.txt with {_NAMES}, and no {_JSON}")
        yield from read_parallel(files, names[0], "XTD10")


def _code(name: str) -> str:
    return _CODES.get(name, name)


def _of_json(path: Path) -> Entries:
    try:
        content = json.loads(path.read_bytes())
        names, captions = content["images"], {_code(code): texts for code, texts in content["captions"].items()}
        english = captions.pop(ENGLISH)
        if {len(names), len(english)} != {len(texts) for texts in (english, *captions.values())}:
            raise ValueError("not all languages have a caption for each image")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or not in the layout of Babel-ImageNet's {_JSON} ({error})") from error
    for number, (name, texts) in enumerate(zip(names, english, strict=True)):
        yield _record(path, number, name, texts, captions)


def _record(
    path: Path, number: int, name: str, english: Sequence[str], captions: Mapping[str, Sequence[Sequence[str]]]
) -> Record:
    items: list[dict[str, Any]] = [{LANG: code, TEXT: (texts[number] or [""])[0]} for code, texts in captions.items()]
    place = {"file": str(path), "row": number}
    return Record((english or [""])[0], place, "XTD10", items, name, f"XTD10/{number}")
