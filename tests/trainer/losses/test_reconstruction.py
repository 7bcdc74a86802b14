"""Reconstruction of a query's conditions: decoders refitted without each query, and what gets no gradient."""

import pytest
import torch
from torch.nn.functional import normalize

from xvlm2vec.trainer.losses import ReconstructionLoss


def refitted(query, targets, ridge):
    """What a ridge regression on all other queries lacks for each, fitted anew each time."""
    inputs = torch.cat([normalize(query, dim=1), torch.ones(len(query), 1, dtype=query.dtype)], dim=1)
    lacking = []
    for place in range(len(query)):
        rest = [other for other in range(len(query)) if other != place]
        penalty = ridge * torch.eye(inputs.shape[1], dtype=query.dtype)
        penalty[-1, -1] = 0  # the bias
        inside = inputs[rest].T @ inputs[rest] + penalty
        weights = torch.linalg.solve(inside, inputs[rest].T @ targets[rest])
        lacking.append((targets[place] - inputs[place] @ weights).square().sum())
    return torch.stack(lacking)


def test_it_is_what_decoders_fitted_to_the_other_queries_lack():
    query, texts, images = (torch.randn(count, 4, dtype=torch.float64) for count in (5, 3, 5))
    found = ReconstructionLoss(0.3)(
        query=query,
        condition=torch.cat([texts, images]),
        query_of_condition=torch.tensor([4, 0, 2, 0, 1, 1, 2, 4]),  # query 3 has none, query 1 has two images
        condition_is_text=torch.tensor([True] * 3 + [False] * 5),
    )
    texts, images = normalize(texts, dim=1), normalize(images, dim=1)
    by_text = refitted(query[[0, 2, 4]], texts[[1, 2, 0]], 0.3)
    both = (images[1] + images[2]) / 2
    by_image = refitted(query[[0, 1, 2, 4]], torch.stack([images[0], both, images[3], images[4]]), 0.3)
    torch.testing.assert_close(found, torch.cat([by_text, by_image]).mean())


def test_equal_conditions_cost_nothing_and_queries_that_tell_nothing_cost_most():
    condition, places = torch.eye(4), torch.arange(4)
    inputs = {"condition": condition, "query_of_condition": places, "condition_is_text": places < 0}
    blind = ReconstructionLoss()(query=torch.ones(4, 4), **inputs)
    assert blind.item() == pytest.approx(1 + 1 / 3)  # each is predicted as the mean of the three others
    alike = ReconstructionLoss()(query=torch.randn(4, 4), **{**inputs, "condition": torch.ones(4, 4)})
    assert alike.item() == pytest.approx(0, abs=1e-6)


def test_conditions_get_no_gradient_and_a_batch_without_any_adds_nothing():
    query, condition = (torch.randn(4, 6, requires_grad=True) for _ in range(2))
    inputs = {"query_of_condition": torch.arange(4), "condition_is_text": torch.ones(4, dtype=torch.bool)}
    ReconstructionLoss()(query=query, condition=condition, **inputs).backward()
    assert condition.grad is None
    assert query.grad.abs().sum(dim=1).gt(0).all()
    alone = {"query_of_condition": torch.tensor([2]), "condition_is_text": torch.tensor([True])}
    assert ReconstructionLoss()(query=query, condition=condition[:1], **alone).item() == 0
    nothing = ReconstructionLoss()(query=query)
    nothing.backward()
    assert nothing.item() == 0
    with pytest.raises(ValueError, match="needs query_of_condition and condition_is_text"):
        ReconstructionLoss()(query=query, condition=condition)
    with pytest.raises(ValueError, match="ridge=0 is not positive"):
        ReconstructionLoss(0)
