"""Two kinds of files of Qt's: resources (`.rcc`), which hold other files, and translations (`.qm`)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

_FOLDER, _ZLIB = 2, 1  # flags of an entry
_MESSAGES = 0x69
_END, _OBSOLETE = 1, 5
_TRANSLATION, _SOURCE, _CONTEXT = 3, 6, 7
_QM_MAGIC = bytes.fromhex("3cb86418caef9c95cd211cbf60a1bddd")
_NOTHING = 0xFFFFFFFF
_LARGEST = 100_000_000  # bytes of a member


class Resources(Mapping[str, bytes]):
    """The files in a resource file, by their paths.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none, or is damaged; or a member is packed in a way that is not read here.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"there is no resource file {path}")
        self.path, self._bytes = path, path.read_bytes()
        if self._bytes[:4] != b"qres":
            raise ValueError(f"{path} is no resource file of Qt's: it does not begin with qres")
        try:
            version, self._tree, self._data, self._names = struct.unpack_from(">4I", self._bytes, 4)
            self._size = 14 if version < 2 else 22
            self._members = dict(self._walk(0, ""))
        except (struct.error, IndexError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}); take it from its package again") from error

    def __getitem__(self, name: str) -> bytes:
        flags, start = self._members[name]
        (size,) = struct.unpack_from(">I", self._bytes, start)
        content = self._bytes[start + 4 : start + 4 + size]
        if not flags & ~_ZLIB:
            try:
                return self._unpacked(content[4:], name) if flags else content
            except zlib.error as error:
                raise ValueError(f"{self.path}: {name} is damaged ({error}); take it from its package again") from error
        raise ValueError(f"{self.path}: {name} is packed in another way (flags {flags}) than is read here")

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def _unpacked(self, content: bytes, name: str) -> bytes:
        """A packed member, if it is of a size that is believed."""
        unpacking = zlib.decompressobj()
        unpacked = unpacking.decompress(content, _LARGEST)
        if unpacking.unconsumed_tail:
            raise ValueError(f"{self.path}: {name} unpacks to more than {_LARGEST:,} bytes; refused")
        if not unpacking.eof:
            raise zlib.error("its end is missing")
        return unpacked

    def _walk(self, entry: int, below: str) -> Iterator[tuple[str, tuple[int, int]]]:
        """Paths of the files below an entry, with their flags and where their contents begin."""
        start = self._tree + entry * self._size
        name, flags, first, second = struct.unpack_from(">IHII", self._bytes, start)
        path = f"{below}/{self._name(name)}" if entry else below
        if flags & _FOLDER:
            for child in range(second, second + first):
                yield from self._walk(child, path)
        else:
            yield path, (flags, self._data + second)

    def _name(self, place: int) -> str:
        (length,) = struct.unpack_from(">H", self._bytes, self._names + place)
        start = self._names + place + 6  # behind the length and a hash
        return self._bytes[start : start + 2 * length].decode("utf-16-be")


def read_translations(path: Path) -> dict[tuple[str, str], str]:
    """The translations of a `.qm` file by their context and the text that they translate.

    Raises:
        ValueError: It is no such file, or is damaged.
    """
    content = path.read_bytes()
    if content[:16] != _QM_MAGIC:
        raise ValueError(f"{path} is no file of translations of Qt's")
    try:
        return dict(_messages(_section(content, _MESSAGES)))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); take it from its package again") from error


def _section(content: bytes, wanted: int) -> bytes:
    place = 16
    while place < len(content):
        tag, length = struct.unpack_from(">BI", content, place)
        if tag == wanted:
            return content[place + 5 : place + 5 + length]
        place += 5 + length
    return b""


def _messages(content: bytes) -> Iterator[tuple[tuple[str, str], str]]:
    """Messages one after another: each is a row of tagged parts up to an end; the first of plural forms counts."""
    place, parts = 0, dict[int, bytes]()
    while place < len(content):
        tag = content[place]
        place += 1
        if tag == _END:
            texts = [parts.get(kind, b"").decode("utf-8") for kind in (_CONTEXT, _SOURCE)]
            yield (texts[0], texts[1]), parts.get(_TRANSLATION, b"").decode("utf-16-be")
            parts = {}
        elif tag == _OBSOLETE:
            place += 4
        else:
            (length,) = struct.unpack_from(">I", content, place)
            length = 0 if length == _NOTHING else length
            parts.setdefault(tag, content[place + 4 : place + 4 + length])
            place += 4 + length
