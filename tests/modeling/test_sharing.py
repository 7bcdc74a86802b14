"""Rows over a shared prefix have the vectors that they have alone, for every family that shares one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling import encoding
from xvlm2vec.modeling.sharing import share_rows, split_prefix

FAMILIES = ["llava_next-llama", "llava_next-mistral", "smolvlm", "idefics3"]
TEXTS = ["a red bicycle", "ein rotes Fahrrad lehnt an der Wand der alten Bäckerei", "自転車", "query"]


@pytest.mark.parametrize("family", FAMILIES)
def test_several_texts_on_one_picture(
    family: str, checkpoint: Callable[[str], Path], pictures: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(family)
    model, processor = XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)
    texts = [*TEXTS, *TEXTS, *TEXTS[:2], "alone", "text only"]
    images = [*[pictures[0]] * 4, *[pictures[1]] * 4, *[pictures[2:4]] * 2, pictures[1:4], None]
    shared: list[int] = []
    whole = encoding.embed_shared
    monkeypatch.setattr(
        encoding, "embed_shared", lambda m, rows, pad: shared.append(len(rows.tails)) or whole(m, rows, pad)
    )
    together = model.encode(text=texts, images=images, processor=processor)
    assert sum(shared) == 10, "the rows of three pictures went another way"
    alone = [model.encode(text=[t], images=[i], processor=processor)[0] for t, i in zip(texts, images, strict=True)]
    assert sum(shared) == 10, "a row alone has nothing to share"
    assert 1 - (together * np.stack(alone)).sum(axis=1).min() < 1e-5
    in_parts = model.encode(text=texts, images=images, processor=processor, max_tokens_per_batch=1)
    assert 1 - (in_parts * np.stack(alone)).sum(axis=1).min() < 1e-5


def test_a_row_that_is_too_long_is_cut_as_ever(checkpoint: Callable[[str], Path], pictures: list[Any]) -> None:
    folder = checkpoint("idefics3")
    model, processor = XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)
    processor.max_length = 90
    texts = ["short", "long " * 200]
    rows = [encoding.TextImageRow(text, (pictures[0],)) for text in texts]
    assert share_rows(processor, [rows], [0]) is None
    with pytest.warns(UserWarning, match="1 of 2 rows were cut"):
        together = model.encode(text=texts, images=[pictures[0]] * 2, processor=processor)
    alone = model.encode(text=[texts[0]], images=[pictures[0]], processor=processor)
    assert 1 - float(together[0] @ alone[0]) < 1e-5


def test_a_prefix_is_told_only_from_a_tail_that_fits() -> None:
    assert split_prefix([1, 2, 3, 4], [3, 4]) == [1, 2]
    assert split_prefix([1, 2, 3, 4], [2, 4]) is None
    assert split_prefix([1, 2], []) is None
