"""Recurrent layers in packs: each text goes on from the states of its prefix, as if it had been read with it."""

from __future__ import annotations

import copy
import importlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from xvlm2vec import XVLM2VecConfig, XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling import families, state_forks
from xvlm2vec.modeling.activated import Routes, acting, current_routes
from xvlm2vec.modeling.language_adapters import DEFAULT
from xvlm2vec.modeling.packing import PrefixStates, TokenGroup, check_sharing, packing_blocker
from xvlm2vec.modeling.rows import TextImageRow
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4} | {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 16}
CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen3_5": lambda: transformers.Qwen3_5TextConfig(
        **SIZES | DELTA, num_hidden_layers=4, layer_types=["linear_attention"] * 3 + ["full_attention"]
    ),
    "lfm2": lambda: transformers.Lfm2Config(
        **SIZES, num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"]
    ),
    "lfm3": lambda: transformers.Lfm3Config(
        **SIZES, num_hidden_layers=3, sliding_window=9, layer_types=["conv", "sliding_attention", "conv"]
    ),
    "nemotron_h": lambda: transformers.NemotronHConfig(
        **SIZES | MAMBA, layers_block_type=["linear_attention", "mlp", "full_attention", "linear_attention"]
    ),
}
TEXTS = ["a red bicycle", "ein rotes Fahrrad lehnt an der Wand der alten Bäckerei", "自転車", "query"]


def make_model(name: str, dtype: torch.dtype = torch.float32) -> XVLM2VecModel:
    """A language model whose weights are far larger than training starts with."""
    torch.manual_seed(0)
    backbone = transformers.AutoModel.from_config(CONFIGS[name]())
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight.flatten(1).shape[1] ** -0.5)
    return XVLM2VecModel(XVLM2VecConfig(vlm_config=backbone.config, normalize=False), backbone=backbone.to(dtype))


def make_groups() -> list[TokenGroup]:
    """Prefixes longer than a chunk, two of one length, shorter than a convolution, none; texts of 1 to 70 tokens."""
    generator = torch.Generator().manual_seed(1)

    def ids(count: int) -> list[int]:
        return torch.randint(3, 64, (count,), generator=generator).tolist()

    long = [TokenGroup(ids(70), [ids(9), ids(1), ids(2), ids(24), ids(70)]) for _ in range(2)]
    short = [TokenGroup(ids(prefix), [ids(3), ids(1)]) for prefix in (1, 2, 5)]
    return [*long, *short, TokenGroup([], [ids(1), ids(30)])]


def alone(model: Any, groups: Sequence[TokenGroup]) -> torch.Tensor:
    rows = [torch.tensor([group.prefix + text]) for group in groups for text in group.texts]
    return torch.cat([model(input_ids=row, attention_mask=torch.ones_like(row)).pooler_output for row in rows])


def together(model: Any, groups: Sequence[TokenGroup], budget: int = 10_000) -> torch.Tensor:
    packs = model.pack(groups, budget)
    found = torch.cat([model(pack=pack).pooler_output for pack in packs])
    return found[torch.tensor([row for pack in packs for row in pack.rows]).argsort()]


def gradient(model: Any, vectors: torch.Tensor) -> torch.Tensor:
    """Of a number that depends on every value of every vector, all weights on end."""
    weights = torch.linspace(-1, 1, vectors.numel(), dtype=vectors.dtype).cos().view_as(vectors)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad((vectors * weights).sum(), trained, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("budget", [10_000, 120])
@pytest.mark.parametrize("name", CONFIGS)
def test_vectors_and_gradients_through_the_layers_own_kernels(name: str, budget: int) -> None:
    model, groups = make_model(name), make_groups()
    assert not packing_blocker(model)
    expected, found = alone(model, groups), together(model, groups, budget)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    # Rounding of float32, which differs between processors (0.5e-5 to 1.4e-5 seen); a test below is in float64.
    assert apart(gradient(model, found), gradient(model, expected)) < 5e-5


class InDouble:
    """torch, for a module of transformers that is to compute in float64 what it casts to float32."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def delta_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The recurrence of the gated delta rule, token by token."""
    share = value.shape[2] // key.shape[2]
    query, key = (
        (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt()).repeat_interleave(share, dim=2)
        for part in (query, key)
    )
    state = value.new_zeros(len(value), value.shape[2], key.shape[3], value.shape[3])
    state = state if initial_state is None else initial_state
    outputs = []
    for token in range(value.shape[1]):
        at = key[:, token]
        state = state * g[:, token, :, None, None].exp()
        known = torch.einsum("bhk,bhkv->bhv", at, state)
        change = beta[:, token, :, None] * (value[:, token] - known)
        state = state + torch.einsum("bhk,bhv->bhkv", at, change)
        outputs.append(torch.einsum("bhk,bhkv->bhv", query[:, token], state) * query.shape[-1] ** -0.5)
    return torch.stack(outputs, dim=1), state


def in_double(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a model compute in float64 all through."""
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(module, "torch", InDouble())
    if name == "qwen3_5":
        monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", delta_rule)


@pytest.mark.parametrize("name", CONFIGS)
def test_exactness_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_double(name, monkeypatch)
    model, groups = make_model(name, torch.float64), make_groups()
    expected, found = alone(model, groups), together(model, groups)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * expected.abs().max().item())
    assert apart(gradient(model, found), gradient(model, expected)) < 1e-9


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_no_bit_depends_on_what_a_text_does_not_see(name: str, dtype: torch.dtype) -> None:
    model, groups = make_model(name, dtype), make_groups()
    before = together(model, groups)
    first = 0
    for number, group in enumerate(groups):
        other = [(value + 20) % 60 + 3 for value in group.prefix]
        texts = [[(value + 20) % 60 + 3 for value in text] for text in group.texts]
        for place in range(len(group.texts)):
            others = [replace(each, texts=[text[::-1] for text in each.texts]) for each in groups]
            others[number] = replace(group, texts=[*texts[:place], group.texts[place], *texts[place + 1 :]])
            assert torch.equal(together(model, others)[first + place], before[first + place])
        if group.prefix:
            changed = together(model, [*groups[:number], replace(group, prefix=other), *groups[number + 1 :]])
            same = (changed == before).all(dim=1).tolist()
            rows = range(first, first + len(group.texts))
            assert {row for row, kept in enumerate(same) if not kept} <= set(rows)
            assert not all(same), "its own texts see a prefix, as far as windows reach"
        first += len(group.texts)


@pytest.mark.parametrize("name", ["qwen3_5", "lfm2"])
def test_gradient_checkpointing(name: str) -> None:
    model, groups = make_model(name).train(), make_groups()
    expected = gradient(model, together(model, groups))
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    assert apart(gradient(model, together(model, groups)), expected) < 1e-6


@torch.no_grad()
def test_rows_outside_of_packs_stay_as_they_were() -> None:
    model, groups = make_model("qwen3_5"), make_groups()
    before = alone(model, groups)
    expected = together(model, groups)
    assert torch.equal(alone(model, groups), before)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.backbone.layers[0].linear_attn.parameters():
            weight.mul_(1.5)
    assert apart(together(other, groups), expected) > 1e-3, "a copy runs its own weights"
    torch.testing.assert_close(together(other, groups), alone(other, groups), rtol=1e-4, atol=1e-4)
    assert torch.equal(together(model, groups), expected)


@torch.no_grad()
def test_threads() -> None:
    model, groups = make_model("qwen3_5"), make_groups()
    expected, separate = together(copy.deepcopy(model), groups), alone(model, groups)
    found: dict[int, bool] = {}

    def work(number: int) -> None:
        with torch.no_grad():
            run = together(model, groups) if number % 2 else alone(model, groups)
        found[number] = torch.equal(run, expected if number % 2 else separate)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), True)


def test_layers_that_packs_do_not_know_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("lfm2")
    text = model.backbone.config
    text.layer_types = ["conv", "indexed_attention", "conv"]
    assert "'indexed_attention'" in packing_blocker(model)
    text.layer_types = ["conv", "conv", "conv"]
    assert "'conv'" in packing_blocker(model), "the second layer holds no convolution"
    monkeypatch.setattr(state_forks, "CACHES", ("another_name",))
    text.layer_types = ["conv", "full_attention", "conv"]
    assert "'conv'" in packing_blocker(model), "its convolution takes its states by another name"


Loaded = tuple[XVLM2VecModel, XVLM2VecProcessor]


@pytest.fixture(params=["qwen3_5", "lfm3_vl"])
def loaded(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path], monkeypatch: Any) -> Loaded:
    family = replace(families.family_of(request.param), causal=True)
    monkeypatch.setitem(families.FAMILIES, request.param, family)
    folder = checkpoint(request.param)
    return XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)


def some_rows(images: Sequence[Any]) -> list[TextImageRow]:
    rows = [TextImageRow(text, (image,)) for image in images[:2] for text in TEXTS]
    return [*rows, TextImageRow("alone", (images[2],)), *map(TextImageRow, TEXTS)]


def test_encode_is_that_of_padded_batches(loaded: Loaded, images: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = loaded
    family, rows = model.backbone.config.model_type, some_rows(images)
    shown: list[int] = []
    run = state_forks.count_runs
    monkeypatch.setattr(state_forks, "count_runs", lambda layout: shown.append(len(layout.buckets)) or run(layout))
    given = {"text": [row.text for row in rows], "images": [list(row.images) for row in rows], "processor": processor}
    packed = model.encode(**given, convert_to_tensor=True)
    assert shown, "hybrids are packed"
    monkeypatch.setitem(families.FAMILIES, family, replace(families.FAMILIES[family], causal=False))
    padded = model.encode(**given, convert_to_tensor=True)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "worst"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_the_check_passes(loaded: Loaded, images: list[Any], dtype: torch.dtype, worst: float) -> None:
    model, processor = loaded
    for rows in (some_rows(images)[:3], [TextImageRow(text) for text in TEXTS]):
        check = check_sharing(model.to(dtype), processor, rows, training=True)
        assert check.ok, check.reason
        assert check.worst < worst


@pytest.mark.parametrize("fault", ["forgotten", "mixed up"])
def test_the_check_finds_states_that_are_wrong(
    loaded: Loaded, images: list[Any], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = loaded
    right = state_forks.States.fork

    def wrong(states: state_forks.States, texts: int) -> state_forks.States:
        end = {name: state * (fault != "forgotten") for name, state in right(states, texts).start.items()}
        return state_forks.States({name: state.roll(1, dims=1) for name, state in end.items()})

    monkeypatch.setattr(state_forks.States, "fork", wrong)
    assert "vectors differ" in check_sharing(model, processor, some_rows(images)[:3]).reason


def continued(model: Any, groups: Sequence[TokenGroup], budget: int, adapters: bool) -> torch.Tensor:
    """Every text over what a pass of the base kept of its prefix."""
    found = []
    for pack in model.pack(groups, budget):
        kept = PrefixStates()
        with torch.no_grad():
            model(pack=pack, keep=kept)
        found.append(model(pack=pack, over=kept, adapters=[DEFAULT if adapters else None] * len(pack.rows)))
    rows = [row for pack in model.pack(groups, budget) for row in pack.rows]
    return torch.cat([output.pooler_output for output in found])[torch.tensor(rows).argsort()]


@pytest.mark.parametrize("budget", [10_000, 120])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_texts_go_on_from_states_that_were_kept(name: str, budget: int) -> None:
    model, groups = make_model(name), [group for group in make_groups() if group.prefix]
    expected, found = together(model, groups, budget), continued(model, groups, budget, adapters=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def with_adapter(model: XVLM2VecModel) -> XVLM2VecModel:
    add_activated(model, AdapterConfig(rank=2, dora=True, train_embeddings=True))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


def alone_from(model: Any, groups: Sequence[TokenGroup]) -> torch.Tensor:
    """Rows by themselves, the adapter on their texts."""
    found = []
    for group in groups:
        for text in group.texts:
            row = torch.tensor([group.prefix + text])
            with acting(Routes(row.numel(), {DEFAULT: torch.arange(len(group.prefix), row.numel())})):
                found.append(model(input_ids=row, attention_mask=torch.ones_like(row)).pooler_output)
    return torch.cat(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_adapter_acts_on_texts_over_kept_states_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_double(name, monkeypatch)
    model = with_adapter(make_model(name, torch.float64))
    groups = [replace(group, starts=[0] * len(group.texts)) for group in make_groups()]
    expected, found = alone_from(model, groups), continued(model, groups, 10_000, adapters=True)
    base = together(model, groups)
    assert (found - base).abs().amax(1).min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * expected.abs().max().item())
    assert apart(gradient(model, found), gradient(model, expected)) < 1e-9
    (pack,) = model.pack(groups, 10_000)
    at_once = model(pack=pack, adapters=[DEFAULT] * len(pack.rows)).pooler_output[torch.tensor(pack.rows).argsort()]
    torch.testing.assert_close(at_once, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


def test_a_mixer_that_fails_leaves_no_adapter_acting(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_adapter(make_model("lfm2"))
    groups = [replace(group, starts=[0] * len(group.texts)) for group in make_groups()[:1]]
    (pack,) = model.pack(groups, 10_000)
    mixer = next(module for module in model.modules() if state_forks.is_mixer(module))
    monkeypatch.setattr(mixer.out_proj, "forward", lambda inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(pack=pack, adapters=[DEFAULT] * len(pack.rows))
    assert current_routes() is None
