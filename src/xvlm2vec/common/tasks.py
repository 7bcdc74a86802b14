"""What tasks are called, wherever a person reads it."""

from collections.abc import Mapping
from types import MappingProxyType

TASK_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "c": "Classification",
        "i2t": "Image to text",
        "t2i": "Text to image",
        "vqa": "Visual question answering",
        "vg": "Visual grounding",
        "withheld": "Classification of withheld concepts",
    }
)

MEAN_TASKS = ("c", "i2t", "t2i", "vg")
"""Tasks whose mean stands for a language."""


def task_title(task: str) -> str:
    """The title of a task; its own name where it has none."""
    return TASK_TITLES.get(task, task)
