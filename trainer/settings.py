"""How the settings of a training say what they are."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, text: str, **metadata: Any) -> Any:
    """A field of a dataclass, with the text that `--help` shows.

    Args:
        default: The value where none is given.
        text: Says what the setting is.
        **metadata: What else the parser of the command line reads, such as `choices`.
    """
    return field(default=default, metadata={"help": text, **metadata})
