"""Attention on a CPU is torch's own, whichever way it is computed, with the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from xvlm2vec.modeling.causal_attention import sdpa

SIZES = [(9, 3, 7, 7), (4, 4, 5, 9), (8, 2, 6, 50)]
"""Heads, heads of keys, queries, keys: the last row is longer than twice its states are wide."""


def states(heads: int, key_heads: int, queries: int, keys: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = ((heads, queries), (key_heads, keys), (key_heads, keys))
    return [torch.randn(3, *shape, 16, dtype=dtype, requires_grad=True) for shape in shapes]


def masks(queries: int, keys: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    found = [torch.rand(queries, keys) > 0.3, torch.rand(3, 1, queries, keys) > 0.3]
    for mask in found:
        mask[..., 0] = True
    return found


@pytest.mark.parametrize(("heads", "key_heads", "queries", "keys"), SIZES)
@pytest.mark.parametrize("kind", ["causal", "mask", "mask of each row", "scale"])
def test_outputs_and_gradients_are_torchs(heads: int, key_heads: int, queries: int, keys: int, kind: str) -> None:
    shared, own = masks(queries, keys)
    settings = {
        "causal": {"is_causal": True},
        "mask": {"attn_mask": shared},
        "mask of each row": {"attn_mask": own},
        "scale": {"scale": 0.3},
    }[kind]
    given = states(heads, key_heads, queries, keys, torch.float32)
    results = [
        function(*given, enable_gqa=heads > key_heads, **settings) for function in (sdpa, scaled_dot_product_attention)
    ]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(result.square().sum(), given) for result in results))


@pytest.mark.parametrize("gradient", [True, False])
def test_few_bits_are_computed_in_many_and_given_back(gradient: bool) -> None:
    """The kernel rounds between its products; this rounds once, at the end, also under autocast."""
    given = [part.detach().requires_grad_(gradient) for part in states(9, 3, 7, 7, torch.bfloat16)]
    exact = scaled_dot_product_attention(*(part.float() for part in given), is_causal=True, enable_gqa=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = sdpa(*given, is_causal=True, enable_gqa=True)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.to(torch.bfloat16), rtol=2**-8, atol=1e-6)


def test_autocast_may_leave_states_in_different_formats() -> None:
    """Positions turn queries and keys in float32 where values stay as the layer made them, in bfloat16."""
    query, key, value = states(4, 4, 7, 7, torch.float32)
    mixed = value.detach().to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = sdpa(query, key, mixed, is_causal=True)
    expected = scaled_dot_product_attention(query, key, mixed.float(), is_causal=True)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert mixed.grad is not None


def test_dropout_is_left_to_the_kernel() -> None:
    given = states(4, 4, 5, 9, torch.float32)
    torch.manual_seed(0)
    first = sdpa(*given, dropout_p=0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(first, scaled_dot_product_attention(*given, dropout_p=0.5))
