"""Multi30k, task 1: English captions of Flickr30k's images and their translations into German, French and Czech."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xvlm2vec.common.files import files_below
from xvlm2vec.corpus.rows import ENGLISH

from .parallel_lines import read_parallel
from .records import Entries, ReadOptions

_TASK, _RAW, _SPLITS = "data/task1", "raw", "image_splits"
_FILE = re.compile(r"([^.]+)\.([a-z]{2,3})(?:\.gz)?")


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """The lines of some splits (`train` by default), each with its image's name if that is known.

    Raises:
        FileNotFoundError: The folder is no copy of the data set, or lacks a split.
    """
    for folder in inputs:
        task = folder / _TASK if (folder / _TASK).is_dir() else folder
        for split in options.splits or ("train",):
            files = _files(task / _RAW, split)
            if ENGLISH not in files:
                raise FileNotFoundError(f"there is no file {task / _RAW / split}.en.gz; pass a copy of the repository "
                                        "multi30k/dataset, or its folder data/task1")  # fmt: skip
            yield from read_parallel(files, _image_names(task / _SPLITS, split), f"Multi30k/{split}")


def _files(folder: Path, split: str) -> dict[str, Path]:
    """The files of a split by language."""
    matches = ((path, _FILE.fullmatch(path.name)) for path in files_below(folder, f"{split}.*"))
    return {match[2]: path for path, match in matches if match and match[1] == split}


def _image_names(folder: Path, split: str) -> Path | None:
    return next((path for name in (split, f"{split}_images") if (path := folder / f"{name}.txt").is_file()), None)
