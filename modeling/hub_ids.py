"""Tells Hub ids from paths, in one place."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id


def is_path(source: str | os.PathLike[str]) -> bool:
    """Whether a name can only be meant as a path: something is there, it is spelled as a path, or is no Hub id.

    Args:
        source: What a user calls a model or a data set, such as `"gpt2"`, `"org/name"`, `"runs/a/student"`, `"./x"`.
    """
    return isinstance(source, Path) or os.path.exists(source) or not is_hub_id(os.fspath(source))


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a Hub id: `"name"` or `"owner/name"`, as `huggingface_hub` takes them.

    What lies on this machine is not looked at: `is_path` does that, and is to be asked where a folder may be meant.
    """
    if name.startswith((".", "~", "/", os.sep)) or name.endswith("/"):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
