"""GCompris for training: words and sentences with images, all but those that are held out for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xvlm2vec.common.captioned.gcompris import COUNTS, gcompris_folder, read_set

from .records import Entries, ReadOptions
from .tuxpaint import captioned_record, in_part


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """The words and sentences of the package's folder.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or is not of the form that is known.
    """
    for path in inputs:
        folder = gcompris_folder(path)
        for dataset in COUNTS:
            items, images = read_set(dataset, folder)
            for item in items:
                image = images[item.image]
                yield in_part(item, options.part) or captioned_record(
                    item, f"GCompris/{dataset}", str(image["path"]), image["bytes"]
                )
