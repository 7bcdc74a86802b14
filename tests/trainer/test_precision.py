"""bfloat16 only where it is native and faster, and the attention kernel that is fast with it."""

import pytest
import torch
from transformers import TrainingArguments

from xvlm2vec.trainer import precision
from xvlm2vec.trainer.precision import has_fast_bf16, training_attention, training_precision


@pytest.fixture
def machine(monkeypatch):
    """A machine with or without a GPU, with or without bfloat16 in its vector units, where it may be slower."""

    def pretend(gpu, gpu_bf16=False, capability="AVX2", cpu_bf16=False, wins=True):
        monkeypatch.setattr(precision, "bf16_wins", lambda: wins)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu_bf16)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": cpu_bf16})

    return pretend


@pytest.mark.parametrize(
    ("given", "fast"),
    [
        ({"gpu": False}, False),
        ({"gpu": False, "capability": "AVX2", "cpu_bf16": True}, False),
        ({"gpu": False, "capability": "AVX512", "cpu_bf16": False}, False),
        ({"gpu": False, "capability": "AVX512", "cpu_bf16": True}, True),
        ({"gpu": False, "capability": "AVX512", "cpu_bf16": True, "wins": False}, False),
        ({"gpu": True, "gpu_bf16": True}, True),
        ({"gpu": True, "gpu_bf16": False, "capability": "AVX512", "cpu_bf16": True}, False),
    ],
)
def test_bfloat16_is_used_where_the_device_in_use_has_it(machine, given, fast):
    machine(**given)
    assert has_fast_bf16() is fast
    assert training_precision() == {"bf16": fast, "use_cpu": not given["gpu"]}


@pytest.mark.parametrize(("bf16_seconds", "wins"), [(1.0, True), (3.0, False)])
def test_the_shortest_rounds_are_compared(monkeypatch, bf16_seconds, wins):
    busy = iter([9.0] * 4 + [1.0] * 20)  # beside another process, at first
    monkeypatch.setattr(precision, "mlp_seconds", lambda autocast: next(busy) * (bf16_seconds if autocast else 2.0))
    threads = torch.get_num_threads()
    assert precision.bf16_wins.__wrapped__() is wins
    assert torch.get_num_threads() == threads


def test_measuring_leaves_the_random_state_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert precision.bf16_wins.__wrapped__(rounds=1) in (True, False)
    assert precision.bf16_wins() is precision.bf16_wins()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_flags_are_understood_here(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", **training_precision())
    assert args.bf16 == has_fast_bf16()
    assert not args.fp16


@pytest.mark.parametrize(("fast", "kernel"), [(True, "eager"), (False, "sdpa")])
def test_attention_is_eager_only_with_bfloat16_on_a_cpu(monkeypatch, model, fast, kernel):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "has_fast_bf16", lambda: fast)
    model.set_attn_implementation("sdpa")
    training_attention(model)
    assert model.backbone.text_model.config._attn_implementation == kernel
