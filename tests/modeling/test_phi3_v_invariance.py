"""A row's vector depends on the row alone: not on its batch, its padding, or how it was packed."""

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig
from xvlm2vec.modeling.modeling_phi3_v import Phi3VModel, count_row_lengths

SIDE, SWITCH = 56, 64  # pixels of a crop; longest row with short RoPE factors
SMALL, WIDE = (SIDE, SIDE), (SIDE, 2 * SIDE)
TOKENS = {SMALL: 13, WIDE: 17}
SAME = 2e-5


def tiny_config(**overrides):
    return Phi3VConfig(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024, original_max_position_embeddings=SWITCH, sliding_window=512, pad_token_id=0,
        initializer_range=0.3,
        rope_scaling={"type": "su", "short_factor": [1.0, 1.1, 1.3, 1.5], "long_factor": [1.5, 4.0, 9.0, 20.0]},
        vision_config={"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": SIDE, "patch_size": 14, "initializer_range": 0.3},
        **overrides,
    )  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Phi3VModel(tiny_config()).eval()
    torch.nn.init.normal_(model.vision_embed_tokens.sub_GN)
    torch.nn.init.normal_(model.vision_embed_tokens.glb_GN)
    return model


def make_rows():
    """Ids and images of rows with 0, 1, 2 and 0 images; the last is longer than the switch of the RoPE factors."""
    torch.manual_seed(1)
    words = [torch.randint(3, 100, (n,)).tolist() for n in (7, 20, 5, SWITCH + 30)]
    first = [1] + [-1] * TOKENS[WIDE] + [1, *words[1]]
    second = [1] + [-1] * TOKENS[SMALL] + [1] + [-2] * TOKENS[WIDE] + [1, *words[2]]
    rows = [([1, *words[0]], []), (first, [WIDE]), (second, [SMALL, WIDE]), ([1, *words[3]], [])]
    return [(ids, [(size, torch.randn(3, 3, SIDE, SIDE)) for size in sizes]) for ids, sizes in rows]


def collate(rows, side="right"):
    length = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, (row, _) in enumerate(rows):
        span = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        ids[index, span] = torch.tensor(row)
        mask[index, span] = 1
    images = [image for _, images in rows for image in images]
    batch = {"input_ids": ids, "attention_mask": mask}
    if images:
        batch["pixel_values"] = torch.stack([pixels for _, pixels in images])
        batch["image_sizes"] = torch.tensor([size for size, _ in images])
    return batch


@torch.no_grad()
def embed(model, rows, side="right"):
    batch = collate(rows, side)
    hidden = model(**batch).last_hidden_state
    positions = torch.arange(hidden.shape[1])
    return hidden[torch.arange(len(rows)), (batch["attention_mask"] * positions).argmax(-1)]


def deviation(left, right):
    return (left - right).abs().max().item()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_alone_and_in_any_batch(model, attention, side):
    model.set_attn_implementation(attention)
    rows = make_rows()
    alone = torch.cat([embed(model, [row]) for row in rows])
    assert deviation(embed(model, rows, side), alone) < SAME
    assert deviation(embed(model, rows[::-1], side).flip(0), alone) < SAME
    assert deviation(embed(model, rows[:3], side), alone[:3]) < SAME


def test_wrapper_hands_on_the_fault_of_the_original(checkpoint, tmp_path):
    from xvlm2vec import XVLM2VecConfig, XVLM2VecModel

    def shift(wrapper):
        rows = torch.arange(3, 3 + 2 * (SWITCH + 30)).reshape(2, -1)
        mask = torch.ones_like(rows)
        mask[0, 7:] = 0
        with torch.no_grad():
            alone, beside = wrapper(rows[:1, :7]).embeddings[0], wrapper(rows, mask).embeddings[0]
        return float((alone - beside).abs().max())

    wrapper = XVLM2VecModel.from_backbone(checkpoint("phi3_v"))
    assert shift(wrapper) < SAME
    wrapper.config.legacy_rope_by_batch = True
    assert shift(wrapper) > 1e-3
    wrapper.save_pretrained(tmp_path / "saved")
    again = XVLM2VecModel.from_pretrained(tmp_path / "saved")
    assert again.config.legacy_rope_by_batch
    assert shift(again) > 1e-3
    again.config.legacy_rope_by_batch = False
    assert shift(again) < SAME
    assert shift(XVLM2VecModel.from_pretrained(tmp_path / "saved", legacy_rope_by_batch=False)) < SAME
    assert shift(XVLM2VecModel.from_backbone(checkpoint("phi3_v"), legacy_rope_by_batch=True)) > 1e-3
    with pytest.raises(ValueError, match="Only a Phi"):
        XVLM2VecConfig(vlm_config={"model_type": "qwen2_vl"}).legacy_rope_by_batch = True


def test_short_rows_keep_their_factors_beside_long_ones_unless_asked_otherwise(model):
    short, long = make_rows()[0], make_rows()[3]
    alone = embed(model, [short])
    model.config.legacy_rope_by_batch = True
    assert deviation(embed(model, [short]), alone) < SAME
    disturbed = embed(model, [short, long])[:1]
    assert deviation(disturbed, alone) > 1e-3
    model.config.legacy_rope_by_batch = False
    with torch.no_grad():
        forced = model(**collate([short]), row_lengths=torch.tensor([SWITCH + 1])).last_hidden_state[:, -1]
    assert deviation(forced, disturbed) < SAME
    assert deviation(embed(model, [short, long])[:1], alone) < SAME


def test_rows_packed_into_one_keep_their_own_factors_and_images(model):
    rows = make_rows()
    alone = torch.cat([embed(model, [row]) for row in rows])
    packed = collate([([token for ids, _ in rows for token in ids], [p for _, images in rows for p in images])])
    lengths = [len(ids) for ids, _ in rows]
    packed["position_ids"] = torch.cat([torch.arange(n) for n in lengths])[None]
    packed["attention_mask"] = None
    with torch.no_grad():
        hidden = model(**packed).last_hidden_state[0]
    assert deviation(hidden[torch.tensor(lengths).cumsum(0) - 1], alone) < SAME


def test_texts_that_share_a_prefix(model):
    prefix, images = make_rows()[1]
    texts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    alone = torch.cat([embed(model, [(prefix + text, images)]) for text in texts])
    group = torch.tensor([0] * len(prefix) + [1] * 3 + [2] * 5)
    index = torch.arange(len(group))
    mask = ((group == 0) | (group == group[:, None])) & (index <= index[:, None])
    positions = torch.cat([torch.arange(len(prefix)), *(len(prefix) + torch.arange(len(text)) for text in texts)])
    batch = collate([(prefix + texts[0] + texts[1], images)]) | {
        "attention_mask": mask[None, None],
        "position_ids": positions[None],
        "row_lengths": torch.tensor([len(prefix) + 5]),
    }
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state[0]
    assert deviation(hidden[[len(prefix) + 2, len(prefix) + 7]], alone) < SAME
    with pytest.raises(ValueError, match="position_ids"):
        model(**(batch | {"position_ids": None}))


def test_texts_that_continue_a_cached_prefix(model):
    prefix, images = make_rows()[1]
    alone = embed(model, [([*prefix, 5, 6, 7], images)])
    with torch.no_grad():
        start = model(**collate([(prefix, images)]), use_cache=True)
        ids = torch.tensor([[5, 6, 7]])
        mask = torch.ones(1, len(prefix) + 3, dtype=torch.long)
        rest = model(input_ids=ids, attention_mask=mask, past_key_values=start.past_key_values)
    assert deviation(rest.last_hidden_state[:, -1], alone) < SAME


def test_vision_runs_once_over_real_crops_and_can_be_given(model):
    rows = make_rows()[1:3]
    batch = collate(rows)
    crops = []
    model.vision_embed_tokens.img_processor.register_forward_hook(lambda _, args, __: crops.append(len(args[0])))
    with torch.no_grad():
        direct = model(**batch).last_hidden_state
        assert crops == [3 + 2 + 3]
        features = model.get_image_features(batch.pop("pixel_values"), batch.pop("image_sizes"), return_dict=True)
        given = model(**batch, mm_encoder_outputs={"image": features}).last_hidden_state
    assert [len(feature) for feature in features.pooler_output] == [TOKENS[WIDE], TOKENS[SMALL], TOKENS[WIDE]]
    assert torch.equal(given, direct)
    assert len(crops) == 2


def test_an_attention_function_from_outside_gets_the_text_part_and_its_arguments(model):
    seen = []

    def attend(module, query, key, value, attention_mask, **kwargs):
        seen.append((attention_mask, kwargs.pop("segments")))
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("outside", attend)
    row = make_rows()[1]
    expected = embed(model, [row])
    model.set_attn_implementation({"": "outside", "vision_config": "sdpa"})
    with torch.no_grad():
        hidden = model(**collate([row]), segments=(3, 4)).last_hidden_state
    assert seen == [(None, (3, 4))] * 2
    assert deviation(hidden[:, -1], expected) < SAME


def test_checkpointed_gradients_are_the_plain_ones(model):
    batch = collate(make_rows())

    def gradients():
        model.zero_grad()
        model.train()(**batch).last_hidden_state[:, -1].pow(2).mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.activation_checkpointing_enable()
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], rtol=1e-4, atol=1e-7) for name in plain)
    assert "vision_embed_tokens.img_processor.vision_model.encoder.layers.0.self_attn.q_proj.weight" in plain


def test_row_lengths_ignore_padding_on_either_side():
    positions = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 1, 0, 1, 2]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    lengths = count_row_lengths(positions, mask)
    assert lengths[mask.bool()].tolist() == [3, 3, 3, 3, 3, 3, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": None, "image_sizes": None}, r"placeholders for 1 image\(s\), but 0"),
        ({"input_ids": torch.tensor([[1, 5, 6]]), "attention_mask": None}, r"placeholders for 0 image\(s\), but 1"),
        ({"input_ids": torch.tensor([[1, -1, -1, 1]]), "attention_mask": None}, "image 1 has 2 placeholders, but 17"),
        ({"input_ids": torch.tensor([[1] + [-2] * 17 + [1]]), "attention_mask": None}, "image 2 where image 1"),
        ({"image_sizes": torch.tensor([[SIDE, 3 * SIDE]])}, "does not fit 2 crops"),
        ({"image_sizes": None}, "need image_sizes"),
    ],
)
def test_images_and_placeholders_that_do_not_match_are_errors(model, change, message):
    with pytest.raises(ValueError, match=message):
        model(**(collate([make_rows()[1]]) | change))


def test_half_precision_does_not_round_the_frequencies(model):
    exact = [values.clone() for values in model.rotary_emb.frequencies(torch.device("cpu"))[:2]]
    model.to(torch.bfloat16)
    for before, after in zip(exact, model.rotary_emb.frequencies(torch.device("cpu"))[:2], strict=True):
        assert torch.equal(before, after)
