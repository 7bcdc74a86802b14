"""Muon and AdamW as one optimizer: the same steps as the two of torch, one schedule, one state."""

import copy
import io

import pytest
import torch
from torch import nn

from xvlm2vec.trainer.optimizers import MuonAdamW, orthogonalise, split_parameters


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 4, bias=False))


def backward(model, seed):
    ids = torch.randint(0, 11, (5,), generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model(ids).square().mean().backward()


def make(model):
    return MuonAdamW(model, muon_lr=0.02, adamw_lr=0.003, weight_decay=0.1)


def test_steps_are_those_of_two_separate_optimizers():
    ours, theirs, start = network(), network(), network()
    optimizer = make(ours)
    muon = torch.optim.Muon(
        [theirs[1].weight, theirs[3].weight], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw", ns_steps=5
    )
    rest = [theirs[0].weight, theirs[1].bias, theirs[2].weight, theirs[2].bias]
    adamw = torch.optim.AdamW(rest, lr=0.003, weight_decay=0.1, betas=(0.9, 0.98))
    for step in range(4):
        backward(ours, step)
        backward(theirs, step)
        optimizer.step()
        muon.step()
        adamw.step()
        # torch orthogonalises in bfloat16, which moves small matrices by some percent, and from the second step on all
        for (name, mine), other, before in zip(
            ours.named_parameters(), theirs.parameters(), start.parameters(), strict=True
        ):
            tolerance = 1e-5 if step == 0 and name not in {"1.weight", "3.weight"} else 0.1
            assert (mine - other).norm() <= tolerance * (other - before).norm(), f"{name} after step {step}"
    assert not torch.equal(ours[1].weight, start[1].weight)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (32, 32)])
def test_an_orthogonalised_matrix_keeps_its_singular_vectors(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    coefficients = (3.4445, -4.775, 2.0315)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = sum(a * values**power for a, power in zip(coefficients, (1, 3, 5), strict=True))
    torch.testing.assert_close(
        orthogonalise(matrix, coefficients).double(), left @ values.diag() @ right, rtol=1e-4, atol=1e-4
    )


def test_every_trainable_parameter_is_in_one_part():
    model = network()
    model[0].weight.requires_grad_(False)
    matrices, rest = split_parameters(model)
    assert [id(p) for p in matrices] == [id(model[1].weight), id(model[3].weight)]
    assert {id(p) for p in rest} == {id(model[1].bias), id(model[2].weight), id(model[2].bias)}


def test_a_scheduler_moves_every_part():
    model = network()
    optimizer = make(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.0015]
    backward(model, 0)
    optimizer.step()
    scheduler.step()
    before = copy.deepcopy(model.state_dict())
    backward(model, 1)
    optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} moved at a rate of 0"


@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_restored_optimizer_takes_the_same_steps(steps_before):
    model = network()
    optimizer = make(model)
    for step in range(steps_before):
        backward(model, step)
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.007
    stored = io.BytesIO()
    torch.save(optimizer.state_dict(), stored)
    stored.seek(0)
    resumed = copy.deepcopy(model)
    restored = make(resumed)
    restored.load_state_dict(torch.load(stored, weights_only=True))
    assert restored.param_groups[0]["lr"] == 0.007
    for step in range(3, 6):
        for some_model, some_optimizer in ((model, optimizer), (resumed, restored)):
            backward(some_model, step)
            some_optimizer.step()
        for group in (*optimizer.param_groups, *restored.param_groups):
            group["lr"] *= 0.5  # a schedule must go on reaching the parts
    for mine, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_state_of_another_split_is_refused():
    optimizer = make(network())
    only_matrices = network().requires_grad_(False)
    only_matrices[1].weight.requires_grad_(True)
    with pytest.raises(ValueError, match="another split"):
        make(only_matrices).load_state_dict(optimizer.state_dict())


def test_gradients_are_cleared_in_every_part():
    model = network()
    optimizer = make(model)
    backward(model, 0)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_closure_is_called_once_and_its_loss_returned():
    model = network()
    calls = []

    def closure():
        backward(model, 0)
        calls.append(1)
        return 0.25

    assert make(model).step(closure) == 0.25
    assert len(calls) == 1


def test_a_model_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        make(network().requires_grad_(False))
