"""Folders that appear whole or not at all, and that never replace what a release did not write."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xvlm2vec import __version__
from xvlm2vec.common.files import write_json

MANIFEST = "export.json"
MADE_BY = "xvlm2vec"
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644
_MOST_NAMES = 5


class ExportError(ValueError):
    """A release cannot be written; the message says why and what to do."""


@contextmanager
def staged_folder(folder: str | os.PathLike[str], kind: str) -> Iterator[Path]:
    """Yields an empty sibling of `folder` that takes its place when the block ends without an error.

    Args:
        folder: Where the result goes. It may be missing, empty, or an earlier export of the same kind.
        kind: What is exported: `"model"`, `"adapter"`, `"native"`, `"benchmark"` or `"space"`.

    Raises:
        ExportError: `folder` holds something that an earlier export did not write.
    """
    target = Path(folder)
    check_replaceable(target, kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield staging
        manifest = {"made_by": MADE_BY, "version": __version__, "kind": kind, "files": _file_names(staging)}
        write_json(staging / MANIFEST, manifest)
        _make_readable(staging)
        move_into_place([(staging, target)])
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def move_into_place(moves: Sequence[tuple[Path, Path]]) -> None:
    """Renames folders to places beside each other, also where earlier ones are: all of them, or none.

    Args:
        moves: Each folder and its place. What was there is removed only after all renames worked.
    """
    holder = Path(tempfile.mkdtemp(prefix=".earlier.", dir=moves[0][1].parent))
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        os.replace(source, target)
        done.append((source, target))

    try:
        for source, target in moves:
            if target.exists():
                move(target, holder / target.name)
            move(source, target)
    except OSError:
        for source, target in reversed(done):
            os.replace(target, source)
        raise
    finally:
        shutil.rmtree(holder)


def check_replaceable(folder: Path, kind: str) -> None:
    """Raises an `ExportError` unless `folder` is missing, empty, or an untouched earlier export of this kind."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file; name a folder for the {kind}.")
    present = _file_names(folder)
    if not present and not any(folder.iterdir()):
        return
    manifest = _read_manifest(folder)
    if manifest.get("kind") != kind:
        raise ExportError(
            f"{folder} is not empty and is no earlier {kind} export (it has no {MANIFEST} that says so): nothing was "
            "written. Name another folder, or empty this one."
        )
    foreign = sorted(set(present) - set(manifest["files"]) - {MANIFEST})
    if foreign:
        names = ", ".join(foreign[:_MOST_NAMES]) + (", ..." if len(foreign) > _MOST_NAMES else "")
        raise ExportError(
            f"{folder} holds files that no export wrote ({names}) and that would be lost: nothing was written. Move "
            "them away, or name another folder."
        )


def _make_readable(folder: Path) -> None:
    """Temporary folders and safetensors files are made so that only their owner may read them."""
    folder.chmod(_FOLDER_MODE)
    for path in folder.rglob("*"):
        path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ExportError(f"{path} is not JSON ({error}); name another folder, or empty this one.") from error
    return content if isinstance(content, dict) and isinstance(content.get("files"), list) else {}


def _file_names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
