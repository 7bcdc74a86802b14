"""Adapters: on all linear layers that they are meant for and nowhere else; loaded key by key; merged without loss."""

import copy
import json

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from steps import is_vision, make_trainer
from torch import nn
from transformers import Gemma3Config, InternVLConfig, LlavaNextConfig, Qwen2VLConfig, Qwen3VLConfig

from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig
from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.adapters import (
    AdapterConfig,
    AdapterError,
    add_adapter,
    check_four_bit,
    four_bit_config,
    load_adapter,
)
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer

KINDS = {
    "lora": AdapterConfig(rank=3),
    "dora": AdapterConfig(rank=2, dora=True),
    "embeddings": AdapterConfig(rank=2, train_embeddings=True),
    "vision": AdapterConfig(rank=2, train_vision=True),
    "vision, dora": AdapterConfig(rank=2, dora=True, train_vision=True),
    "connector": AdapterConfig(rank=2, train_connector=True),
}
every_kind = pytest.mark.parametrize("config", list(KINDS.values()), ids=list(KINDS))


@pytest.fixture
def inputs(processor, image):
    return processor(text=["a red bicycle", "due cani nel parco"], images=[image(0), None])


@torch.no_grad()
def embed(model, inputs):
    return model(**inputs).pooler_output


def trained(model, config):
    """An adapter that does something."""
    adapted = add_adapter(model, config).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return adapted


@every_kind
def test_a_fresh_adapter_changes_nothing_and_trains_what_it_lies_on(model, inputs, config):
    before = embed(model, inputs)
    linears = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (config.train_vision or ".text_model." in name)
    }
    assert any(is_vision(name) for name in linears) is config.train_vision
    adapted = add_adapter(model, config).eval()
    torch.testing.assert_close(embed(adapted, inputs), before)
    assert adapted.peft_config["default"].task_type == "FEATURE_EXTRACTION"
    trainable = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    prefix = "base_model.model."
    with_lora = {name.removeprefix(prefix).split(".lora_")[0] for name in trainable if ".lora_" in name}
    assert with_lora == linears
    others = {name for name in trainable if ".lora_" not in name}
    whole = ["embed_tokens"] * config.train_embeddings + [".connector."] * config.train_connector
    assert len(others) == len(whole)
    assert all(part in name for part, name in zip(whole, others, strict=True))


@pytest.mark.parametrize("backbone", [Phi3VConfig, Qwen2VLConfig, LlavaNextConfig])
def test_only_the_token_embeddings_are_trained_whole(backbone):
    with torch.device("meta"):
        model = XVLM2VecModel(XVLM2VecConfig(vlm_config=backbone()))
        embeddings = model.get_input_embeddings()
        adapted = add_adapter(model, AdapterConfig(rank=2, train_embeddings=True))
    (whole,) = [module for module in adapted.modules() if isinstance(module, ModulesToSaveWrapper)]
    assert whole.original_module is embeddings


def test_embeddings_on_a_base_in_half_precision_are_trained_in_float32(tmp_path, model, inputs):
    model.to(torch.bfloat16)
    base = copy.deepcopy(model)
    before = embed(model, inputs)
    adapted = add_adapter(model, AdapterConfig(rank=2, train_embeddings=True)).eval()
    assert torch.equal(embed(adapted, inputs), before)
    trained = {parameter.dtype for parameter in adapted.parameters() if parameter.requires_grad}
    assert trained == {torch.float32}
    embeddings = adapted.get_input_embeddings().modules_to_save["default"].weight
    with torch.no_grad():
        embeddings += 1e-5  # bfloat16 would lose it
        embeddings[::2] *= 1.3
    vectors = embed(adapted, inputs)
    assert not torch.equal(vectors, before)
    adapted.save_pretrained(tmp_path)
    merged = load_adapter(base, tmp_path).merge_and_unload()
    assert {weight.dtype for weight in merged.state_dict().values()} == {torch.bfloat16}
    assert torch.equal(embed(merged, inputs), vectors)


@pytest.mark.parametrize("vision", [False, True])
@pytest.mark.parametrize(
    ("backbone", "language", "seeing"),
    [
        (Phi3VConfig, 4 * 32, 6 * 24 + 2),  # qkv, o, gate and up, down of each layer; the connector's two
        (Qwen2VLConfig, 7 * 80, 4 * 32 + 2),
        (Qwen3VLConfig, 7 * 32, 4 * 27 + 2 * 4),  # the merger, and those of three deeper layers
        (LlavaNextConfig, 7 * 32, 6 * 24 + 2),
        (InternVLConfig, 7 * 32, 6 * 24 + 2),
        # Of the pooling head that Gemma 3 passes over: the MLP, but not what lies in torch's own attention.
        (Gemma3Config, 7 * 26, 6 * 12 + 2),
    ],
)
def test_an_adapter_lies_on_the_linear_layers_of_each_family(backbone, language, seeing, vision):
    with torch.device("meta"):
        model = XVLM2VecModel(XVLM2VecConfig(vlm_config=backbone()))
        adapted = add_adapter(model, AdapterConfig(rank=2, train_vision=vision))
    hit = [name for name, module in adapted.named_modules() if isinstance(module, LoraLayer)]
    assert sum(not is_vision(name) for name in hit) == language
    assert sum(is_vision(name) for name in hit) == seeing * vision


def test_a_frozen_tower_does_not_hide_an_adapter_that_should_learn(tmp_path, model, processor, corpus):
    adapted = add_adapter(model, AdapterConfig(rank=2, train_vision=True))
    with pytest.raises(ValueError, match=r"untrained \(.*lora_A.*\). Pass freeze_vision=False"):
        make_trainer(tmp_path, adapted, processor, corpus)


@pytest.mark.parametrize(("config", "scale"), [(AdapterConfig(rank=4), 2), (AdapterConfig(rank=4, alpha=4), 1)])
def test_the_scale_is_alpha_by_rank(model, config, scale):
    adapted = add_adapter(model, config)
    scalings = {module.scaling["default"] for module in adapted.modules() if isinstance(module, LoraLayer)}
    assert scalings == {scale}


@every_kind
def test_saved_loaded_and_merged_adapters_give_the_same_vectors(tmp_path, model, inputs, config):
    base = copy.deepcopy(model)
    adapted = trained(model, config)
    vectors = embed(adapted, inputs)
    assert (vectors - embed(base, inputs)).abs().max() > 1e-3
    adapted.save_pretrained(tmp_path)
    loaded = load_adapter(base, tmp_path)
    assert isinstance(loaded, PeftModel)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    assert torch.equal(embed(loaded, inputs), vectors)
    merged = loaded.merge_and_unload()
    assert not any("lora" in name for name, _ in merged.named_modules())
    torch.testing.assert_close(embed(merged, inputs), vectors, rtol=1e-4, atol=1e-5)


def test_an_adapter_names_its_base_by_a_path_that_holds_from_any_folder(tmp_path, model, processor, monkeypatch):
    model.save_pretrained(tmp_path / "runs" / "teacher")
    processor.save_pretrained(tmp_path / "runs" / "teacher")
    monkeypatch.chdir(tmp_path)
    adapted = add_adapter(type(model).from_pretrained("runs/teacher"), AdapterConfig(rank=2))
    adapted.save_pretrained("runs/adapter")
    config = json.loads((tmp_path / "runs" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "runs" / "teacher")


@every_kind
def test_switched_off_the_base_is_as_it_was(model, inputs, config):
    before = embed(model, inputs)
    adapted = trained(model, config)
    with adapted.disable_adapter():
        assert torch.equal(embed(adapted, inputs), before)
    assert not torch.equal(embed(adapted, inputs), before)


@pytest.mark.parametrize("part", ["lora_A", "lora_B", "lora_magnitude_vector", "embed_tokens"])
def test_a_missing_key_is_an_error_that_names_it(tmp_path, model, part):
    base = copy.deepcopy(model)
    trained(model, AdapterConfig(rank=2, dora=True, train_embeddings=True)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    dropped = next(key for key in weights if part in key)
    del weights[dropped]
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=part):
        load_adapter(base, tmp_path)


def test_a_key_that_lands_nowhere_is_an_error_that_names_it(tmp_path, model):
    base = copy.deepcopy(model)
    trained(model, AdapterConfig(rank=2)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    key = next(key for key in weights if "layers.1" in key)
    weights[key.replace("layers.1", "layers.9")] = weights[key].clone()
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"unexpected .*layers\.9"):
        load_adapter(base, tmp_path)


@pytest.mark.parametrize(
    ("embeddings", "vision"),
    [(False, False), (True, False), (False, True)],
    ids=["dora", "dora and embeddings", "dora and vision"],
)
def test_dora_from_training_to_a_merged_model_on_disk(tmp_path, model, processor, corpus, inputs, embeddings, vision):
    """Three steps, saved, put on the base again, merged, saved as an ordinary model, loaded: the same vectors."""
    base = copy.deepcopy(model)
    config = AdapterConfig(rank=2, dora=True, train_embeddings=embeddings, train_vision=vision)
    args = SelfDistillationConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
        max_steps=3, per_device_train_batch_size=4, learning_rate=1e-2, teacher="adapter-off",
        freeze_vision=not vision,
    )  # fmt: skip
    trainer = SelfDistillationTrainer(
        add_adapter(model, config), args, train_dataset=corpus, processing_class=processor
    )
    trainer.train()
    vectors = embed(trainer.model.eval(), inputs)
    assert (vectors - embed(base, inputs)).abs().max() > 1e-3
    trainer.save_model(str(tmp_path / "adapter"))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    moved = [name for name, weight in saved.items() if "lora_B" in name and weight.any()]
    assert any("magnitude" in name for name in saved)
    assert any(is_vision(name) for name in moved) is vision
    base.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    merged = XVLM2VecModel.from_pretrained(tmp_path / "adapter", base=tmp_path / "base")  # without PEFT
    torch.testing.assert_close(embed(merged, inputs), vectors, rtol=1e-4, atol=1e-5)
    load_adapter(base, tmp_path / "adapter").merge_and_unload().save_pretrained(tmp_path / "merged")
    loaded = XVLM2VecModel.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(embed(loaded, inputs), vectors, rtol=1e-4, atol=1e-5)


def test_four_bits_need_a_gpu_and_say_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="needs a CUDA GPU"):
        check_four_bit()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("xvlm2vec.trainer.adapters.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        check_four_bit()


def test_four_bits_are_those_of_qlora():
    config = four_bit_config()
    assert config.load_in_4bit
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == config.bnb_4bit_quant_storage == torch.bfloat16
    assert {"vision_model", "visual", "connector"} <= set(config.llm_int8_skip_modules)


def test_a_connector_is_trained_whole_or_by_an_adapter_and_must_be_there(model):
    with pytest.raises(ValueError, match="leave train_vision or train_connector out"):
        add_adapter(model, AdapterConfig(train_vision=True, train_connector=True))
    del model.backbone.connector
    with pytest.raises(ValueError, match="has no part called connector"):
        add_adapter(model, AdapterConfig(train_connector=True))


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: add_adapter(model, AdapterConfig(rank=2))])
def test_batch_normalisation_keeps_its_statistics_in_training(model, wrap):
    norm = model.backbone.vision_model.norm = nn.BatchNorm1d(3)
    wrap(model).train()
    assert model.training
    assert model.backbone.vision_model.training
    assert not norm.training
    rows = torch.randn(5, 3)
    torch.testing.assert_close(norm(rows)[:1], norm(rows[:1]))
    assert not norm.running_mean.any()
