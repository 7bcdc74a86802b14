"""The images that rows of a file name, below one folder, and their marks in the texts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath

from xvlm2vec.common.image_marks import without_marks
from xvlm2vec.common.store import content_digest
from xvlm2vec.modeling.images import ImageError, load_image

from .rows import RowFault

_REMEMBERED = 1 << 16
"""Names of images whose judgement is remembered."""


class ImageFolder:
    """The images of a folder by their names, each decoded once while it is remembered: broken ones are found early.

    Args:
        folder: The folder, or None where rows have no images.

    Raises:
        FileNotFoundError: It is missing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = Path(folder) if folder is not None else None
        if self.folder is not None and not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder of images {folder}")
        self._found = lru_cache(_REMEMBERED)(self._find)

    def find(self, name: str) -> tuple[Path, bytes]:
        """The file of an image, and SHA-256 of its pixels.

        Args:
            name: Path below the folder.

        Raises:
            RowFault: It leads out of the folder, does not exist, or cannot be read as an image.
        """
        image = self._found(name)
        if isinstance(image, RowFault):
            raise RowFault(image.kind, image.problem)
        return image

    def _find(self, name: str) -> tuple[Path, bytes] | RowFault:
        try:
            return self._check(name)
        except RowFault as fault:
            return fault

    def _check(self, name: str) -> tuple[Path, bytes]:
        if self.folder is None:
            raise RowFault("no folder of images", f"the image {name!r} lies somewhere; name the folder (--images)")
        relative = PurePosixPath(name.replace("\\", "/"))
        path = self.folder / relative
        try:
            outside = relative.is_absolute() or ".." in relative.parts
            if outside or not path.resolve().is_relative_to(self.folder.resolve()):
                raise RowFault("image outside the folder", f"{name!r} leads out of the folder {self.folder}; refused")
            if not path.is_file():
                raise RowFault("missing image", f"there is no file {path}")
            return path, content_digest(load_image(path, name=name))
        except ImageError as error:
            raise RowFault("unreadable image", str(error)) from error
        except (OSError, ValueError) as error:  # names that no file can have: too long, or with a zero byte
            raise RowFault("missing image", f"{name!r:.120} is no path ({error})") from error


def unmarked(text: str, image: str, where: str) -> str:
    """A text without the mark of its image, and without the space around it.

    Args:
        text: The text.
        image: Name of the row's image, empty if there is none.
        where: Names the text in the fault.

    Raises:
        RowFault: There are more marks than images.
    """
    try:
        return without_marks(text, int(bool(image)), where).strip()
    except ValueError as error:
        raise RowFault("marks of images", str(error)) from error
