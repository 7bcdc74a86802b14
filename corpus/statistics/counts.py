"""Languages, tokens, images and coverage of a parallel corpus, counted in one pass."""

from __future__ import annotations

import io
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm.auto import tqdm

from xvlm2vec.common.image_marks import strip_marks
from xvlm2vec.common.languages import normal_or_same
from xvlm2vec.common.store import content_digest
from xvlm2vec.common.texts import is_blank, with_text
from xvlm2vec.corpus.rows import ENGLISH

if TYPE_CHECKING:
    from datasets import Dataset

CountTokens = Callable[[Sequence[str]], npt.NDArray[np.int64]]
"""Gives the number of tokens of each text."""
_ROWS = 512
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass
class LanguageCounts:
    """Texts in one language, beside the English texts of the same rows.

    Attributes:
        texts: Texts.
        with_image: Those in rows with an image.
        characters: Their characters.
        tokens: Their tokens, if there is a tokenizer.
        english_characters: Characters of the English texts beside them.
        english_tokens: Tokens of these.
        lengths: How many texts have how many characters.
    """

    texts: int = 0
    with_image: int = 0
    characters: int = 0
    tokens: int = 0
    english_characters: int = 0
    english_tokens: int = 0
    lengths: Counter[int] = field(default_factory=Counter)

    def as_json(self, rows: int, has_tokens: bool) -> dict[str, Any]:
        """The counts, and what they mean against English."""
        found = {
            "texts": self.texts,
            "coverage": round(self.texts / rows, 4),
            "with_image": self.with_image,
            "characters": self.characters,
            "characters_per_text": dict(zip(("p5", "median", "p95"), _quantiles(self.lengths), strict=True)),
            "characters_against_english": _ratio(self.characters, self.english_characters),
        }
        if has_tokens:
            per_character = _ratio(self.tokens, self.characters)
            english = _ratio(self.english_tokens, self.english_characters)
            found |= {
                "tokens": self.tokens,
                "tokens_per_character": per_character,
                "tokens_per_character_against_english": _ratio(per_character, english),
                "tokens_against_english": _ratio(self.tokens, self.english_tokens),
            }
        return found


@dataclass
class CorpusStats:
    """What is in a corpus.

    Attributes:
        rows: Rows.
        texts: Distinct English texts.
        with_image: Rows with an image.
        images: Distinct images, by their files' bytes.
        unreadable: Images that are no images.
        formats: Images by file format.
        sides: Images by their longer side in pixels.
        sources: Rows by source.
        languages: Counts of each language, English first.
        per_row: Rows by their number of translations.
        tokenizer: Name of the tokenizer; None if none was chosen.
    """

    rows: int = 0
    texts: int = 0
    with_image: int = 0
    images: int = 0
    unreadable: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    sides: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    languages: dict[str, LanguageCounts] = field(default_factory=dict)
    per_row: Counter[int] = field(default_factory=Counter)
    tokenizer: str | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it, languages with most texts first."""
        ordered = sorted(self.languages.items(), key=lambda item: (item[0] != ENGLISH, -item[1].texts, item[0]))
        sides = dict(zip(("p5", "median", "p95"), _quantiles(self.sides), strict=True))
        return {
            "rows": self.rows,
            "english_texts": self.texts,
            "images": {
                "rows": self.with_image,
                "distinct": self.images,
                "unreadable": self.unreadable,
                "formats": dict(self.formats.most_common()),
                "longer_side": sides,
            },
            "sources": dict(self.sources.most_common()),
            "translations_per_row": {str(count): rows for count, rows in sorted(self.per_row.items())},
            "tokenizer": self.tokenizer,
            "languages": {
                code: counts.as_json(self.rows, self.tokenizer is not None) for code, counts in ordered
            },
        }  # fmt: skip


def corpus_stats(
    corpus: Dataset, count_tokens: CountTokens | None = None, tokenizer: str | None = None, progress: bool = False
) -> CorpusStats:
    """Counts what is in a corpus; images are looked at, not decoded.

    Memory grows by 16 bytes a row, which tell distinct texts and images.

    Args:
        corpus: A parallel corpus.
        count_tokens: Counts the tokens of texts.
        tokenizer: What they are counted by, for the report.
        progress: Whether to show a bar.
    """
    from datasets import Image as ImageFeature

    counter = _Counter(count_tokens, CorpusStats(tokenizer=tokenizer if count_tokens is not None else None))
    encoded = corpus.cast_column("image", ImageFeature(decode=False))
    with tqdm(total=len(corpus), unit="row", disable=not progress) as bar:
        for columns in encoded.iter(batch_size=_ROWS):
            counter.add(columns)
            bar.update(len(columns["id"]))
    return counter.finished()


class _Counter:
    """Counts batches of rows.

    Args:
        count_tokens: Counts the tokens of texts.
        stats: Gets the counts.
    """

    def __init__(self, count_tokens: CountTokens | None, stats: CorpusStats) -> None:
        self.count_tokens, self.stats = count_tokens, stats
        self._texts, self._images = array("q"), array("q")

    def add(self, columns: Mapping[str, list[Any]]) -> None:
        """Counts rows, given by column."""
        texts: dict[str, list[tuple[str, str, bool]]] = {}
        for english, image, items, source in zip(
            columns["text_en"], columns["image"], columns["translations"], columns["source"], strict=True
        ):
            plain, has_image = strip_marks(english) or "", image is not None
            self.stats.rows += 1
            self.stats.sources[source or ""] += 1
            self._texts.append(hash(plain))
            if has_image:
                self._image(image)
            translations = with_text(items)
            self.stats.per_row[len(translations)] += 1
            pairs = [(item["lang"], item["text"]) for item in translations]
            for code, text in [*([] if is_blank(plain) else [(ENGLISH, plain)]), *pairs]:
                texts.setdefault(normal_or_same(code), []).append((plain, strip_marks(text) or "", has_image))
        for code, rows in texts.items():
            self._language(self.stats.languages.setdefault(code, LanguageCounts()), rows)

    def finished(self) -> CorpusStats:
        """The counts, when all rows are in."""
        self.stats.texts = len(np.unique(np.array(self._texts, np.int64)))
        self.stats.images = len(np.unique(np.array(self._images, np.int64)))
        return self.stats

    def _language(self, counts: LanguageCounts, rows: list[tuple[str, str, bool]]) -> None:
        english, texts, images = (list(column) for column in zip(*rows, strict=True))
        counts.texts += len(texts)
        counts.with_image += sum(images)
        counts.characters += sum(map(len, texts))
        counts.english_characters += sum(map(len, english))
        counts.lengths.update(map(len, texts))
        if self.count_tokens is not None:
            counts.tokens += int(self.count_tokens(texts).sum())
            counts.english_tokens += int(self.count_tokens(english).sum())

    def _image(self, image: Mapping[str, Any]) -> None:
        self.stats.with_image += 1
        try:
            self._images.append(int.from_bytes(content_digest(image)[:8], "little", signed=True))
            file = image["path"] if image.get("bytes") is None else io.BytesIO(image["bytes"])
            with Image.open(file) as opened:
                self.stats.formats[opened.format or "unknown"] += 1
                self.stats.sides[max(opened.size)] += 1
        except (OSError, ValueError, Image.DecompressionBombError):
            self.stats.unreadable += 1


def _ratio(value: float | None, of: float | None) -> float | None:
    return round(value / of, 4) if of and value is not None else None


def _quantiles(lengths: Counter[int]) -> list[int | None]:
    """The values below which 5%, half and 95% of all lie."""
    if not lengths:
        return [None] * len(_QUANTILES)
    values = np.array(sorted(lengths))
    below = np.cumsum([lengths[value] for value in values.tolist()])
    places = np.searchsorted(below, np.array(_QUANTILES) * below[-1])
    return [int(value) for value in values[places]]
