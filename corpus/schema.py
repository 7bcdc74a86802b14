"""The row form of a parallel corpus: one image and/or English text, and its translations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.columns import ALIGNMENT, ID, IMAGE, LANG, PARALLEL_COLUMNS, SOURCE, TEXT, TEXT_EN, TRANSLATIONS
from xvlm2vec.common.texts import is_blank

if TYPE_CHECKING:
    from datasets import Features


def parallel_features(optional: Iterable[str] = ()) -> Features:
    """The `datasets.Features` of a parallel corpus.

    Columns: `id` (string), `image` (image, may be null), `text_en` (string), `translations` (list of {`lang`,
    `text`}), `source` (string: where the row comes from, such as a data set's name).

    Args:
        optional: Further fields of a translation: `alignment` (string, may be null), pairs of word numbers of the
            English text and the translation, `"0-0 1-2"`.
    """
    from datasets import Features, Image, List, Value

    translation = {name: Value("string") for name in dict.fromkeys((LANG, TEXT, *optional))}
    return Features(
        {
            ID: Value("string"),
            IMAGE: Image(),
            TEXT_EN: Value("string"),
            TRANSLATIONS: List(translation),
            SOURCE: Value("string"),
        }
    )


def translation_fields(features: Features) -> tuple[str, ...]:
    """The fields that the translations of a stored corpus have, optional ones included."""
    items: Any = features[TRANSLATIONS]
    return tuple(items[0] if isinstance(items, list) else items.feature)


def validate_parallel_rows(rows: Iterable[Mapping[str, Any]]) -> int:
    """Checks rows of a parallel corpus, a `datasets.Dataset` or any iterable of mappings.

    Returns:
        The number of rows.

    Raises:
        ValueError: on the first fault, naming the row (counted from 0) and the column.
    """
    seen: dict[str, int] = {}
    count = 0
    for number, row in enumerate(rows):
        for column in PARALLEL_COLUMNS:
            if column not in row:
                needed = ", ".join(PARALLEL_COLUMNS)
                raise _fault(number, column, f"missing; the columns are {needed}, not {', '.join(row)}")
        _check_text(number, "id", row["id"])
        if row["id"] in seen:
            raise _fault(number, "id", f"{row['id']!r} is already the id of row {seen[row['id']]}; ids must be unique")
        seen[row["id"]] = number
        _check_text(number, "text_en", row["text_en"])
        _check_text(number, "source", row["source"])
        _check_image(number, row["image"])
        _check_translations(number, row["translations"])
        count = number + 1
    return count


def _fault(number: int, column: str, what: str) -> ValueError:
    return ValueError(f"Parallel corpus, row {number}, column '{column}': {what}")


def _check_text(number: int, column: str, text: Any) -> None:
    if not isinstance(text, str):
        raise _fault(number, column, f"expected a string, found {type(text).__name__}")
    if is_blank(text):
        raise _fault(number, column, "the text is empty")


def _check_image(number: int, image: Any) -> None:
    from PIL import Image

    encoded = isinstance(image, Mapping) and (image.get("bytes") is not None or image.get("path") is not None)
    if image is not None and not encoded and not isinstance(image, Image.Image):
        expected = "an image, a mapping with 'bytes' or 'path', or null"
        raise _fault(number, "image", f"expected {expected}, found {image!r:.80}")


def _check_translations(number: int, translations: Any) -> None:
    if not isinstance(translations, list | tuple):
        raise _fault(number, "translations", f"expected a list of {{lang, text}}, found {type(translations).__name__}")
    languages: set[str] = set()
    for place, translation in enumerate(translations):
        if not isinstance(translation, Mapping) or not {"lang", "text"} <= set(translation):
            problem = f"entry {place} must have the keys 'lang' and 'text': {translation!r:.80}"
            raise _fault(number, "translations", problem)
        _check_text(number, f"translations[{place}].lang", translation["lang"])
        _check_text(number, f"translations[{place}].text", translation["text"])
        if not isinstance(translation.get(ALIGNMENT), str | None):
            raise _fault(number, f"translations[{place}].alignment", "expected a string or null")
        if translation["lang"] in languages:
            raise _fault(number, "translations", f"the language {translation['lang']!r} occurs twice")
        languages.add(translation["lang"])
