"""The sigmoid loss of pairs: its closed forms, hard negatives, and what is left out."""

from math import exp, log1p

import pytest
import torch

from xvlm2vec.trainer.losses import PAIR_LOSSES, LossSum, PairInfoNCELoss, SigmoidLoss, make_loss


def softplus(value):
    return log1p(exp(value))


def test_vectors_at_right_angles_give_what_the_bias_says():
    query, positive = torch.eye(4)[:2], torch.eye(4)[2:]
    loss = SigmoidLoss(0.1, bias=-10.0)(query=query, positive=positive)
    assert loss.item() == pytest.approx(softplus(10) + softplus(-10))


def test_each_pair_counts_by_itself():
    query = torch.eye(3)
    loss = SigmoidLoss(0.5, bias=-1.0)
    parts = softplus(-1) + 2 * softplus(-1)  # cosine 1 over 0.5 less 1 of the own pair, and -1 of two others
    assert loss(query=query, positive=query).item() == pytest.approx(parts)
    one_more = loss(query=query, positive=query, negative=query[:1]).item()
    assert one_more == pytest.approx(parts + (softplus(1) + 2 * softplus(-1)) / 3)  # it equals the first query


def test_what_is_left_out_adds_nothing_and_gets_no_gradient():
    query = torch.eye(3)
    negative = torch.randn(2, 3, requires_grad=True)
    left_out = torch.ones(3, 5, dtype=torch.bool)
    loss = SigmoidLoss(0.5, bias=-1.0)(query=query, positive=query, negative=negative, no_negative=left_out)
    loss.backward()
    assert loss.item() == pytest.approx(softplus(-1))
    assert not negative.grad.any()


def test_it_can_be_weighed_against_another_loss():
    loss = make_loss("info-nce,sigmoid:0.5", losses=PAIR_LOSSES, temperature=0.2)
    assert isinstance(loss, LossSum)
    vectors = {"query": torch.randn(4, 8), "positive": torch.randn(4, 8)}
    expected = PairInfoNCELoss(0.2)(**vectors) + 0.5 * SigmoidLoss(0.2)(**vectors)
    torch.testing.assert_close(loss(**vectors), expected)
