"""InfoNCE over pairs: its value, what hard negatives add, and what is left out."""

from math import exp, log

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from xvlm2vec.trainer.losses import PairInfoNCELoss


@pytest.fixture
def vectors():
    return [normalize(torch.randn(count, 8), dim=1) for count in (4, 4, 3)]


def test_equal_vectors_give_the_logarithm_of_the_candidates():
    same = torch.ones(6, 3)
    assert PairInfoNCELoss()(query=same, positive=same).item() == pytest.approx(log(6))
    with_negatives = PairInfoNCELoss()(query=same, positive=same, negative=torch.ones(2, 3)).item()
    assert with_negatives == pytest.approx((log(8) + log(6)) / 2)


def test_it_is_the_mean_of_both_directions(vectors):
    query, positive, negative = vectors
    own = torch.arange(4)
    forth = cross_entropy(query @ torch.cat([positive, negative]).T / 0.1, own)
    back = cross_entropy(positive @ query.T / 0.1, own)
    loss = PairInfoNCELoss(0.1)(query=query, positive=positive, negative=negative)
    assert loss.item() == pytest.approx((forth + back).item() / 2)


def test_what_is_left_out_is_not_in_the_sum_and_a_positive_always_is():
    query, positive = torch.eye(2), torch.eye(2)
    everything = torch.ones(2, 2, dtype=torch.bool)
    assert PairInfoNCELoss(1.0)(query=query, positive=positive).item() == pytest.approx(log(1 + exp(-1)))
    masked = PairInfoNCELoss(1.0)(query=query, positive=positive, no_negative=everything, no_query=everything)
    assert masked.item() == pytest.approx(0)


def test_hard_negatives_and_left_out_candidates_get_the_gradients_that_they_should(vectors):
    query, positive, negative = (part.requires_grad_() for part in vectors)
    left_out = torch.zeros(4, 7, dtype=torch.bool)
    left_out[:, 5] = True
    PairInfoNCELoss()(query=query, positive=positive, negative=negative, no_negative=left_out).backward()
    assert (negative.grad.abs().sum(dim=1) > 0).tolist() == [True, False, True]


def test_vectors_of_other_shapes_are_refused(vectors):
    with pytest.raises(ValueError, match="PairInfoNCELoss compares vectors"):
        PairInfoNCELoss()(query=vectors[0], positive=vectors[1][:3])
