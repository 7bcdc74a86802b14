"""Small files of a model, in a folder or on the Hub, and the arguments that say where on the Hub they lie."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.utils import extract_commit_hash

from .hub_ids import is_path
from .loading import CheckpointError

HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def hub_kwargs(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments of a `from_pretrained` that say where on the Hub files lie, and how they are fetched."""
    return {key: options[key] for key in HUB_KEYS if options.get(key) is not None}


def pinned(source: str | os.PathLike[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """`hub_kwargs`, with the commit of a Hub id as the revision, so that later files come from the same commit."""
    hub = hub_kwargs(options)
    commit = None if is_path(source) else extract_commit_hash(str(find_file(source, "config.json", hub)), None)
    return hub | ({"revision": commit} if commit else {})


def find_file(source: str | os.PathLike[str], name: str, hub: Mapping[str, Any] | None = None) -> Path | None:
    """A file of a folder or Hub id, downloaded if need be; `None` if there is no such file.

    Args:
        source: Folder or Hub id.
        name: The file's name.
        hub: What `hub_kwargs` gives.

    Raises:
        FileNotFoundError: There is no such folder, repository or revision.
        OSError: The Hub cannot be reached, and the repository was not downloaded before.
    """
    options, place = dict(hub or {}), os.fspath(source)
    if is_path(source):
        if not Path(source).is_dir():
            raise FileNotFoundError(f"there is no folder {place}.")
        path = Path(source, options.get("subfolder") or "", name)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(place, name, **options))
    except LocalEntryNotFoundError as error:
        if _was_downloaded(place, options):
            return None
        raise OSError(f"{place} is no folder here, and the Hub cannot be reached to look for it.") from error
    except EntryNotFoundError:
        return None
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{place} has no revision {options.get('revision')} on the Hub.") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(f"{place} is neither a folder here nor a repository on the Hub.") from error


def _was_downloaded(source: str, options: Mapping[str, Any]) -> bool:
    """Whether the cache has some files of a repository, so that one that it lacks is no part of it."""
    where = {key: options[key] for key in ("cache_dir", "revision") if key in options}
    try:
        snapshot_download(source, local_files_only=True, **where)
    except LocalEntryNotFoundError:
        return False
    return True


def read_json(source: str | os.PathLike[str], name: str, hub: Mapping[str, Any] | None = None) -> Any:
    """The content of a JSON file of a folder or Hub id; `{}` if there is no such file.

    Raises:
        OSError: As for `find_file`.
        CheckpointError: The file is no JSON.
    """
    path = find_file(source, name, hub)
    if path is None:
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no valid JSON: {error}") from error
