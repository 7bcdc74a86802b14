"""Phi-3.5-V checkpoints in the published layouts: every weight lands, or the error says which did not."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig
from xvlm2vec.modeling.modeling_phi3_v import Phi3VModel

CONFIG = {
    "model_type": "phi3_v",
    "architectures": ["Phi3VForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_phi3_v.Phi3VConfig",
                 "AutoModelForCausalLM": "modeling_phi3_v.Phi3VForCausalLM"},
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "su", "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0]},
    "pad_token_id": 0,
    "sliding_window": 512,
    "embd_layer": {"embedding_cls": "image", "hd_transform_order": "sub_glb", "projection_cls": "mlp",
                   "use_hd_transform": True, "with_learnable_separator": True},
    "img_processor": {"image_dim_out": 8, "model_name": "openai/clip-vit-large-patch14-336",
                      "name": "clip_vision_model", "num_img_tokens": 144},
    "vision_config": {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
                      "image_size": 56, "patch_size": 14},
}  # fmt: skip
IDS = torch.tensor([[1, 7, 8, 9]])


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    return Phi3VModel(Phi3VConfig(**CONFIG)).eval()


@pytest.fixture
def weights(source):
    stored = {f"model.{key}": value.clone() for key, value in source.state_dict().items()}
    return stored | {"lm_head.weight": torch.randn(50, 16)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return tmp_path


def write(folder, weights, kind="model.safetensors"):
    if kind.endswith(".safetensors"):
        save_file(weights, folder / kind, metadata={"format": "pt"})
    else:
        torch.save(weights, folder / kind)


def write_shards(folder, weights, stem, suffix):
    keys = sorted(weights)
    names = [f"{stem}-0000{part}-of-00002.{suffix}" for part in (1, 2)]
    halves = {names[0]: keys[::2], names[1]: keys[1::2]}
    for name, half in halves.items():
        write(folder, {key: weights[key] for key in half}, name)
    index = {"metadata": {}, "weight_map": {key: name for name, half in halves.items() for key in half}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return names


def assert_same(model, source):
    stored, loaded = source.state_dict(), model.state_dict()
    assert stored.keys() == loaded.keys()
    for key, value in stored.items():
        assert torch.equal(loaded[key], value), key
    with torch.no_grad():
        assert torch.equal(model(IDS).last_hidden_state, source(IDS).last_hidden_state)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_one_file(folder, weights, source, kind, caplog):
    write(folder, weights, kind)
    with caplog.at_level(logging.WARNING, "xvlm2vec"):
        assert_same(Phi3VModel.from_pretrained(folder), source)
    assert ("weights_only=True" in caplog.text) == kind.endswith(".bin")


@pytest.mark.parametrize(("stem", "suffix"), [("model", "safetensors"), ("pytorch_model", "bin")])
def test_shards(folder, weights, source, stem, suffix):
    names = write_shards(folder, weights, stem, suffix)
    assert_same(Phi3VModel.from_pretrained(folder), source)
    (folder / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=names[1]):
        Phi3VModel.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("names", ["both", "wte"])
def test_the_token_embedding_under_either_name(folder, weights, source, kind, names):
    embedding = weights["model.embed_tokens.weight"]
    if names == "wte":
        del weights["model.embed_tokens.weight"]
    weights["model.vision_embed_tokens.wte.weight"] = embedding.clone()
    write(folder, weights, kind)
    model = Phi3VModel.from_pretrained(folder)
    assert_same(model, source)
    model.save_pretrained(folder / "saved")
    assert_same(Phi3VModel.from_pretrained(folder / "saved"), source)
    assert "embed_tokens.weight" in load_file(folder / "saved" / "model.safetensors")


def test_two_different_token_embeddings_are_an_error(folder, weights):
    weights["model.vision_embed_tokens.wte.weight"] = weights["model.embed_tokens.weight"] + 1
    write(folder, weights)
    with pytest.raises(ValueError, match=r"wte\.weight and model\.embed_tokens\.weight .* differ"):
        Phi3VModel.from_pretrained(folder)


def test_missing_and_unexpected_weights_are_listed(folder, weights):
    del weights["model.layers.0.mlp.down_proj.weight"], weights["model.vision_embed_tokens.glb_GN"]
    weights["model.layers.9.mlp.down_proj.weight"] = torch.zeros(16, 24)
    write(folder, weights)
    with pytest.raises(ValueError, match="does not fit") as caught:
        Phi3VModel.from_pretrained(folder)
    message = str(caught.value)
    assert "2 missing (layers.0.mlp.down_proj.weight, vision_embed_tokens.glb_GN)" in message
    assert "1 unexpected (" in message
    assert "layers.9.mlp.down_proj.weight" in message


def test_a_missing_token_embedding_is_an_error(folder, weights):
    del weights["model.embed_tokens.weight"]
    write(folder, weights)
    with pytest.raises(ValueError, match=r"1 missing \(embed_tokens\.weight\)"):
        Phi3VModel.from_pretrained(folder)


def test_a_weight_of_another_shape_is_an_error(folder, weights):
    weights["model.norm.weight"] = torch.zeros(17)
    write(folder, weights)
    with pytest.raises(ValueError, match=r"1 of another shape \(norm\.weight \[17\] for \[16\]\)"):
        Phi3VModel.from_pretrained(folder)


def test_an_empty_folder_is_an_error(folder):
    with pytest.raises(OSError, match=r"model\.safetensors"):
        Phi3VModel.from_pretrained(folder)


def test_through_the_auto_classes_in_bf16_and_back(folder, weights, source):
    AutoConfig.register("phi3_v", Phi3VConfig, exist_ok=True)
    AutoModel.register(Phi3VConfig, Phi3VModel, exist_ok=True)
    write(folder, weights)
    model, info = AutoModel.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    assert type(model) is Phi3VModel
    assert model.dtype == torch.bfloat16
    assert not info["missing_keys"]
    model.save_pretrained(folder / "saved")
    again = AutoModel.from_pretrained(folder / "saved")
    assert again.dtype == torch.bfloat16
    assert_same(again, model)
    saved = json.loads((folder / "saved" / "config.json").read_text(encoding="utf-8"))
    assert "auto_map" not in saved
    assert again.config.vision_feature_layer == -2


def test_config_without_a_vision_part_is_the_original_vit_l():
    vision = Phi3VConfig().vision_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.image_size, vision.patch_size) == (1024, 24, 336, 14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_config": None}, "image_dim_out=8 beside"),
        ({"embd_layer": {"hd_transform_order": "glb_sub"}}, "hd_transform_order='glb_sub'"),
        ({"img_processor": {"type_feature": "cls_patch"}}, "type_feature='cls_patch'"),
    ],
)
def test_an_unsupported_layout_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        Phi3VConfig(**(CONFIG | change))


def test_a_hidden_size_that_contradicts_the_rope_factors_is_mended(folder, weights, source, caplog):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": 32}), encoding="utf-8")
    write(folder, weights)
    with caplog.at_level(logging.WARNING, "xvlm2vec"):
        assert_same(Phi3VModel.from_pretrained(folder), source)
    assert "hidden_size=32 does not fit" in caplog.text
