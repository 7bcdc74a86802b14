"""Records become the rows of a parallel corpus: judged, brought together, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import ALIGNMENT, LANG, TEXT
from xvlm2vec.common.languages import normal_code
from xvlm2vec.common.texts import is_blank
from xvlm2vec.corpus.checking.rejects import RejectsFile
from xvlm2vec.corpus.image_folder import unmarked
from xvlm2vec.corpus.rows import ENGLISH, REPORT, RejectedRow, RowFault
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import write_dataset
from xvlm2vec.corpus.texts import is_null_word

from .groups import DiskGroups, Group, Ids
from .images import ImageStore
from .records import Entry, ImageBytes, LeftOut, Record, rejected

NO_ENGLISH, ANOTHER = "no English text", "another text of the same row and language"
_SHOWN = 20


@dataclass
class ReadResult:
    """What was read; records are those that are kept, bad, and left out.

    Attributes:
        records: Records of the files.
        kept: Records that are in rows.
        bad: Those that have a fault, by its kind.
        left_out: Those that a parallel corpus does not want, by the reason.
        texts: Translations that are left out of rows that are kept, by the kind of their fault.
        rows: Rows that were written.
        images: Rows with an image.
        languages: Translations by language.
        faults: The first bad records.
    """

    records: int = 0
    kept: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    images: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    faults: list[RejectedRow] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The counts."""
        counters = {"left_out": self.left_out, "texts_left_out": self.texts, "languages": self.languages}
        return {"records": self.records, "rows": self.rows, "images": self.images,
                **{name: dict(counter.most_common()) for name, counter in counters.items()}}  # fmt: skip


def read_corpus(
    entries: Iterable[Entry],
    output: str | Path,
    images: str | Path | None = None,
    together: bool = True,
    drop_null_words: bool = False,
) -> ReadResult:
    """Writes what a layout's reader finds into `output/parallel`, and its bad records into `output/bad-rows.json`.

    Images are decoded once and stored as they came. Marks such as `<|image_1|>` are taken out of the texts of a row
    with an image. Nothing is held in memory: rows that have several records are put together in a temporary file.

    Args:
        entries: What the reader finds.
        output: Where to write.
        images: Folder of the images that records name.
        together: Whether records with the same English text and image (or the same `key`) are one row.
        drop_null_words: Whether records with a text such as `nan` or `NULL` are bad; otherwise they are told and kept.

    Raises:
        ValueError: No row can be used, or the disk is full.
        FileNotFoundError: The folder of images is missing.
    """
    store, result = ImageStore(Path(images) if images is not None else None), ReadResult()
    first = list(islice(entries := iter(entries), 1))  # raises what is wrong with the whole input
    entries, folder = chain(first, entries), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with RejectsFile(folder / REPORT) as rejects, ExitStack() as stack:
        reading = Reading(store, result, rejects, drop_null_words)
        try:
            if together:
                groups = stack.enter_context(closing(DiskGroups()))
                rows, fields = reading.grouped(entries, groups), groups.fields()
            else:
                rows, fields = reading.one_by_one(entries), []
            ids = stack.enter_context(closing(Ids()))
            write_dataset(lambda: reading.examples(rows, ids, fields), parallel_features(fields), folder / "parallel")
        except ValueError as error:
            if result.rows or not result.faults:
                raise
            faults = "; ".join(map(str, result.faults[:5]))
            raise ValueError(f"none of {result.records:,} records can be used: {faults}") from error
        finally:
            rejects.finish(result.kept, dict(result.bad.most_common()), result.as_json())
    return result


class Reading:
    """Judges records.

    Args:
        images: The images that records name.
        result: Gets the counts.
        rejects: Gets the records that are bad.
        drop_null_words: Whether records with a text such as `nan` are bad.
    """

    def __init__(self, images: ImageStore, result: ReadResult, rejects: RejectsFile, drop_null_words: bool) -> None:
        self._images, self._result, self._rejects = images, result, rejects
        self._drop_null_words = drop_null_words

    def one_by_one(self, entries: Iterable[Entry]) -> Iterator[Group]:
        """Each record that can be used as a row."""
        return (group for _, group in self._judged(entries))

    def grouped(self, entries: Iterable[Entry], groups: DiskGroups) -> Iterator[Group]:
        """Records that can be used, brought together; all are read before the first row is given."""
        for record, group in self._judged(entries):
            different = groups.add(record.key, group)
            texts = len(group.translations) + (record.key is not None and group.english is not None)
            if different and len(different) == texts:
                self._result.kept -= 1
                self._another(record, different[0])
            else:
                for code in different:
                    self._tell(RowFault("another translation", ANOTHER), record, code)
        return self._with_english(groups)

    def examples(self, rows: Iterable[Group], ids: Ids, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Rows as a parallel corpus has them, with further fields of their translations."""
        for group in rows:
            yield self._example(group, ids, fields)

    def _with_english(self, groups: DiskGroups) -> Iterator[Group]:
        for group in groups.rows():
            if group.english is None:
                self._result.kept -= group.records
                self._result.left_out[NO_ENGLISH] += group.records
            else:
                yield group

    def _judged(self, entries: Iterable[Entry]) -> Iterator[tuple[Record, Group]]:
        """The records that can be used; the others are counted."""
        for entry in entries:
            self._result.records += entry.records if isinstance(entry, LeftOut) else 1
            if isinstance(entry, LeftOut):
                self._result.left_out[entry.reason] += entry.records
            elif isinstance(entry, RejectedRow):
                self._reject(entry)
            else:
                try:
                    group = self._tidy(entry)
                except RowFault as fault:
                    self._reject(rejected(fault, entry.place, entry.id or None))
                    continue
                self._result.kept += 1
                yield entry, group

    def _another(self, record: Record, code: str) -> None:
        """Counts a record that brings nothing but another text of a row: in a line that is a fault, on a page none."""
        if record.key is not None:
            self._result.left_out[ANOTHER] += 1
        else:
            fault = RowFault("another translation", f"an earlier line translates the same text into {code!r} otherwise")
            self._reject(rejected(fault, record.place, record.id or None))

    def _tidy(self, record: Record) -> Group:
        """A record whose texts can be stored and whose image can be decoded.

        Raises:
            RowFault: It cannot be used.
        """
        if record.image is not None:
            self._images.check(record.image)
        name = record.image.name if isinstance(record.image, ImageBytes) else record.image or ""
        english = None if record.english is None else _stored(record.english, name, "the English text")
        if english == "" or (english is None and record.key is None):
            raise RowFault("empty English text", "the English text is empty")
        items, faults = [], []
        is_marked = english is not None and english != (record.english or "").strip()
        present = [item for item in record.translations if item[TEXT] not in (None, "") and not _is_blank(item[TEXT])]
        if record.translations and not present:
            raise RowFault("empty translation", "the translation is empty")
        for item in present:
            try:
                items.append(_item(item, name, is_marked))
            except RowFault as fault:
                faults.append((fault, str(item[LANG])))
        if faults and not items:
            raise faults[0][0]
        for problem, code in faults:
            self._tell(problem, record, code)
        if english is None and not items:
            raise RowFault("no text", "there is no text")
        self._look_for_null_words(record, [english or "", *(item[TEXT] for item in items)])
        return Group(english, record.source, record.place, record.image, record.id, 1, items)

    def _look_for_null_words(self, record: Record, texts: Iterable[str]) -> None:
        word = next(filter(is_null_word, texts), None)
        if word is not None:
            fault = RowFault("null word", f"{word!r} looks like a missing value")
            if self._drop_null_words:
                raise fault
            self._rejects.tell(rejected(fault, record.place, record.id or None))

    def _example(self, group: Group, ids: Ids, fields: Sequence[str]) -> dict[str, Any]:
        """A row as a parallel corpus has it."""
        name = group.id or f"row-{self._result.rows:06d}"
        if not ids.take(name):
            again = f"{name}#{self._result.rows}"
            problem = f"an earlier row has the id {name!r}; this one gets {again!r}"
            self._rejects.tell(RejectedRow("duplicate id", problem, id=again, **group.place))
            name = again
            ids.take(name)
        image = group.image
        stored = None
        if image is not None:
            encoded = image if isinstance(image, ImageBytes) else ImageBytes(image, self._images.read(image))
            stored = {"bytes": encoded.content, "path": encoded.name}
        self._result.rows += 1
        self._result.images += stored is not None
        self._result.languages.update(item[LANG] for item in group.translations)
        items = [{name: item.get(name) for name in (LANG, TEXT, *fields)} for item in group.translations]
        return {"id": name, "image": stored, "text_en": group.english, "translations": items, "source": group.source}

    def _reject(self, row: RejectedRow) -> None:
        self._result.bad[row.kind] += 1
        self._rejects.drop(row)
        if len(self._result.faults) < _SHOWN:
            self._result.faults.append(row)

    def _tell(self, fault: RowFault, record: Record, code: str) -> None:
        """Notes a translation that is left out of a row that is kept."""
        self._result.texts[fault.kind] += 1
        self._rejects.tell(RejectedRow(fault.kind, fault.problem, id=record.id or None, language=code, **record.place))


def _is_blank(text: Any) -> bool:
    return isinstance(text, str) and is_blank(text)


def _item(item: Mapping[str, Any], image: str, is_marked: bool) -> dict[str, Any]:
    """A translation that can be stored; whether the English text had marks of images."""
    try:
        code = normal_code(item[LANG])
    except (ValueError, AttributeError) as error:
        raise RowFault("no other language", str(error)) from error
    if code == ENGLISH:
        raise RowFault("no other language", f"{item[LANG]!r:.40} is not the code of a language beside English")
    text = _stored(item[TEXT], image, f"the text in {code!r}")
    if not text:
        raise RowFault("marks of images", f"there is nothing but the mark of an image in the text in {code!r}")
    if item.get(ALIGNMENT) and (is_marked or text != item[TEXT].strip()):
        raise RowFault("marks of images", "the alignment counts marks of images as words; take them out")
    return {**item, LANG: code, TEXT: text}


def _stored(text: Any, image: str, what: str) -> str:
    """A text without the marks of its image and the space around it, which can be stored."""
    if not isinstance(text, str):
        raise RowFault("no text", f"{what} is {text!r:.80}, which is no text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a pair of surrogates, which JSON can write
        raise RowFault("not UTF-8", f"{what} holds a character that does not exist") from error
    return unmarked(text, image, what)
