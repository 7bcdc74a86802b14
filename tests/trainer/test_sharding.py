"""What is sharded by which layers, and a tower that every pass uses; two real processes are in test_distributed."""

import pytest
import torch
from transformers import LlavaNextConfig, Qwen2VLConfig

from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig
from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.sharding import layer_classes, use_vision_in_every_pass, with_its_class
from xvlm2vec.trainer.vision_parameters import freeze_vision, vision_modules, vision_parameters


def test_the_layers_of_the_language_model_are_found(model):
    assert layer_classes(model) == ["LlamaDecoderLayer"]  # the tiny tower has one layer: there is no list to shard
    assert layer_classes(add_adapter(model, AdapterConfig(rank=2))) == ["LlamaDecoderLayer"]


@pytest.mark.parametrize(
    ("config", "layers", "tower"),
    [
        (LlavaNextConfig, "LlamaDecoderLayer", "CLIPEncoderLayer"),
        (Qwen2VLConfig, "Qwen2VLDecoderLayer", "Qwen2VLVisionBlock"),
        (Phi3VConfig, "Phi3DecoderLayer", "CLIPEncoderLayer"),
    ],
)
def test_the_layers_of_other_families_are_found(config, layers, tower):
    with torch.device("meta"):
        model = XVLM2VecModel(XVLM2VecConfig(vlm_config=config()))
    assert layer_classes(model, vision_modules(model)) == [layers]
    assert set(layer_classes(model)) >= {layers, tower}
    declared = {id(parameter) for part in vision_modules(model) for parameter in part.parameters()}
    assert declared <= {id(parameter) for parameter in vision_parameters(model)}


def test_a_tower_gets_gradients_from_a_pass_without_images(model, processor):
    inputs = processor(text=["rain over the sea"])
    before = model(**inputs).pooler_output
    use_vision_in_every_pass(model)
    after = model(**inputs).pooler_output
    assert torch.equal(before, after)
    after.sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in vision_parameters(model))
    freeze_vision(model)
    model.zero_grad()
    model(**inputs).pooler_output.sum().backward()
    assert all(weight.grad is None for weight in vision_parameters(model))


def test_a_whole_model_keeps_its_class(model):
    assert with_its_class(model) is model
