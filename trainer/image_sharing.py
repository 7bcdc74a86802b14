"""How the texts of a row share their image: what a backbone allows, found out by comparing vectors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset, Image
from torch import nn

from xvlm2vec.common.texts import is_blank, with_text
from xvlm2vec.modeling.packing import check_sharing, packing_blocker, use_tree
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.rows import TextImageRow, make_rows

from .collators import checked_row, text_row
from .forward_passes import Passes

logger = logging.getLogger(__name__)

SAMPLE = 64
"""Rows at the start of a corpus, and again spread over it, in which one with an image is looked for."""
CHUNK = 256
"""Rows of a stored corpus whose column of images is looked at, undecoded, at a time."""
WAYS = {"auto": ("tree", "dense"), "tree": ("tree",), "dense": ("dense",), "off": ()}
"""What each value of the setting `sharing` tries, in this order, before each text is passed whole."""


class DensePacks(nn.Module):
    """A model whose packs run one masked attention over all tokens: slower, but no decomposition to be wrong.

    Args:
        model: An `XVLM2VecModel`, or a model around one.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        """Takes and gives what the model does."""
        return self.model(**inputs, dense=True) if "pack" in inputs else self.model(**inputs)


def sharing_blocker(way: str, model: nn.Module, processor: XVLM2VecProcessor, sample: Sequence[TextImageRow]) -> str:
    """What keeps the texts of a row from sharing their image in one way; empty if nothing does.

    Args:
        way: `"tree"` or `"dense"`.
        model: An `XVLM2VecModel`, or a model around one.
        processor: Its processor.
        sample: Texts of one row with its image; without any, only the configuration is asked.
    """
    reason = packing_blocker(model, training=True)
    if reason or not sample:
        return reason
    processor.prepare(sample)  # what is wrong with the rows themselves is an error, no reason
    tried = model if way == "tree" else DensePacks(model).train(model.training)
    return check_sharing(tried, processor, sample, training=True).reason


def choose_way(
    setting: str,
    model: nn.Module,
    processor: XVLM2VecProcessor,
    sample: Sequence[TextImageRow],
    with_images: bool = True,
) -> str | None:
    """The first way that is right for rows, in all processes alike; `None` if each text is to be passed whole.

    Why a way is not taken is logged, as a warning where images then cost time.

    Args:
        setting: A key of `WAYS`.
        model: An `XVLM2VecModel`, or a model around one.
        processor: Its processor.
        sample: As for `sharing_blocker`.
        with_images: Whether texts are embedded with their images.
    """
    reason = ""
    for way in WAYS[setting]:
        reason = broadcast_object_list([sharing_blocker(way, model, processor, sample)])[0]
        if not reason:
            return way
        if with_images:
            logger.warning("Images cannot be shared by the %s attention: %s.", way, reason)
    if setting != "off" and not with_images:
        logger.info("Each text is passed whole: %s.", reason)
    elif setting != "off":
        logger.warning("Each text is passed whole, with its image, which is slower: %s.", reason)
    return None


def share_images(
    setting: str,
    model: nn.Module,
    passes: Passes,
    processor: XVLM2VecProcessor,
    row: dict[str, Any] | None,
    with_images: bool = True,
) -> bool:
    """Sets a model up for the first way that is right for a row; whether there is one.

    Args:
        setting: A key of `WAYS`.
        model: Its backbone gets the attention of packs.
        passes: Run the model.
        processor: Its processor.
        row: A row of a parallel corpus; without one, only the configuration is asked.
        with_images: Whether texts are embedded with their images.
    """
    sample = texts_of(row, with_images) if row is not None else []
    way = choose_way(setting, model, processor, sample, with_images)
    passes.dense = way == "dense"
    if way is not None:
        use_tree(passes.embedder.backbone)
    return way is not None


def sample_row(corpora: Sequence[Any], thorough: bool) -> dict[str, Any] | None:
    """A row with an image, or the first row where none is found; `None` where there are no rows.

    Args:
        corpora: Each a `datasets.Dataset` or `IterableDataset`.
        thorough: Whether all rows may be read that are made when they are read; else some are.
    """
    for rows in corpora:
        with_image = next((row for row in candidates(rows, thorough) if row.get("image") is not None), None)
        if with_image is not None:
            return with_image
    return next((row for rows in corpora for row in islice(iter(rows), 1)), None)


def candidates(rows: Any, thorough: bool) -> Iterator[dict[str, Any]]:
    """Rows of a corpus that may have an image.

    Of a stored column of images it is known which rows those are; rows that are made when they are read (a transform,
    a stream) are tried.
    """
    if stores_images(rows):
        yield from (rows[place] for place in islice(image_places(rows), SAMPLE))
    elif thorough and isinstance(rows, Dataset):
        yield from iter(rows)
    else:
        yield from islice(iter(rows), SAMPLE)
        if isinstance(rows, Dataset):
            yield from (rows[place] for place in range(SAMPLE, len(rows), max(len(rows) // SAMPLE, 1)))


def stores_images(rows: Any) -> bool:
    """Whether the images of a corpus lie in a column of their own."""
    return isinstance(rows, Dataset) and isinstance((rows.features or {}).get("image"), Image)


def image_places(rows: Dataset, columns: Sequence[str] = ("image",)) -> Iterator[int]:
    """The numbers of the rows that have an image in one of these columns; none is decoded."""
    stored = rows.with_format("arrow").select_columns(list(columns))
    for start in range(0, len(stored), CHUNK):
        part = stored[start : start + CHUNK]
        valid = zip(*(part[name].is_valid().to_pylist() for name in columns), strict=True)
        yield from (start + place for place, there in enumerate(valid) if any(there))


def texts_of(row: dict[str, Any], with_images: bool = True) -> list[TextImageRow]:
    """The English text and some translations of a row, with its image if they are embedded with it."""
    row = checked_row(row) if with_images else text_row(row)
    texts = [row["text_en"], *[item["text"] for item in with_text(row["translations"])[:2]]]
    if row["image"] is None:
        texts = [text for text in texts if not is_blank(text)]
    return make_rows(texts, [row["image"]] * len(texts))[0]
