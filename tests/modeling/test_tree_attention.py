"""Rows in a pack have the vectors and the gradients that they have alone, for every causal family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoConfig

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling import families, pack_forward, sharing_check
from xvlm2vec.modeling import tree_attention as tree
from xvlm2vec.modeling.packing import (
    Pack,
    TokenGroup,
    check_sharing,
    common_prefix,
    encoder_outputs,
    image_states,
    join,
    pack_groups,
    packing_blocker,
    rope_limit_of,
    token_groups,
    tree_attention,
)
from xvlm2vec.modeling.rows import TextImageRow
from xvlm2vec.modeling.token_groups import split_prefix

CAUSAL = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_next-llama", "llava_next-mistral", "llava_onevision", "internvl"]
CAUSAL += ["smolvlm", "idefics3", "phi3_v", "windows", "mixed_windows", "gemma3", "gemma3_windows"]
BASES = {"windows": "llava_next-mistral", "mixed_windows": "llava_onevision", "gemma3_windows": "gemma3"}
TEXTS = ["a red bicycle", "ein rotes Fahrrad lehnt an der Wand der alten Bäckerei", "自転車", "query"]
INSTRUCTION = "represent the query for finding the image that it describes: " * 2

PHI3_V = pytest.param("phi3_v", marks=pytest.mark.slow)  # its images are 300 tokens at least

Loaded = tuple[XVLM2VecModel, XVLM2VecProcessor]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Callable[..., Loaded]:
    """A model in float64 and its processor; two names give a model sliding windows that are shorter than its rows."""

    def get(name: str, dtype: torch.dtype = torch.float64) -> Loaded:
        base = BASES.get(name, name)
        config = AutoConfig.from_pretrained(checkpoint(base))
        if base != name:
            config.text_config.sliding_window = 7
            config.text_config.use_sliding_window = True
        if name in ("mixed_windows", "gemma3_windows"):
            config.text_config.layer_types = ["sliding_attention", "full_attention"]
        model = XVLM2VecModel.from_backbone(checkpoint(base), config=config, dtype=dtype)
        return model, XVLM2VecProcessor.from_pretrained(checkpoint(base))

    return get


def some_rows(images: Sequence[Any]) -> list[list[TextImageRow]]:
    """Four texts on an image, two on two images, three on a third one of another size, one alone, and texts."""
    return [
        [TextImageRow(text, (images[0],)) for text in TEXTS],
        [TextImageRow(text, tuple(images[2:4])) for text in TEXTS[:2]],
        [TextImageRow(text, (images[1],), "find: ") for text in TEXTS[1:]],
        [TextImageRow("alone", (images[0],))],
        [TextImageRow(text) for text in TEXTS],
        [TextImageRow(text, (), INSTRUCTION) for text in TEXTS],
    ]


def alone(model: Any, processor: XVLM2VecProcessor, rows: Sequence[Sequence[TextImageRow]]) -> torch.Tensor:
    batches = [processor.prepare([row])[0] for group in rows for row in group]
    return torch.cat([model(**batch).pooler_output for batch in batches])


def together(model: Any, packs: Sequence[Pack], **options: Any) -> torch.Tensor:
    found = torch.cat([model(pack=pack, **options).pooler_output for pack in packs])
    return found[torch.tensor([row for pack in packs for row in pack.rows]).argsort()]


def gradients(model: Any, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a number that depends on every value of every vector."""
    weights = torch.linspace(-1, 1, vectors.numel(), dtype=vectors.dtype).cos().view_as(vectors)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = torch.autograd.grad((vectors * weights).sum(), list(trained.values()), allow_unused=True)
    return {name: grad for name, grad in zip(trained, found, strict=True) if grad is not None}


def worst(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest difference of a gradient, relative to the largest value of the same parameter's."""
    assert found.keys() == expected.keys()
    scale = max(grad.abs().max() for grad in expected.values())
    pairs = ((found[name], grad) for name, grad in expected.items())
    return max(((one - other).abs().max() / (other.abs().max() + 1e-6 * scale)).item() for one, other in pairs)


@pytest.mark.parametrize("family", CAUSAL)
def test_vectors_and_gradients_are_those_of_separate_rows(
    family: str, load: Callable[..., Loaded], images: list[Any]
) -> None:
    model, processor = load(family)
    rows = some_rows(images)
    groups, cut = token_groups(processor, rows)
    packs = model.pack(groups, 10_000)
    assert not cut
    assert len(packs) == (1 if rope_limit_of(model.backbone.config) is None else 2)
    assert [len(group.prefix) > 8 for group in groups[:4]] == [True] * 4 or family == "internvl"
    assert not groups[4].prefix
    assert len(groups[5].prefix) > 20, "a long instruction is worth sharing"
    expected = alone(model, processor, rows)
    found = together(model, packs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7 * expected.abs().max().item())
    assert worst(gradients(model, found), gradients(model, expected)) < 1e-6


@pytest.mark.parametrize("family", ["qwen3_vl", "idefics3", "mixed_windows", PHI3_V])
@torch.no_grad()
def test_any_budget_and_the_dense_mask_give_the_same(
    family: str, load: Callable[..., Loaded], images: list[Any]
) -> None:
    model, processor = load(family)
    groups, _ = token_groups(processor, some_rows(images))
    whole = together(model, model.pack(groups, 10_000))
    texts = sum(len(group.texts) for group in groups)
    for budget, options in ((10_000, {"dense": True}), (150, {}), (1, {}), (1, {"dense": True})):
        packs = model.pack(groups, budget)
        assert sorted(row for pack in packs for row in pack.rows) == list(range(texts))
        torch.testing.assert_close(together(model, packs, **options), whole, rtol=0, atol=1e-6)
    assert len(model.pack(groups, 1)) == texts


@pytest.mark.parametrize("layers", ["all", "windows", "any distance"])
@torch.no_grad()
def test_images_in_both_directions(
    layers: str, load: Callable[..., Loaded], images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(families.FAMILIES, "gemma3", replace(families.FAMILIES["gemma3"], image_layers=layers))
    model, processor = load("gemma3_windows")
    rows = some_rows(images)
    model.backbone.config.text_config.sliding_window = 3  # shorter than an image
    for layer in model.backbone.language_model.layers:
        layer.self_attn.sliding_window = 3 if layer.self_attn.is_sliding else None
    packs = model.pack(token_groups(processor, rows)[0], 10_000)
    found = together(model, packs)
    torch.testing.assert_close(together(model, packs, dense=True), found, rtol=0, atol=1e-7 * found.abs().max().item())
    same = torch.allclose(found, alone(model, processor, rows), atol=1e-5 * found.abs().max().item())
    # Gemma 3 does so as far as windows reach. What images see in its last layer, which has none, no text sees.
    assert same is (layers != "any distance")


def test_packs_keep_to_their_budget() -> None:
    groups = [TokenGroup([1] * 10, [[2] * size for size in (5, 30, 5, 5)]), TokenGroup([], [[3] * 8] * 6)]
    packs = pack_groups(groups, 32)
    assert [pack.tokens for pack in packs] == [25, 40, 32, 16]
    assert [pack.rows for pack in packs] == [[0, 2, 3], [1], [4, 5, 6, 7], [8, 9]]
    assert [pack.groups for pack in packs] == [[0], [0], [1] * 4, [1] * 2]
    with pytest.raises(ValueError, match="positive budget"):
        pack_groups(groups, 0)


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next-llama", PHI3_V])
def test_gradient_checkpointing(family: str, load: Callable[..., Loaded], images: list[Any]) -> None:
    model, processor = load(family)
    groups, _ = token_groups(processor, some_rows(images)[:2])
    packs = model.pack(groups, 10_000)
    expected = gradients(model, together(model, packs))
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    vectors = together(model, packs)
    assert worst(gradients(model, vectors), expected) < 1e-9


def test_an_adapter_on_and_off(load: Callable[..., Loaded], images: list[Any]) -> None:
    model, processor = load("smolvlm")
    groups, _ = token_groups(processor, some_rows(images)[:3])
    packs = model.pack(groups, 10_000)
    plain = together(model, packs)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="FEATURE_EXTRACTION")
    adapted = peft.get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    expected = alone(adapted, processor, some_rows(images)[:3])
    found = together(adapted, packs)
    assert (found - plain).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert worst(gradients(adapted, found), gradients(adapted, expected)) < 1e-6
    with adapted.disable_adapter():
        torch.testing.assert_close(together(adapted, packs), plain, rtol=0, atol=1e-6)


@torch.no_grad()
def test_mean_pooling(load: Callable[..., Loaded], images: list[Any]) -> None:
    model, processor = load("qwen2_vl")
    model.config.pooling = "mean"
    rows = some_rows(images)
    groups, _ = token_groups(processor, rows)
    found = together(model, model.pack(groups, 10_000))
    torch.testing.assert_close(found, alone(model, processor, rows), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["qwen2_vl", PHI3_V])
@torch.no_grad()
def test_means_of_the_image_part(family: str, load: Callable[..., Loaded], images: list[Any]) -> None:
    model, processor = load(family)
    rows = some_rows(images)
    groups, _ = token_groups(processor, rows)
    packs = model.pack(groups, 10_000)
    found = together_means(model, packs)
    flat = [row for group in rows for row in group]
    for row, mean in zip(flat, found, strict=True):
        batch, _ = processor.prepare([row])
        ids = batch["input_ids"][0]
        shown = (ids.lt(0) | ids.eq(getattr(model.backbone.config, "image_token_id", -1))).nonzero()
        end = int(shown[-1]) + 2 if len(shown) else 1
        expected = model(**batch).last_hidden_state[0, :end].mean(dim=0)
        torch.testing.assert_close(mean, expected, rtol=0, atol=1e-6)


def together_means(model: Any, packs: Sequence[Pack]) -> torch.Tensor:
    found = torch.cat([model(pack=pack, image_means=True).image_means for pack in packs])
    return found[torch.tensor([row for pack in packs for row in pack.rows]).argsort()]


@pytest.mark.parametrize("family", ["qwen3_vl", "internvl", "smolvlm", PHI3_V])
@torch.no_grad()
def test_image_states_serve_other_packs(family: str, load: Callable[..., Loaded], images: list[Any]) -> None:
    model, processor = load(family)
    groups, _ = token_groups(processor, some_rows(images)[:4])
    (pack,) = model.pack(groups, 10_000)
    states = dict(zip(pack.groups, image_states(model.backbone, pack), strict=True))
    for part in model.pack(groups[::-1], 150):
        own = [states[len(groups) - 1 - number] for number in part.groups]
        found = model(pack=part, image_states=own).pooler_output
        torch.testing.assert_close(found, model(pack=part).pooler_output, rtol=0, atol=1e-6)
    assert encoder_outputs([]) is None


@torch.no_grad()
def test_rows_on_both_sides_of_a_rope_limit(load: Callable[..., Loaded]) -> None:
    model, processor = load("phi3_v")
    rows = [TextImageRow("bicycle " * count, (), INSTRUCTION) for count in (1, 2, 30, 40)]
    (group,), _ = token_groups(processor, [rows])
    lengths = [len(group.prefix) + len(text) for text in group.texts]
    assert min(lengths) <= 64 < max(lengths)
    packs = model.pack([group], 10_000)
    assert [pack.rows for pack in packs] == [[0, 1], [2, 3]]
    torch.testing.assert_close(together(model, packs), alone(model, processor, [rows]), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="both sides of 64 tokens"):
        model(pack=pack_groups([group], 10_000)[0])


@pytest.mark.parametrize(("dtype", "worst"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("family", CAUSAL)
def test_the_check_passes_for_every_causal_family(
    family: str, load: Callable[..., Loaded], images: list[Any], dtype: torch.dtype, worst: float
) -> None:
    model, processor = load(family, dtype)
    for rows in (some_rows(images)[0], [TextImageRow(row.text) for row in some_rows(images)[0]]):
        check = check_sharing(model, processor, rows, training=True)
        assert check.ok, check.reason
        assert check.worst < worst


def test_a_prefix_language_model_is_refused(load: Callable[..., Loaded], images: list[Any]) -> None:
    model, processor = load("paligemma", torch.float32)
    assert "whole prompt" in check_sharing(model, processor, some_rows(images)[0]).reason


@pytest.mark.parametrize("family", ["gemma3", "paligemma"])
def test_families_that_look_ahead_are_found(
    family: str, load: Callable[..., Loaded], images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the table did not say how they look ahead.
    unknown = replace(families.FAMILIES[family], not_causal="", image_layers="")
    monkeypatch.setitem(families.FAMILIES, family, unknown)
    monkeypatch.setattr(sharing_check, "packing_blocker", lambda *_: "")
    model, processor = load(family, torch.float32)
    check = check_sharing(model, processor, some_rows(images)[0])
    assert not check.ok
    assert "differ" in check.reason
    # Not in bfloat16 either, where rounding may be as large as what they see ahead.
    monkeypatch.setattr(sharing_check, "TOLERANCE", {torch.bfloat16: 1.0})
    model, processor = load(family, torch.bfloat16)
    assert check_sharing(model, processor, some_rows(images)[0]).reason == "tokens see those that follow them"


def test_a_fault_among_unlike_images_is_found(
    load: Callable[..., Loaded], images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load("qwen2_vl", torch.float32)
    right = pack_forward.image_states

    def mixed_up(*args: Any) -> list[Any]:
        first, *others = right(*args)
        return [first, *(replace(one, states=tuple(part.flip(0) for part in one.states)) for one in others)]

    monkeypatch.setattr(pack_forward, "image_states", mixed_up)
    assert "vectors differ" in check_sharing(model, processor, some_rows(images)[0]).reason


def test_whatever_fails_is_a_reason(
    load: Callable[..., Loaded], images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load("qwen2_vl", torch.float32)
    rows = some_rows(images)[0]

    def broken(*_: Any, **__: Any) -> None:
        raise AttributeError("no attribute 'all'.\nAnd more.")

    with monkeypatch.context() as patch:
        patch.setattr(model.backbone, "get_image_features", broken)
        assert check_sharing(model, processor, rows).reason == "AttributeError: no attribute 'all'"
    with monkeypatch.context() as patch:
        patch.setattr(sharing_check, "packing_blocker", broken)
        assert not check_sharing(model, processor, rows).ok
    assert check_sharing(model, processor, rows).ok
    # A processor that refuses all images of other shapes than the rows'.
    monkeypatch.setattr(sharing_check, "SIZES", ((5000, 2), (2, 5000)))
    assert "takes none of the images" in check_sharing(model, processor, rows).reason


def test_texts_that_see_each_other_are_found_in_any_format(
    load: Callable[..., Loaded], images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load("llava_next-llama", torch.bfloat16)
    right = tree.bucket_attention

    def leaking(*args: Any) -> list[torch.Tensor]:
        first, *rest = right(*args)
        return [first, *(part + 1e-2 * part.mean(dim=1, keepdim=True) for part in rest)]

    monkeypatch.setattr(tree, "bucket_attention", leaking)
    check = check_sharing(model, processor, some_rows(images)[0])
    assert check.worst < sharing_check.TOLERANCE[torch.bfloat16]
    assert check.reason == "a text's vector changes with the other texts of its pack"


def test_what_makes_sharing_inexact_is_said(load: Callable[..., Loaded]) -> None:
    model, _ = load("llava_next-mistral")
    text = model.backbone.config.text_config
    assert not packing_blocker(model, training=True)
    layer = model.backbone.language_model.layers[0].self_attn
    layer.attention_dropout = 0.1
    assert "dropout of 0.1 in backbone.language_model.layers.0.self_attn" in packing_blocker(model, training=True)
    assert not packing_blocker(model), "dropout is off in evaluation"
    text.rope_parameters["rope_type"] = "dynamic"
    assert "dynamic RoPE" in packing_blocker(model)
    text.use_bidirectional_attention = "all"
    assert "in both directions" in packing_blocker(model)
    text.layer_types = ["conv", "full_attention"]
    assert "layers of the kind 'conv'" in packing_blocker(model)
    text.layer_types, text._attn_implementation = None, "eager"
    assert "attention is 'eager'" in packing_blocker(model)
    text.is_causal = False
    assert "not causal" in packing_blocker(model)
    phi, _ = load("phi3_v")
    phi.config.vlm_config.legacy_rope_by_batch = phi.backbone.config.legacy_rope_by_batch = True
    assert "legacy_rope_by_batch" in packing_blocker(phi)


def test_the_check_finds_a_fault(
    load: Callable[..., Loaded], images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load("qwen2_vl", torch.float32)
    monkeypatch.setattr(Pack, "positions", lambda self, *_: torch.arange(self.tokens)[None])
    check = check_sharing(model, processor, some_rows(images)[0])
    assert not check.ok
    assert check.worst > 1e-2


def test_attention_that_misses_the_layout_fails(
    load: Callable[..., Loaded], images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load("llava_next-llama")
    monkeypatch.setattr(pack_forward, "use_tree", lambda _: None)
    (pack,) = model.pack(token_groups(processor, some_rows(images)[:1])[0], 10_000)
    with pytest.raises(RuntimeError):
        model(pack=pack)
    monkeypatch.undo()
    model.backbone.config.text_config._attn_implementation = "eager"
    with pytest.raises(ValueError, match="attn_implementation='sdpa'"):
        model(pack=pack)
    states = torch.zeros(1, 4, pack.tokens, 8)
    with pytest.raises(ValueError, match="knows no `softcap`"):
        tree_attention(torch.nn.Identity(), states, states, states, None, tree=pack.layout, softcap=30.0)


@torch.no_grad()
def test_padded_batches_stay_as_they_were(load: Callable[..., Loaded], images: list[Any]) -> None:
    model, processor = load("idefics3")
    rows = [row for group in some_rows(images) for row in group]
    batch, _ = processor.prepare(rows)
    before = model(**batch).pooler_output
    model(pack=model.pack(token_groups(processor, some_rows(images)[:1])[0], 10_000)[0])
    assert model.backbone.config.text_config._attn_implementation == "tree"
    assert model.backbone.config.vision_config._attn_implementation == "sdpa"
    torch.testing.assert_close(model(**batch).pooler_output, before, rtol=0, atol=0)


def test_long_rows_are_cut_within_their_group(load: Callable[..., Loaded], images: list[Any]) -> None:
    model, processor = load("idefics3")
    processor.max_length = 90
    rows = [TextImageRow(text, (images[0],)) for text in ("short", "long " * 200, "")]
    (group,), cut = token_groups(processor, [rows], numbers=[["a", "b", "c"]])
    assert cut == 1
    assert [len(group.prefix) + len(text) for text in group.texts][1] == 90
    torch.testing.assert_close(
        together(model, model.pack([group], 10_000)), alone(model, processor, [rows]), rtol=0, atol=1e-6
    )


def test_groups_of_other_images_or_without_text_are_refused(load: Callable[..., Loaded], images: list[Any]) -> None:
    _, processor = load("idefics3")
    processor.max_length = 90
    rows = [TextImageRow("short", (images[0],)), TextImageRow("long " * 200, tuple(images[:2]))]
    with pytest.raises(ValueError, match="Rows 5 to 6: an image is not common to all"):
        token_groups(processor, [rows], numbers=[[5, 6]])
    with pytest.raises(ValueError, match="at least one token"):
        TokenGroup([1], [[2], []])
    with pytest.raises(ValueError, match="Images belong to the prefix"):
        TokenGroup([], [[2]], {"pixel_values": torch.zeros(1)})


def test_common_prefix_leaves_each_row_a_token() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5], [1, 2, 3, 9]]) == [1, 2]
    assert common_prefix([[1, 2], [1, 2, 3]]) == [1]
    assert common_prefix([[7, 8]]) == [7]
    assert common_prefix([[1], [2]]) == []


def test_a_prefix_is_told_only_from_a_tail_that_fits() -> None:
    assert split_prefix([1, 2, 3, 4], [3, 4]) == [1, 2]
    assert split_prefix([1, 2, 3, 4], [2, 4]) is None
    assert split_prefix([1, 2], []) is None


def test_joined_images_are_filled_up_with_zeros() -> None:
    joined = join([torch.ones(1, 2, 3), torch.ones(2, 4, 1)])
    assert joined.shape == (3, 4, 3)
    assert joined.sum(dim=(1, 2)).tolist() == [6, 4, 4]
