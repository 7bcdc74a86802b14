"""WebDataset: tar files whose members belong together if they stand together and share a name.

The name goes up to the last dot: `photo.1.jpg` and `photo.2.jpg` are two rows, not one. A language may stand before the
last suffix of a text: `0001.de.txt`.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import LANG, TEXT, TRANSLATIONS
from xvlm2vec.common.files import is_leftover
from xvlm2vec.common.languages import language
from xvlm2vec.corpus.rows import RowFault

from .fields import parse_line, record_of
from .images import LARGEST
from .lines import decoded
from .records import Entries, ImageBytes, ReadOptions, Record, files_of, rejected

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_TEXTS = frozenset({"txt", "text", "caption"})
_JSON = "json"


@dataclass
class Sample:
    """The members of one row.

    Attributes:
        key: Their name.
        values: Fields of its JSON member, and its English text.
        texts: Its texts in other languages.
        image: Its image.
        fault: What is wrong with a member.
    """

    key: str
    values: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    image: ImageBytes | None = None
    fault: RowFault | None = None


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """A record for each name in each shard."""
    for path in files_of(inputs, ("**/*.tar", "**/*.tar.gz", "**/*.tgz"), "tar file"):
        shard = path.name.partition(".")[0]
        for number, sample in enumerate(_samples(path, options.fields.english)):
            place = {"file": str(path), "row": number}
            try:
                yield _record(sample, place, shard, options)
            except RowFault as fault:
                yield rejected(fault, place, f"{shard}/{sample.key}")


def _record(sample: Sample, place: dict[str, Any], shard: str, options: ReadOptions) -> Record:
    if sample.fault is not None:
        raise sample.fault
    values: dict[str, Any] = {"id": f"{shard}/{sample.key}", **sample.values}
    if sample.texts:
        beside = [{LANG: code, TEXT: text} for code, text in sample.texts.items()]
        values[TRANSLATIONS] = [*(values.get(TRANSLATIONS) or ()), *beside]
    values.pop(options.fields.image, None)  # the image is the member, whatever else the JSON says
    return record_of(values, options.fields, place, shard, sample.image)


def _samples(path: Path, english: str) -> Iterator[Sample]:
    """Members that stand together; a damaged archive ends in a sample with a fault."""
    sample: Sample | None = None
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isdir() or any(map(is_leftover, member.name.split("/"))):
                    continue
                key, code = _key(member.name, sample)
                if sample is None or key != sample.key:
                    if sample is not None:
                        yield sample
                    sample = Sample(key)
                try:
                    _take(sample, member, archive, code, english)
                except RowFault as fault:
                    sample.fault = sample.fault or fault
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        sample = sample or Sample("")
        sample.fault = RowFault("damaged archive", f"{path} is damaged here ({error}); download it again")
    if sample is not None:
        yield sample


def _key(name: str, sample: Sample | None) -> tuple[str, str]:
    """The name of a member's row, and the language that stands in the member's own name."""
    base, _, suffix = name.rpartition(".")
    stem, _, code = base.rpartition(".")
    is_row = sample is not None and base == sample.key
    if suffix.lower() in _TEXTS and not is_row and stem and "/" not in code and _is_language(code):
        return stem, code
    return base or name, ""


def _is_language(code: str) -> bool:
    return code.lower() not in IMAGES and bool(code) and language(code).name != code


def _take(sample: Sample, member: tarfile.TarInfo, archive: tarfile.TarFile, code: str, english: str) -> None:
    suffix = member.name.rpartition(".")[2].lower()
    if suffix not in IMAGES | _TEXTS | {_JSON}:
        return
    if not member.isfile():
        raise RowFault("link", f"{member.name!r} is a link or no file; refused")
    if member.size > LARGEST:
        raise RowFault("too large", f"{member.name!r} has more than {LARGEST:,} bytes; refused")
    file = archive.extractfile(member)
    content = file.read() if file is not None else b""
    if suffix in IMAGES:
        if sample.image is not None:
            raise RowFault("two images", f"{sample.image.name!r} and {member.name!r} have one name")
        sample.image = ImageBytes(member.name, content)
    elif suffix == _JSON:
        sample.values = {**parse_line(content), **sample.values}
    elif code:
        sample.texts[code] = decoded(content, 1).strip()
    else:
        sample.values[english] = decoded(content, 1).strip()
