"""Whether the rows of contrastive batches may share packs and images: asked of the model on a row of the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from datasets import Dataset, Image, List
from sentence_transformers import SentenceTransformer

from xvlm2vec.common.columns import IMAGE_COLUMNS
from xvlm2vec.common.pairs import read_pair
from xvlm2vec.common.texts import is_blank
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import rope_limit_of, takes_bare_images, use_tree
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.rows import TextImageRow

from .contrastive_config import ContrastiveConfig
from .image_sharing import SAMPLE, choose_way, image_places
from .pair_packs import PairPacker
from .precision import eager_is_faster

logger = logging.getLogger(__name__)

TEXTS = 4
"""Texts on one image with which sharing is tried."""


def pair_packer(
    args: ContrastiveConfig, embedder: SentenceTransformer, data: Sequence[Dataset], prompts: Mapping[str, str]
) -> PairPacker | None:
    """Sets a model up for packs, if they give its rows the vectors that these have alone; why not is logged.

    Args:
        args: The settings.
        embedder: The model.
        data: Data sets of pairs.
        prompts: Instructions by the names that the column `task` may hold.

    Returns:
        What packs sides; `None` where each row is to be passed whole.
    """
    model = embedder.transformers_model
    processor = getattr(embedder[0], "processor", None)
    if args.sharing == "off" or not (isinstance(model, XVLM2VecModel) and isinstance(processor, XVLM2VecProcessor)):
        return None
    reason = _settings_blocker(args, embedder)
    if reason:
        logger.info("Each row is passed whole: %s.", reason)
        return None
    sample = sample_texts(data, prompts)
    with_images = any(row.images for row in sample)
    bare = with_images and takes_bare_images(processor, sample[0].images)
    if bare:
        sample = [*(row for row in sample if row.text), TextImageRow("", sample[0].images)]
    way = choose_way(args.sharing, model, processor, sample, with_images and not model.config.two_towers)
    if way is None:
        return None
    use_tree(model.backbone)
    return PairPacker(processor, with_images, bare, rope_limit_of(model.backbone.config), way == "dense")


def _settings_blocker(args: ContrastiveConfig, embedder: SentenceTransformer) -> str:
    """What of the settings, here or of sentence-transformers, goes with whole rows only; empty if nothing."""
    if args.deepspeed:
        return "the processes that weights are divided among must take as many passes, whatever their images"
    if args.sharing == "auto" and args.bf16 and eager_is_faster():
        return "packs need the fused attention kernel, slow in bfloat16 on CPUs; sharing='tree' takes it nevertheless"
    if args.prompts or set(getattr(embedder[0], "processing_kwargs", ())) - {"chat_template"}:
        return "sentence-transformers is told to prepare rows in another way"
    return ""


def sample_texts(data: Sequence[Dataset], prompts: Mapping[str, str]) -> list[TextImageRow]:
    """Texts of a pair on its image, those of a pair without one where no image is found."""
    without: list[TextImageRow] = []
    for rows in data:
        for place in _places(rows):
            try:
                pair = read_pair(rows[place], f"Row {place}", prompts)
            except ValueError:
                continue  # who makes batches tells it, with the number of the row there
            sides = (pair.query, pair.positive, *pair.negatives)
            shown = next((side for side in sides if side.images), None)
            if shown is not None:
                texts = [text for text in dict.fromkeys(side.text for side in sides) if not is_blank(text)]
                return [replace(shown, text=text) for text in texts[:TEXTS] or [""]]
            without = without or list(sides[:TEXTS])
    return without


def _places(rows: Dataset) -> Iterator[int]:
    """Numbers of rows that may have an image, then of some others; of stored images none is decoded for it."""
    stored = [name for name in IMAGE_COLUMNS if (rows.features or {}).get(name) in (Image(), List(Image()))]
    if stored and rows.format["type"] is None:
        for number, place in enumerate(image_places(rows, stored)):
            if number == SAMPLE:
                break
            yield place
    yield from range(min(SAMPLE, len(rows)))
    yield from range(SAMPLE, len(rows), max(len(rows) // SAMPLE, 1))
