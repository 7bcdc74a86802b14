"""The images that records name: files below a folder, or members of the zip archives in it; nothing is unpacked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from xvlm2vec.common.files import files_below
from xvlm2vec.corpus.rows import RowFault
from xvlm2vec.modeling.images import ImageError, load_image

from .records import ImageBytes

LARGEST = 100_000_000
"""Bytes of an image; what unpacks to more is refused."""
_OPEN = 8
"""Archives that are open at once."""
_REMEMBERED = 1 << 16
"""Images whose judgement is remembered by their names."""
_ARCHIVES = ("*.zip", "images_zip/*.zip", "images/*.zip")


class ImageStore:
    """Images by the names that records use.

    A name `images/A-OKVQA/Train/1.jpg` is that file below the folder; or, in an archive `A-OKVQA.zip`, a member of this
    path, or without its first parts as long as these are `images` or the archive's own name.

    Args:
        folder: The folder, or None where records bring their images.

    Raises:
        FileNotFoundError: The folder is missing.
    """

    def __init__(self, folder: Path | None) -> None:
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of images {folder}")
        self.folder = folder
        self._archives = sorted({path for pattern in _ARCHIVES for path in files_below(folder or Path(), pattern)}
                                if folder else ())  # fmt: skip
        self._opened = lru_cache(_OPEN)(_open_archive)
        self._problem = lru_cache(_REMEMBERED)(self._judge)

    def check(self, image: str | ImageBytes) -> None:
        """Decodes an image, so that a broken one is noticed before a training; a named one only once.

        Raises:
            RowFault: It leads out of the folder, is missing, too large, or cannot be decoded.
        """
        problem = _decode(image.name, image.content) if isinstance(image, ImageBytes) else self._problem(image)
        if problem:
            raise RowFault(*problem)

    def read(self, name: str) -> bytes:
        """The encoded image.

        Raises:
            RowFault: It leads out of the folder, is missing or too large.
        """
        if self.folder is None:
            raise RowFault("no folder of images", f"the image {name!r} lies somewhere; name the folder (--images)")
        path = _safe_path(name, self.folder)
        file = self.folder / path
        try:
            if file.is_file():
                return self._file(file, name)
        except (OSError, ValueError) as error:  # names that no file can have: too long, or with a zero byte
            raise RowFault("missing image", f"{name!r:.120} is no path ({error})") from error
        for archive in self._likely(path):
            member = _member(self._opened(archive), archive, path)
            if member is not None:
                return _unpacked(self._opened(archive), member, archive)
        archives = f", nor a member of its {len(self._archives)} archives" if self._archives else ""
        raise RowFault("missing image", f"there is no file {file}{archives}")

    def _judge(self, name: str) -> tuple[str, str] | None:
        try:
            return _decode(name, self.read(name))
        except RowFault as fault:
            return fault.kind, fault.problem

    def _file(self, file: Path, name: str) -> bytes:
        if self.folder is None or not file.resolve().is_relative_to(self.folder.resolve()):
            raise RowFault("image outside the folder", f"{name!r} leads out of the folder {self.folder}; refused")
        if file.stat().st_size > LARGEST:
            raise RowFault("too large", f"{file} has more than {LARGEST:,} bytes; refused")
        return file.read_bytes()

    def _likely(self, path: PurePosixPath) -> list[Path]:
        """The archives, those first whose name is a part of the path."""
        return sorted(self._archives, key=lambda archive: archive.stem not in path.parts)


def _safe_path(name: str, folder: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise RowFault("image outside the folder", f"{name!r:.200} leads out of the folder {folder}; refused")
    return path


def _decode(name: str, content: bytes) -> tuple[str, str] | None:
    try:
        load_image(content, name=name)
    except ImageError as error:
        return "unreadable image", str(error)
    return None


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise RowFault("damaged archive", f"{path} is no zip archive ({error}); download it again") from error


def _member(archive: zipfile.ZipFile, path: Path, wanted: PurePosixPath) -> str | None:
    """The member that a path means."""
    return next((name for name in _spellings(wanted, path.stem) if name in archive.NameToInfo), None)


def _spellings(wanted: PurePosixPath, stem: str) -> Iterator[str]:
    parts = wanted.parts
    while parts:
        yield "/".join(parts)
        yield "/".join((stem, *parts))
        if parts[0] not in {"images", stem}:
            return
        parts = parts[1:]


def _unpacked(archive: zipfile.ZipFile, member: str, path: Path) -> bytes:
    """A member's content; what its header says of the size is not trusted."""
    try:
        with archive.open(member) as file:
            content = file.read(LARGEST + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise RowFault("damaged archive", f"{path}/{member} cannot be unpacked ({error})") from error
    if len(content) > LARGEST:
        raise RowFault("too large", f"{path}/{member} unpacks to more than {LARGEST:,} bytes; refused")
    return content
