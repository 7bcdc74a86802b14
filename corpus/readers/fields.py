"""Records from named fields: the lines of JSONL files, the rows of tables, the JSON beside an image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xvlm2vec.common.columns import ALIGNMENT, ID, LANG, SOURCE, TEXT, TRANSLATIONS
from xvlm2vec.corpus.rows import ENGLISH, RowFault

from .records import ImageBytes, LineFields, Record

TRANSLATION = "translation"
"""The column of data sets of translations on the Hub: `{"en": ..., "de": ...}`."""


def parse_line(line: bytes) -> Mapping[str, Any]:
    """The fields of a line.

    Raises:
        RowFault: It is not UTF-8, or no JSON object.
    """
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowFault("not UTF-8", f"not UTF-8 ({error.reason})") from error
    except (ValueError, RecursionError) as error:
        raise RowFault("no JSON", f"no JSON ({error})") from error
    if not isinstance(values, Mapping):
        raise RowFault("no JSON", f"no JSON object: {values!r:.80}")
    return values


def record_of(
    values: Mapping[str, Any],
    fields: LineFields,
    place: Mapping[str, Any],
    source: str,
    image: ImageBytes | None = None,
) -> Record:
    """A record with a list `translations`, one translation of its own, several in `translation`, or none.

    Args:
        values: Its fields.
        fields: Their names.
        place: Where it stands.
        source: Name of the data set, if the record does not say it.
        image: Its image, where that is no field.

    Raises:
        RowFault: A field is missing or is not what it should be.
    """
    texts = values.get(TRANSLATION)
    several = isinstance(texts, Mapping) and ENGLISH in texts
    english = texts[ENGLISH] if isinstance(texts, Mapping) and several else _field(values, fields.english)
    items = _several(texts, ENGLISH) if several else _items(values, fields)
    own_id = several or TRANSLATIONS in values or not items
    return Record(
        _text(english, fields.english),
        place,
        str(values.get(SOURCE) or source),
        items,
        image or _image(values.get(fields.image), place),
        str(values[ID]) if own_id and values.get(ID) is not None else "",
    )


def _items(values: Mapping[str, Any], fields: LineFields) -> Sequence[Mapping[str, Any]]:
    if values.get(TRANSLATIONS) is not None:
        return _several(values[TRANSLATIONS])
    if fields.text not in values and fields.language not in values:
        return []
    item = {LANG: _field(values, fields.language), TEXT: _field(values, fields.text)}
    if values.get(ALIGNMENT):
        item[ALIGNMENT] = _text(values[ALIGNMENT], ALIGNMENT)
    return [item]


def _several(texts: Any, but: str = "") -> Sequence[Mapping[str, Any]]:
    """A list of `{lang, text}`, or texts by their languages."""
    if isinstance(texts, Mapping):
        return [{LANG: code, TEXT: text} for code, text in texts.items() if code != but]
    if not isinstance(texts, Sequence) or isinstance(texts, str):
        raise RowFault("no list", f"{TRANSLATIONS!r} holds {texts!r:.80}, which is no list of {{lang, text}}")
    for item in texts:
        if not isinstance(item, Mapping) or not {LANG, TEXT} <= item.keys():
            raise RowFault("no list", f"an entry of {TRANSLATIONS!r} needs the fields 'lang' and 'text': {item!r:.80}")
    return [{name: item[name] for name in (LANG, TEXT, ALIGNMENT) if item.get(name) or name != ALIGNMENT}
            for item in texts]  # fmt: skip


def _field(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise RowFault("missing field", f"no field {name!r}; there are {', '.join(map(str, values)) or 'none'}"[:300])
    return values[name]


def _text(text: Any, name: str) -> str:
    if not isinstance(text, str):
        raise RowFault("no text", f"{name!r} holds {text!r:.80}, which is no text")
    return text


def _image(image: Any, place: Mapping[str, Any]) -> str | ImageBytes | None:
    """An image's path, or the image itself as tables hold it."""
    if isinstance(image, Mapping):
        if image.get("bytes") is not None:
            return ImageBytes(str(image.get("path") or _name(place)), image["bytes"])
        image = image.get("path")
    if isinstance(image, bytes):
        return ImageBytes(_name(place), image)
    if image is None or image == "":
        return None
    if not isinstance(image, str):
        raise RowFault("no image", f"{image!r:.80} is neither an image nor the path of one")
    return image


def _name(place: Mapping[str, Any]) -> str:
    return f"row {place.get('row', place.get('line'))}"
