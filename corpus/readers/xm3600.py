"""XM3600 (Crossmodal-3600): 3,600 images with captions that people wrote in 36 languages, apart from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import LANG, TEXT
from xvlm2vec.corpus.rows import ENGLISH, RowFault

from .fields import parse_line
from .lines import read_lines
from .records import Entries, LeftOut, ReadOptions, Record, files_of, rejected

_KEY, _LOCALE, _CAPTION = "image/key", "image/locale", "caption"
UNPAIRED = "captions beyond the number of English ones"


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """A record for each English caption; the first ones of all languages go together, then the second ones."""
    for path in files_of(inputs, ("captions.jsonl",), "captions.jsonl"):
        for number, line in read_lines(path):
            place = {"file": str(path), "line": number}
            try:
                if isinstance(line, RowFault):
                    raise line
                entries = list(_entries(parse_line(line), place))
            except RowFault as fault:
                entries = [rejected(fault, place)]
            yield from entries


def _entries(values: Mapping[str, Any], place: Mapping[str, Any]) -> Entries:
    key = values.get(_KEY)
    if not isinstance(key, str):
        raise RowFault("missing field", f"no field {_KEY!r}; there are {', '.join(values) or 'none'}"[:300])
    captions = {code: _captions(entry, code) for code, entry in values.items() if code not in (_KEY, _LOCALE)}
    english = captions.pop(ENGLISH, [])
    if not english:
        raise RowFault("empty English text", f"the image {key!r} has no English caption")
    for number, text in enumerate(english):
        items = [{LANG: code, TEXT: texts[number]} for code, texts in captions.items() if number < len(texts)]
        yield Record(text, place, "XM3600", items, f"{key}.jpg", f"XM3600/{key}/{number}")
    beyond = sum(max(0, len(texts) - len(english)) for texts in captions.values())
    if beyond:
        yield LeftOut(UNPAIRED, beyond)


def _captions(entry: Any, code: str) -> list[str]:
    texts = entry.get(_CAPTION) if isinstance(entry, Mapping) else None
    if not isinstance(texts, list):
        raise RowFault("no list", f"the entry {code!r} has no list {_CAPTION!r}: {entry!r:.80}")
    return texts
