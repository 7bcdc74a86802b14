"""Mixes corpora: by concept, by language, by source, to a size. What is drawn is the same for the same seed."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from xvlm2vec.common.columns import ALIGNMENT, ID, TRANSLATIONS
from xvlm2vec.common.languages import normal_or_same
from xvlm2vec.common.texts import is_blank

from .concepts import TAIL, Matcher, keep_probability, threshold

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS = 1_000
_NONE = "(none)"
"""Stands for the language of a row without a translation."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MixConfig:
    """How corpora are mixed. Nothing is ever taken twice: what there is most of is cut.

    Args:
        balance: Whether texts are balanced by concept, in each language.
        concepts: English words and phrases; without them each word that carries meaning is a concept.
        per_concept: Texts of a language that one concept may have; by default what leaves `tail` below it.
        tail: Share of a language's matches that belong to concepts below its threshold.
        language_temperature: Languages get translations in proportion to `n ** (1 / T)`: 1 leaves them as they are,
            and the higher, the more even; the language that would have to grow most is kept whole.
        source_temperature: The same for the rows of sources.
        language_cap: Most translations into one language.
        source_cap: Most rows of one source.
        rows: Most rows in all.
        seed: Decides what is drawn.

    Raises:
        ValueError: A number is out of its range.
    """

    balance: bool = False
    concepts: frozenset[str] | None = None
    per_concept: int | None = None
    tail: float = TAIL
    language_temperature: float = 1.0
    source_temperature: float = 1.0
    language_cap: int | None = None
    source_cap: int | None = None
    rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.language_temperature, self.source_temperature) < 1:
            raise ValueError("a temperature must be at least 1: nothing is taken twice.")
        if not 0 < self.tail < 1:
            raise ValueError(f"the share of the tail must be between 0 and 1, not {self.tail}.")

    def as_json(self) -> dict[str, Any]:
        """The settings; of concepts their number."""
        return asdict(self) | {"concepts": None if self.concepts is None else len(self.concepts)}


@dataclass
class MixReport:
    """What a mix keeps.

    Attributes:
        rows: Rows of all corpora.
        kept: Rows of the mix.
        sources: Rows by source, before and after.
        languages: Translations by language, before and after.
        thresholds: Texts that one concept may have, by language.
        most_cut: The concepts that were cut most: texts before and after.
    """

    rows: int = 0
    kept: int = 0
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    languages: dict[str, tuple[int, int]] = field(default_factory=dict)
    thresholds: dict[str, int] = field(default_factory=dict)
    most_cut: dict[str, tuple[int, int]] = field(default_factory=dict)


class Mix:
    """A plan of which rows and translations stay; reads the texts of the corpora once or twice.

    Memory grows by some 12 bytes a row and 4 bytes a translation. Images are not read before `examples`.

    Args:
        corpora: Parallel corpora by name. If there are several, ids get the name of their corpus in front.
        config: How they are mixed.
        progress: Whether to show a bar.
    """

    def __init__(self, corpora: Mapping[str, Dataset], config: MixConfig, progress: bool = False) -> None:
        self.corpora, self.config, self._progress = dict(corpora), config, progress
        self._draw = np.random.default_rng(config.seed)
        self._languages: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._matcher = Matcher(config.concepts)
        self._concepts: dict[int, Counter[str]] = {}
        self.report = MixReport()
        self._read()
        self._plan()

    def examples(self) -> Iterator[dict[str, Any]]:
        """The rows of the mix in the order of the corpora, each with the translations that it keeps."""
        from datasets import Image

        number = 0
        for name, corpus in self.corpora.items():
            prefix = f"{name}/" if len(self.corpora) > 1 else ""
            places = np.flatnonzero(self._row_kept[number : number + len(corpus)])
            encoded = corpus.cast_column("image", Image(decode=False))
            lacking = {ALIGNMENT: None} if self.has_alignments else {}
            for place, row in zip(places.tolist(), encoded.select(places), strict=True):
                begin = int(self._begins[number + place])
                kept = self._kept[begin : begin + len(row[TRANSLATIONS])]
                items = [lacking | item for item, stays in zip(row[TRANSLATIONS], kept, strict=True) if stays]
                yield {**row, ID: f"{prefix}{row[ID]}", TRANSLATIONS: items}
            number += len(corpus)

    @property
    def has_alignments(self) -> bool:
        """Whether the translations of any corpus have the field `alignment`."""
        from xvlm2vec.corpus.schema import translation_fields

        return any(ALIGNMENT in translation_fields(corpus.features) for corpus in self.corpora.values())

    def _rows(self, what: str) -> Iterator[tuple[str, str, list[str]]]:
        """English text, source and languages of every row, in batches."""
        total = sum(map(len, self.corpora.values()))
        with tqdm(total=total, desc=what, unit="row", disable=not self._progress) as bar:
            for corpus in self.corpora.values():
                columns = corpus.select_columns(["text_en", "source", TRANSLATIONS])
                for batch in columns.iter(batch_size=_ROWS):
                    for english, source, items in zip(
                        batch["text_en"], batch["source"], batch[TRANSLATIONS], strict=True
                    ):
                        codes = ["" if is_blank(item["text"]) else normal_or_same(item["lang"]) for item in items]
                        yield english or "", source or "", codes
                    bar.update(len(batch["source"]))

    def _read(self) -> None:
        """Takes the language of every translation and the source of every row; counts concepts.

        A row without a translation has one place all the same, which says whether it stays.
        """
        languages, sources, begins = array("h"), array("i"), array("q")
        for english, source, codes in self._rows("Reading"):
            begins.append(len(languages))
            sources.append(self._sources.setdefault(source, len(self._sources)))
            numbers = [self._languages.setdefault(code, len(self._languages)) for code in codes or [_NONE]]
            languages.extend(numbers)
            if self.config.balance:
                found = self._matcher.find(english)
                for number in dict.fromkeys(numbers):
                    self._concepts.setdefault(number, Counter()).update(found)
        self._language = np.array(languages, np.int16)
        self._source = np.array(sources, np.int32)
        self._begins = np.array(begins, np.int64)
        blank = self._languages.get("")
        self._kept: Mask = np.ones(len(languages), bool) if blank is None else self._language != blank

    def _plan(self) -> None:
        before = self._by_language(), self._by_source(self._rows_left())
        if self.config.balance:
            self._balance()
        self._thin(self._kept, self._language, self.config.language_temperature, self.config.language_cap,
                   self._languages.get(_NONE))  # fmt: skip
        rows = self._rows_left()
        self._thin(rows, self._source, self.config.source_temperature, self.config.source_cap)
        if self.config.rows is not None:
            self._cut(rows, np.flatnonzero(rows), self.config.rows)
        self._row_kept = rows
        self._kept &= np.repeat(rows, np.diff(np.append(self._begins, len(self._kept))))
        self.report.rows, self.report.kept = len(rows), int(rows.sum())
        after = self._by_language(), self._by_source(rows)
        for table, earlier, later in zip((self.report.languages, self.report.sources), before, after, strict=True):
            table.update({name: (count, later[name]) for name, count in earlier.most_common()})

    def _balance(self) -> None:
        """Draws every translation by its row's concepts in its language."""
        names = {number: code for code, number in self._languages.items()}
        most = {
            number: self.config.per_concept or threshold(counts, self.config.tail)
            for number, counts in self._concepts.items()
        }
        self.report.thresholds = {names[number]: count for number, count in most.items() if names[number]}
        before: Counter[str] = Counter()
        after: Counter[str] = Counter()
        place = 0
        for english, _, codes in self._rows("Balancing"):
            found, count = self._matcher.find(english), max(1, len(codes))
            draws = self._draw.random(count)
            for offset in range(count):
                number = int(self._language[place + offset])
                chance = keep_probability(found, self._concepts[number], most[number])
                self._kept[place + offset] &= draws[offset] < chance
            before.update(found)
            after.update(found if self._kept[place : place + count].any() else ())
            place += count
        cut = sorted(before, key=lambda concept: (after[concept] - before[concept], concept))[:20]
        self.report.most_cut = {concept: (before[concept], after[concept]) for concept in cut}

    def _thin(
        self, kept: Mask, group: npt.NDArray[Any], temperature: float, cap: int | None, apart: int | None = None
    ) -> None:
        """Leaves of each group what temperature and cap say.

        Args:
            kept: What is kept so far; is changed.
            group: Number of each one's group.
            temperature: Of the groups' sizes.
            cap: Most of a group.
            apart: A group that is left as it is.
        """
        counts = np.bincount(group[kept], minlength=1).astype(float)
        present = [number for number in np.flatnonzero(counts).tolist() if number != apart]
        if not present or (temperature == 1.0 and cap is None):
            return
        wanted = counts ** (1.0 / temperature)
        scale = min(counts[number] / wanted[number] for number in present)
        for number in present:
            most = int(min(round(scale * wanted[number]), cap if cap is not None else np.inf))
            self._cut(kept, np.flatnonzero(kept & (group == number)), most)

    def _cut(self, kept: Mask, places: npt.NDArray[np.int64], most: int) -> None:
        """Leaves so many of some places, drawn."""
        if len(places) > most:
            kept[self._draw.choice(places, len(places) - most, replace=False)] = False

    def _rows_left(self) -> Mask:
        """The rows that keep anything."""
        return np.logical_or.reduceat(self._kept, self._begins) if len(self._begins) else np.zeros(0, bool)

    def _by_language(self) -> Counter[str]:
        counts = np.bincount(self._language[self._kept], minlength=len(self._languages)).tolist()
        return Counter({code: counts[number] for code, number in self._languages.items() if code not in ("", _NONE)})

    def _by_source(self, rows: Mask) -> Counter[str]:
        counts = np.bincount(self._source[rows], minlength=len(self._sources)).tolist()
        return Counter({name: counts[number] for name, number in self._sources.items()})


def corpus_names(paths: Sequence[str]) -> list[str]:
    """A short name for each of some paths or ids: its last part that says something, with a number where two agree."""
    parts = [[part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")] for path in paths]
    names = [next((part for part in reversed(found) if part != "parallel"), "corpus") for found in parts]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)]
