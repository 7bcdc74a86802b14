"""Images of published benchmarks: files below a folder, or a column of a parquet file."""

from __future__ import annotations

import hashlib
import logging
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from xvlm2vec.common.files import files_below, is_leftover

logger = logging.getLogger(__name__)

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


ARCHIVE = "images.zip"


class ArchiveImages:
    """The images in a folder's `images.zip`, as a download from the Hub leaves them; nothing is unpacked.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ARCHIVE

    def find(self, paths: Iterable[PurePosixPath]) -> dict[str, Any] | None:
        """The encoded image, as `datasets.Image` stores it, at the first of some paths below any folder in it.

        Raises:
            ValueError: The archive or the image in it is damaged.
        """
        for path in paths:
            if path in self._members:
                member = self._members[path]
                return {"bytes": self._read(member), "path": f"{self.path}/{member.filename}"}
        return None

    def lack(self) -> str:
        """Why an image was not found here, for messages."""
        return f"{self.path} has none of the name" if self.path.is_file() else f"there is no archive {self.path} either"

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        try:
            return self._archive.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{self.path}/{member.filename} is damaged ({error}); download it again") from error

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)  # kept open: a large archive's list of contents takes a second to read
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.path} is damaged ({error}); download it again") from error

    @cached_property
    def _members(self) -> dict[PurePosixPath, zipfile.ZipInfo]:
        """Members by each ending of their paths."""
        if not self.path.is_file():
            return {}
        found: dict[PurePosixPath, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            parts = PurePosixPath(member.filename).parts
            if any(map(is_leftover, parts)):
                continue
            for start in range(len(parts)):
                found.setdefault(PurePosixPath(*parts[start:]), member)
        return found


def class_folders(folder: Path) -> list[list[str]]:
    """The images of each class below a folder that has a folder for each, classes and images in the order of names.

    What systems and tools leave behind counts neither as a class nor as an image, and is logged with all that is no
    image.

    Raises:
        ValueError: A class has no images, which would leave its number without any; names its folder.
    """
    classes = []
    passed_over = [path for path in folder.iterdir() if is_leftover(path.name)]
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and not is_leftover(path.name)):
        files = [path for path in sorted(below.iterdir()) if path.suffix.lower() in _SUFFIXES]
        images = [path for path in files if path.is_file() and not is_leftover(path.name)]
        passed_over += set(below.iterdir()).difference(images)
        if not images:
            raise ValueError(f"{below} has no images, and the numbers of classes count the folders; remove or fill it")
        classes.append([path.relative_to(folder).as_posix() for path in images])
    if passed_over:
        shown = ", ".join(sorted(path.relative_to(folder).as_posix() for path in passed_over)[:5])
        logger.warning("%s: %d files and folders are no images or classes: %s", folder, len(passed_over), shown)
    return classes


class PathImages(Mapping[str, Any]):
    """Files by the names that rows use, in the first of several folders that has them, or in `images.zip`.

    Raises:
        ValueError: A name leads out of the folders.
        FileNotFoundError: None has the file.
    """

    def __init__(self, folder: Path, below: Sequence[str]) -> None:
        self.folders = [folder / part for part in below]
        self._archive = ArchiveImages(folder)

    def __getitem__(self, name: str) -> Any:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise ValueError(f"image name {name!r} leads out of the data folder {self.folders[-1]}; refused")
        for folder in self.folders:
            if (folder / path).is_file():
                return folder / path
        found = self._archive.find([path])
        if found is None:
            tried = ", ".join(str(folder / path) for folder in self.folders)
            raise FileNotFoundError(f"there is no image {tried}, and {self._archive.lack()}")
        return found

    def __iter__(self) -> Iterator[str]:
        for folder in self.folders:
            files = (path for path in files_below(folder, "**/*") if path.suffix.lower() in _SUFFIXES)
            yield from (path.relative_to(folder).as_posix() for path in files)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class ColumnImages(Mapping[str, Any]):
    """The images in a column of a `datasets.Dataset`, by row number, decoded when asked for.

    Raises:
        ValueError: A row has no image, or one that cannot be read; names file and row.
    """

    def __init__(self, dataset: Any, column: str, where: str) -> None:
        from datasets import Image

        self._images = dataset.select_columns(column).cast_column(column, Image())
        self._encoded = self._images.cast_column(column, Image(decode=False))
        self._column, self._where = column, where

    def __getitem__(self, name: str) -> Any:
        try:
            image = self._images[int(name)][self._column]
        except OSError as error:
            raise ValueError(f"{self._where}: row {name}: the image cannot be read: {error}") from error
        if image is None:
            raise ValueError(f"{self._where}: row {name} has no image in the column {self._column}")
        return image

    def digest(self, name: str) -> bytes:
        """SHA-256 of an image as it is stored, without decoding it."""
        stored = self._encoded[int(name)][self._column]
        if stored is None or not stored["bytes"]:
            raise ValueError(f"{self._where}: row {name} has no image in the column {self._column}")
        return hashlib.sha256(stored["bytes"]).digest()

    def __iter__(self) -> Iterator[str]:
        return map(str, range(len(self._images)))

    def __len__(self) -> int:
        return len(self._images)
