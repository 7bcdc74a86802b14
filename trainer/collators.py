"""Batches of parallel rows: every text of a row, its image prepared once."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from xvlm2vec.common.columns import TRAINING_COLUMNS
from xvlm2vec.common.image_marks import parallel_row_without_marks
from xvlm2vec.common.store import content_digest, row_key
from xvlm2vec.common.texts import is_blank, with_text
from xvlm2vec.modeling.packing import TokenGroup, token_groups
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor, warn_cut
from xvlm2vec.modeling.rows import TextImageRow, make_rows

from .language_sampling import LanguageSampler
from .usable_rows import IsUsable

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PassCounts:
    """Forward passes of the language model that a batch takes, kind by kind.

    Attributes:
        english: Passes for the English texts.
        texts: Passes for the English texts and the translations.
        images_only: Passes for the images without texts.
        translations_only: Passes for the translations without images.
    """

    english: int
    texts: int
    images_only: int = 0
    translations_only: int = 0


@dataclass
class ParallelBatch:
    """`G` parallel rows with `P` translations between them.

    The texts are tokens either in `groups` (all texts of a row over one image) or in `english` and `translated` (each
    text whole, with the image again), for backbones whose images cannot be shared.

    Args:
        ids: `G` names of the rows.
        texts: `G` English texts.
        translations: `P` translated texts, row by row.
        languages: `P` language codes.
        row_of_pair: `(P,)` int64, the row that each translation belongs to.
        digests: A name of each row's images by their content; `None` for a row without.
        with_images: Whether the texts are embedded with these images, rather than alone.
        groups: Each row's English text, then its translations.
        english: The processor's batch of the English texts.
        translated: The processor's batch of the translations.
        images_only: The processor's batch of the images without text, of the rows that have one, if asked for.
        translations_only: The processor's batch of these rows' translations without images, if asked for and if the
            translations are not without them anyway.
        english_rows: The rows without their translations, for a teacher with another processor, if asked for.
        weight: 0 for a batch that only keeps the collective operations of several processes in step.
        passes: How many forward passes of each kind the process with the most needs for its batch in this place; `None`
            where no other process has to be met. See `forward_passes.Passes`.
    """

    ids: list[str]
    texts: list[str]
    translations: list[str]
    languages: list[str]
    row_of_pair: torch.Tensor
    digests: list[bytes | None]
    with_images: bool = True
    groups: list[TokenGroup] | None = None
    english: Inputs | None = None
    translated: Inputs | None = None
    images_only: Inputs | None = None
    translations_only: Inputs | None = None
    english_rows: list[dict[str, Any]] | None = None
    weight: float = 1.0
    passes: PassCounts | None = None

    @property
    def pairs(self) -> int:
        """`P`."""
        return len(self.languages)

    @property
    def keys(self) -> list[bytes]:
        """What names each English row, with its images where it is embedded with them."""
        pairs = zip(self.texts, self.digests, strict=True)
        return [row_key(text, digest if self.with_images else None) for text, digest in pairs]

    @property
    def image_keys(self) -> list[bytes]:
        """What names the images without a text, of the rows that have one."""
        return [row_key("", digest) for digest in self.digests if digest is not None]

    @property
    def has_image(self) -> torch.Tensor:
        """`(G,)` bool."""
        return torch.tensor([digest is not None for digest in self.digests], device=self.row_of_pair.device)

    @property
    def image_numbers(self) -> torch.Tensor:
        """`(G,)` int64, of each row's images: equal where the images are, in any batch; 0 without."""
        hashes = [hashlib.blake2b(digest or b"", digest_size=8).digest() for digest in self.digests]
        numbers = [int.from_bytes(digest, "big", signed=True) for digest in hashes]
        return torch.tensor(numbers, device=self.row_of_pair.device) * self.has_image

    @property
    def tokens(self) -> int:
        """Tokens that the student reads, without padding."""
        if self.groups is not None:
            return sum(map(len, self.groups))
        return sum(_num_tokens(inputs) for inputs in (self.english, self.translated) if inputs)

    def to(self, device: torch.device | str) -> ParallelBatch:
        """The same batch on another device; groups move when they are packed."""

        def moved(inputs: Inputs | None) -> Inputs | None:
            return inputs and {key: value.to(device) for key, value in inputs.items()}

        return replace(
            self,
            row_of_pair=self.row_of_pair.to(device),
            english=moved(self.english),
            translated=moved(self.translated),
            images_only=moved(self.images_only),
            translations_only=moved(self.translations_only),
        )


def _num_tokens(inputs: Mapping[str, Any]) -> int:
    """Tokens of a processor's batch without padding; one that somebody's own code made counts them itself."""
    return inputs["parts"].tokens if "parts" in inputs else int(inputs["attention_mask"].sum())


class FillerRow(dict[str, Any]):
    """A row that fills up a batch and does not count: it gets a batch of weight 0."""


class FilledRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of a corpus in their order, and behind them fillers, so that all processes get batches of the same size.

    Args:
        rows: A corpus with a length.
        multiple: The length becomes a multiple of it.
    """

    def __init__(self, rows: Any, multiple: int) -> None:
        self.rows = rows
        self.length = -(-len(rows) // multiple) * multiple

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        count = len(self.rows)
        return self.rows[index] if index < count else FillerRow(self.rows[index % count])


@dataclass
class ParallelCollator:
    """Makes the batches of a step of rows with the columns of a parallel corpus.

    Args:
        processor: The model's processor.
        translations_per_row: How many of a row's translations are drawn; all if `None`.
        seed: What is drawn depends on it, on the epoch, and on the row's `id` and text only.
        sharing: Whether a row's texts go over one image.
        max_tokens: Rows are cut into batches of at most so many tokens (at least one row each); `None` makes one batch.
        unimodal: Whether images without texts, and texts without images, are wanted, too.
        sampler: Draws the translations; all are equal if `None`.
        with_images: Whether texts are embedded with their images. Where they are not, images are looked at only if they
            are wanted by themselves.
        images_alone: Whether these are prepared, too; a teacher that has their vectors only needs their names.
        keeps_english: Whether the rows go along without their translations.
        starts: Whether groups tell where texts begin, as an adapter that acts on these only must know.

    Attributes:
        epoch: Another epoch draws other translations.
        keeps_rows: Whether the rows go along with their batches, as `rows`, so that they can be made anew.
    """

    processor: XVLM2VecProcessor
    translations_per_row: int | None = None
    seed: int = 0
    sharing: bool = True
    max_tokens: int | None = None
    unimodal: bool = False
    sampler: LanguageSampler | None = None
    with_images: bool = True
    images_alone: bool = True
    keeps_english: bool = False
    starts: bool = False
    epoch: int = field(default=0, init=False)
    keeps_rows: bool = False
    _is_usable: IsUsable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._is_usable = IsUsable(self.with_images)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Tokenises and prepares the rows that can be used; where none can, there is one batch of weight 0.

        Raises:
            ValueError: A row lacks a column; the message names it.
        """
        rows = self._checked(rows)
        rows = [row for row in rows if self._is_usable(row)] or [idle_row(rows[0])]
        chosen = [self._translations(row) for row in rows]
        batches: list[ParallelBatch] = []
        for filler in (False, True):
            part = [index for index, row in enumerate(rows) if isinstance(row, FillerRow) is filler]
            parts = self._batches([rows[index] for index in part], [chosen[index] for index in part])
            batches += [replace(batch, weight=0.0) for batch in parts] if filler else parts
        return {"batches": batches, **({"rows": list(rows)} if self.keeps_rows else {})}

    def english_batches(self, rows: Sequence[dict[str, Any]]) -> list[ParallelBatch]:
        """The rows without their translations, for a teacher."""
        return self._batches(self._checked(rows), [[] for _ in rows])

    def keys(self, rows: Sequence[dict[str, Any]]) -> list[list[bytes]]:
        """For each row, what names its English text with the image; and the image alone if that is wanted."""
        rows = self._checked(rows)
        english, _ = make_rows([row["text_en"] for row in rows], [row["image"] for row in rows])
        digests = [digest_of(row.images) for row in english]
        return [
            [
                row_key(row.text, digest if self.with_images else None),
                *([row_key("", digest)] if self.unimodal and digest is not None else []),
            ]
            for row, digest in zip(english, digests, strict=True)
        ]

    def _checked(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Rows with all columns, and without images that nobody looks at."""
        if self.with_images or self.unimodal:
            return [checked_row(row, index) for index, row in enumerate(rows)]
        return [text_row(row, index) for index, row in enumerate(rows)]

    def _batches(self, rows: Sequence[dict[str, Any]], chosen: Sequence[list[dict[str, str]]]) -> list[ParallelBatch]:
        if self.max_tokens is None or not rows:
            return [self._batch(rows, chosen)] if rows else []
        if self.sharing and not self.unimodal:
            batch = self._batch(rows, chosen)
            return [take(batch, part) for part in self._parts([len(group) for group in batch.groups or ()])]
        return [
            self._batch([rows[index] for index in part], [chosen[index] for index in part])
            for part in self._parts(self._padded_lengths(rows, chosen))
        ]

    def _batch(self, rows: Sequence[dict[str, Any]], chosen: Sequence[list[dict[str, str]]]) -> ParallelBatch:
        """All these rows, with these of their translations, as one batch."""
        whole, _ = make_rows([row["text_en"] for row in rows], [row["image"] for row in rows])
        english = whole if self.with_images else [TextImageRow(row.text) for row in whole]
        names = [str(row["id"]) for row in rows]
        pairs = [(index, item) for index, items in enumerate(chosen) for item in items]
        row_of_pair = [index for index, _ in pairs]
        batch = ParallelBatch(
            ids=names,
            texts=[row.text for row in english],
            translations=[item["text"] for _, item in pairs],
            languages=[item["lang"] for _, item in pairs],
            row_of_pair=torch.tensor(row_of_pair, dtype=torch.long),
            digests=[digest_of(row.images) for row in whole],
            with_images=self.with_images,
            english_rows=[{**row, "translations": []} for row in rows] if self.keeps_english else None,
        )
        translated = [TextImageRow(item["text"], english[index].images) for index, item in pairs]
        if self.sharing:
            batch.groups = self._groups(english, translated, row_of_pair, names)
        else:
            batch.english = self._inputs(english, names)
            batch.translated = self._inputs(translated, [names[index] for index in row_of_pair])
        if self.unimodal and self.images_alone:
            with_image = [index for index, row in enumerate(whole) if row.images]
            images = [TextImageRow("", whole[index].images) for index in with_image]
            batch.images_only = self._inputs(images, [names[index] for index in with_image])
        if self.unimodal and self.with_images:
            pairs_with_image = [(index, item) for index, item in pairs if english[index].images]
            texts = [TextImageRow(item["text"]) for _, item in pairs_with_image]
            batch.translations_only = self._inputs(texts, [names[index] for index, _ in pairs_with_image])
        return batch

    def _groups(
        self,
        english: Sequence[TextImageRow],
        translated: Sequence[TextImageRow],
        row_of_pair: Sequence[int],
        names: Sequence[str],
    ) -> list[TokenGroup]:
        """Each row's English text and its translations over one image."""
        together = [[row] for row in english]
        for index, row in zip(row_of_pair, translated, strict=True):
            together[index].append(row)
        numbers = [[name] * len(rows) for name, rows in zip(names, together, strict=True)]
        groups, cut = token_groups(self.processor, together, numbers=numbers, starts=self.starts)
        if cut:
            warn_cut(cut, sum(map(len, together)), self.processor.limit())
        return groups

    def _inputs(self, rows: Sequence[TextImageRow], names: Sequence[str]) -> Inputs | None:
        """The processor's batch of rows, if there are any."""
        if not rows:
            return None
        inputs, cut = self.processor.prepare(rows, numbers=names)
        if cut:
            warn_cut(cut, len(rows), self.processor.limit())
        return dict(inputs)

    def _translations(self, row: dict[str, Any]) -> list[dict[str, str]]:
        items = with_text(row["translations"])
        if self.translations_per_row is None or len(items) <= self.translations_per_row:
            return items
        draw = random.Random(f"{self.seed}:{self.epoch}:{row['id']}:{row['text_en']}")
        if self.sampler is not None:
            return self.sampler.draw(items, self.translations_per_row, draw)
        return draw.sample(items, self.translations_per_row)

    def _padded_lengths(self, rows: Sequence[dict[str, Any]], chosen: Sequence[Sequence[dict[str, str]]]) -> list[int]:
        """Tokens of each row's texts if they were padded to the longest of them (a rough guess for images)."""
        lengths, least = [], self.processor.recipe.pad_to or 0
        for row, items in zip(rows, chosen, strict=True):
            english, _ = make_rows([row["text_en"]], [row["image"] if self.with_images else None])
            texts = [TextImageRow(text, english[0].images) for text in (row["text_en"], *(i["text"] for i in items))]
            lengths.append(len(texts) * max(least, *self.processor.row_lengths(texts)))
        return lengths

    def _parts(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of the rows of each batch, rows of similar lengths together."""
        part: list[int] = []
        tokens = 0
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            if part and self.max_tokens is not None and tokens + lengths[index] > self.max_tokens:
                yield sorted(part)
                part, tokens = [], 0
            part.append(index)
            tokens += lengths[index]
        if part:
            yield sorted(part)


def idle_row(row: dict[str, Any]) -> FillerRow:
    """A row that cannot be used as one that does not count, for a batch that has no other."""
    text = "-" if is_blank(row["text_en"]) else row["text_en"]
    return FillerRow({**row, "text_en": text, "translations": [{"lang": "en", "text": text}]})


def checked_row(row: Mapping[str, Any], index: int = 0) -> Any:
    """A row of a parallel corpus without the marks of its image.

    Raises:
        ValueError: A column is missing; the message names the row.
    """
    missing = [column for column in TRAINING_COLUMNS if column not in row]
    if missing:
        raise ValueError(f"Row {row.get('id', index)!r} lacks the column {missing[0]!r} of a parallel corpus.")
    return parallel_row_without_marks(row)


def text_row(row: Mapping[str, Any], index: int = 0) -> Any:
    """A row of a parallel corpus without its image, for which there need be no column.

    Raises:
        ValueError: As `checked_row`.
    """
    checked = checked_row(type(row)({"image": None, **row}), index)  # type: ignore[call-arg]
    return type(row)({**checked, "image": None})  # type: ignore[call-arg]


def digest_of(images: Sequence[Any]) -> bytes | None:
    """What names a row's images by their content."""
    digests = [content_digest(image) for image in images]
    return b"".join(digests) or None


def take(batch: ParallelBatch, rows: Sequence[int]) -> ParallelBatch:
    """Some rows of a batch of groups, with their translations."""
    place = {row: position for position, row in enumerate(rows)}
    row_of_pair = batch.row_of_pair.tolist()
    pairs = [pair for pair, row in enumerate(row_of_pair) if row in place]
    return ParallelBatch(
        ids=[batch.ids[row] for row in rows],
        texts=[batch.texts[row] for row in rows],
        translations=[batch.translations[pair] for pair in pairs],
        languages=[batch.languages[pair] for pair in pairs],
        row_of_pair=torch.tensor([place[row_of_pair[pair]] for pair in pairs], dtype=torch.long),
        digests=[batch.digests[row] for row in rows],
        with_images=batch.with_images,
        english_rows=[batch.english_rows[row] for row in rows] if batch.english_rows is not None else None,
        groups=[batch.groups[row] for row in rows] if batch.groups is not None else None,
    )
