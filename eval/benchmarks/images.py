"""Images of published benchmarks: files below a folder, or a column of a table."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

ARCHIVE = "images.zip"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


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
        members: dict[PurePosixPath, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            parts = PurePosixPath(member.filename).parts
            for start in range(len(parts)):
                members.setdefault(PurePosixPath(*parts[start:]), member)
        return members


class FileImages(Mapping[str, Any]):
    """Files by the names that rows use, in the first of several folders that has them, or in `images.zip`.

    Args:
        folder: The data folder.
        below: Folders in it that are looked through, in order.
        file_of: Turns a name of a row into a path below these folders.

    Raises:
        ValueError: A name leads out of the folder.
        FileNotFoundError: No folder has the file.
    """

    def __init__(self, folder: Path, below: Sequence[str] = ("",), file_of: Callable[[str], str] = str) -> None:
        self.folder = folder
        self.folders = [folder / part for part in below]
        self._file_of = file_of
        self._archive = ArchiveImages(folder)

    def __getitem__(self, name: str) -> Any:
        path = self.path_below(name)
        files = [folder / path for folder in self.folders]
        for file in files:
            if file.is_file():
                return file
        image = self._archive.find([path])
        if image is None:
            tried = ", ".join(map(str, files))
            raise FileNotFoundError(f"there is no image {name!r}: no file {tried}, and {self._archive.lack()}")
        return image

    def __iter__(self) -> Iterator[str]:
        for folder in self.folders:
            files = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
            yield from (path.relative_to(folder).as_posix() for path in sorted(files))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def path_below(self, name: str) -> PurePosixPath:
        """Where an image lies below the folders: the same for every way to write its name."""
        path = PurePosixPath(self._file_of(name))
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise ValueError(f"image name {name!r} leads out of the data folder {self.folder}; refused")
        return path


class ColumnImages(Mapping[str, Any]):
    """The images in a column of a `datasets.Dataset`, still encoded, as it stores them.

    Args:
        dataset: The data set.
        column: The column.
        where: The file, for messages.
        rows: The row of each image by its name (default: the number of the row is its name).

    Raises:
        ValueError: A row has no image; names file and row.
    """

    def __init__(self, dataset: Any, column: str, where: str, rows: Mapping[str, int] | None = None) -> None:
        from datasets import Image

        self._images = dataset.select_columns(column).cast_column(column, Image(decode=False))
        self._rows = {str(row): row for row in range(len(dataset))} if rows is None else rows
        self._column, self._where = column, where

    def __getitem__(self, name: str) -> Any:
        stored = self._images[self._rows[name]][self._column]
        if stored and stored["bytes"]:
            return {"bytes": stored["bytes"], "path": f"{self._where}: row {name}"}
        if stored and stored["path"] and Path(stored["path"]).is_file():
            return Path(stored["path"])
        raise ValueError(f"{self._where}: row {name} has no image in the column {self._column}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def named_images(dataset: Any, where: str = "the images") -> ColumnImages:
    """The images of a `datasets.Dataset` with the columns `path` and `image`, by path.

    Raises:
        ValueError: A column is missing or a path occurs twice.
    """
    missing = {"path", "image"} - set(dataset.column_names)
    if missing:
        raise ValueError(f"{where} need the columns path and image; missing: {', '.join(sorted(missing))}")
    rows = {path: row for row, path in enumerate(dataset["path"][:])}
    if len(rows) != len(dataset):
        raise ValueError("a path occurs twice among the images")
    return ColumnImages(dataset, "image", where, rows)
