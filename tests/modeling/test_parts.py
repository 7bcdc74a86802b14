"""Pooling, batches and rows, each by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from xvlm2vec.modeling.families import FAMILIES
from xvlm2vec.modeling.padding import pad_rows, split_rows, spread_rows
from xvlm2vec.modeling.pooling import last_token_index, pool, truncate_embeddings
from xvlm2vec.modeling.rows import TextImageRow, make_rows
from xvlm2vec.modeling.token_groups import split_prefix
from xvlm2vec.modeling.truncation import Prompt, cut_text

MASK = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]])


def test_last_token_on_either_side() -> None:
    assert last_token_index(MASK).tolist() == [1, 3, 3]


def test_pools() -> None:
    hidden = torch.arange(24, dtype=torch.float32).view(3, 4, 2)
    assert pool(hidden, MASK, "lasttoken").tolist() == [[2, 3], [14, 15], [22, 23]]
    assert pool(hidden, MASK, "mean").tolist() == [[1, 2], [12, 13], [19, 20]]


def test_mean_is_taken_in_float32() -> None:
    hidden = torch.full((1, 4096, 1), 0.1, dtype=torch.bfloat16)
    mean = pool(hidden, torch.ones(1, 4096), "mean")
    assert mean.dtype == torch.bfloat16
    assert mean.item() == hidden[0, 0, 0].item()


@pytest.mark.parametrize("side", ["left", "right"])
def test_split_and_pad_are_inverse(side: str) -> None:
    rows = [{"input_ids": torch.tensor(ids), "types": torch.tensor(ids) + 100} for ids in ([1], [2, 3, 4], [5, 6])]
    batch = pad_rows(rows, pad_id=9, side=side)
    assert batch["input_ids"].shape == (3, 3)
    assert batch["input_ids"][0].tolist() == ([9, 9, 1] if side == "left" else [1, 9, 9])
    assert batch["types"][0].tolist() == ([0, 0, 101] if side == "left" else [101, 0, 0])
    again = split_rows(batch, ["input_ids", "types"])
    assert [[row[name].tolist() for name in row] for row in again] == [[row[n].tolist() for n in row] for row in rows]


def test_pad_widths() -> None:
    rows = [{"input_ids": torch.ones(5, dtype=torch.long)}]
    assert pad_rows(rows, 0, "left", width=7)["input_ids"].shape == (1, 7)
    assert pad_rows(rows, 0, "left", multiple=8)["input_ids"].shape == (1, 8)
    assert pad_rows(rows, 0, "left", width=9, multiple=8)["attention_mask"].sum() == 5


def test_inputs_that_some_rows_lack_are_zero_there() -> None:
    rows = [{"input_ids": torch.tensor([1, 2])}, {"input_ids": torch.tensor([3]), "types": torch.tensor([7])}]
    assert pad_rows(rows, 0, "right")["types"].tolist() == [[0, 0], [7, 0]]


def test_spread_rows() -> None:
    assert spread_rows(torch.tensor([[1.0], [2.0]]), [0, 2], 4).tolist() == [[1], [0], [2], [0]]


def test_a_prefix_is_told_only_from_a_tail_that_fits() -> None:
    assert split_prefix([1, 2, 3, 4], [3, 4]) == [1, 2]
    assert split_prefix([1, 2, 3, 4], [2, 4]) is None
    assert split_prefix([1, 2], []) is None


def test_cut_vectors() -> None:
    vectors = torch.tensor([[3.0, 4.0, 5.0]])
    assert torch.allclose(truncate_embeddings(vectors, 2, normalized=True), torch.tensor([[0.6, 0.8]]))
    assert truncate_embeddings(vectors, 2, normalized=False).tolist() == [[3, 4]]
    for dim in (0, 4):
        with pytest.raises(ValueError, match=f"dim={dim} does not fit vectors of 3 values"):
            truncate_embeddings(vectors, dim, normalized=True)


def test_rows() -> None:
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    assert make_rows("a", None) == ([TextImageRow("a")], True)
    assert make_rows(["a", "b"], None, "do: ") == (
        [TextImageRow("a", (), "do: "), TextImageRow("b", (), "do: ")],
        False,
    )
    rows, single = make_rows(None, [image, [image, None]])
    assert not single
    assert [len(row.images) for row in rows] == [1, 1]
    rows, single = make_rows("a", [image, image])
    assert single
    assert len(rows[0].images) == 2
    assert make_rows([], None) == ([], False)


def test_rows_from_the_columns_of_a_data_set() -> None:
    data = Dataset.from_dict({"text": ["a", "b"], "image": ["x.png", None]})
    rows, single = make_rows(data["text"], data["image"])
    assert not single
    assert rows == [TextImageRow("a", ("x.png",)), TextImageRow("b")]


class Letters:
    """A fast tokenizer of one token a letter."""

    is_fast = True

    def __call__(self, text: str, **_: object) -> dict[str, list]:
        return {
            "input_ids": [ord(letter) for letter in text],
            "offset_mapping": [(index, index + 1) for index in range(len(text))],
        }


def letters(text: str) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor([ord(letter) for letter in text])}


def spell(row: dict[str, torch.Tensor]) -> str:
    return "".join(map(chr, row["input_ids"].tolist()))


@pytest.mark.parametrize(
    ("row", "prompt", "limit", "kept"),
    [
        ("say: abcdef", Prompt("say: abcdef", 5, 11), 8, "say: abf"),
        ("say: abcdef", Prompt("say: abcdef", 5, 11), 6, "say: f"),
        ("say: abcdef", Prompt("say: abcdef", 5, 11), 11, "say: abcdef"),
        ("IIIIabcdef.", Prompt("Iabcdef.", 1, 7), 7, "IIIIab."),
        ("IIIIabcdef.", Prompt("Iabcdef.", 1, 7), 5, "IIII."),
    ],
)
def test_cut_text(row: str, prompt: Prompt, limit: int, kept: str) -> None:
    assert spell(cut_text(letters(row), prompt, Letters(), limit, "row 0")) == kept


def test_cut_text_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"row 7: images, instruction and the last token take 5 tokens .* is 4;"):
        cut_text(letters("IIIIabcdef."), Prompt("Iabcdef.", 1, 7), Letters(), 4, "row 7")
    with pytest.raises(ValueError, match="take 4 tokens"):
        cut_text(letters("IIII"), Prompt("I", 1, 1), Letters(), 2, "row 0")


def test_cut_text_needs_a_fast_tokenizer() -> None:
    slow = Letters()
    slow.is_fast = False
    with pytest.raises(ValueError, match="Letters does not tell where its tokens lie"):
        cut_text(letters("abc"), Prompt("abc", 0, 3), slow, 2, "row 0")


def test_guide_names_every_family() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    assert not [name for name in FAMILIES if f"`{name}`" not in guide]
