"""Text spreading: its closed forms, and which texts are not pushed apart."""

import pytest
import torch

from xvlm2vec.trainer.losses import PAIR_LOSSES, PairInfoNCELoss, SpreadingLoss, make_loss

COSINES = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])  # 0.8 and 0.6 between neighbours, 0 between the ends


def spread(query, positive=None, **more):
    positive = torch.eye(len(query), query.shape[1]) if positive is None else positive
    texts = torch.ones(len(query), dtype=torch.bool)
    inputs = {"query": query, "positive": positive, "query_is_text": texts, "positive_is_text": ~texts}
    return SpreadingLoss(more.pop("margin", 0.5))(**{**inputs, **more})


def test_each_text_counts_by_its_nearest_other_one_above_the_margin():
    assert spread(COSINES).item() == pytest.approx((0.3 + 0.3 + 0.1) / 3)
    assert spread(COSINES, margin=0.7).item() == pytest.approx(0.2 / 3)
    assert spread(COSINES * torch.tensor([[5.0], [1.0], [2.0]])).item() == pytest.approx(0.7 / 3)
    assert spread(COSINES, margin=0.9).item() == 0


def test_both_sides_count_and_rows_with_images_do_not():
    both = torch.ones(3, dtype=torch.bool)
    assert spread(COSINES, COSINES, positive_is_text=both).item() == pytest.approx(0.7 / 3)
    first_and_last = torch.tensor([True, False, True])
    assert spread(COSINES, query_is_text=first_and_last).item() == 0
    assert spread(COSINES, query_is_text=torch.tensor([True, True, False])).item() == pytest.approx(0.3)


def test_texts_of_pairs_that_share_a_side_are_not_pushed_apart():
    query = COSINES.clone().requires_grad_()
    together = torch.zeros(3, 5, dtype=torch.bool)
    together[0, 1] = together[1, 0] = True
    loss = spread(query, no_negative=together, no_query=torch.eye(3, dtype=torch.bool))
    assert loss.item() == pytest.approx((0 + 0.1 + 0.1) / 3)
    loss.backward()
    assert query.grad.abs().sum(dim=1).gt(1e-6).tolist() == [False, True, True]
    alone = spread(query, no_query=torch.ones(3, 3, dtype=torch.bool))
    alone.backward()
    assert alone.item() == 0


def test_it_is_pushed_along_by_a_loss_that_compares_pairs():
    texts = torch.tensor([True, True, False])
    inputs = {"query": torch.randn(3, 4), "positive": torch.randn(3, 4), "query_is_text": texts}
    inputs["positive_is_text"] = ~texts
    loss = make_loss("info-nce:2,spreading:0.5", losses=PAIR_LOSSES, temperature=0.2)
    expected = 2 * PairInfoNCELoss(0.2)(**inputs) + 0.5 * SpreadingLoss()(**inputs)
    torch.testing.assert_close(loss(**inputs), expected)
    with pytest.raises(ValueError, match=r"spreading:0.5 teaches nothing alone; .* info-nce:1,spreading:0.5"):
        make_loss("spreading:0.5", losses=PAIR_LOSSES, temperature=0.2)
    with pytest.raises(ValueError, match="margin=1 "):
        SpreadingLoss(1)
