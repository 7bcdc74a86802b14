"""GCompris as retrieval in every language that has words or sentences."""

from __future__ import annotations

from collections.abc import Iterator

from xvlm2vec.common.captioned.gcompris import COUNTS, gcompris_folder, is_translated, read_set

from .localised import both_ways, parts
from .source import Source
from .task_rows import TaskRows


def gcompris(source: Source) -> Iterator[TaskRows]:
    """`words`: a word for each image; `sentences`: what the boards that explore animals, monuments and music say.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or is not of the form that is known.
    """
    try:
        folder = gcompris_folder(source.folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source.benchmark.name}: {error}") from error
    for dataset in COUNTS:
        items, images = read_set(dataset, folder)
        rule = is_translated if dataset == "words" else None
        for name, chosen in parts(source, dataset, items):
            yield from both_ways(source, name, f"{folder}: {name}", chosen, images, rule)
