"""A benchmark in the row form of MMMEB, before it is evaluated or exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


@dataclass(frozen=True)
class Benchmark:
    """Tasks in several languages, and the images that their rows name.

    Attributes:
        tasks: By task a data set per language; row i shows the same image in each, and the first candidate is right.
        images: `path`, as the rows name them, and `image`.
        templates: The instructions, `{task: {language: {"query", "target"}}}`.
    """

    tasks: dict[str, DatasetDict]
    images: Dataset
    templates: dict[str, dict[str, dict[str, str]]]
