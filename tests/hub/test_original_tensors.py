"""Taught tensors under the names, in the files and dtypes of the checkpoint, and those that have no place there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from embedder_folders import (
    TOWER,
    contents,
    decoder,
    different,
    edit_weights,
    read_json,
    spread,
    teach,
    tokenizer,
    weight_files,
    write_json,
    write_text_model,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from xvlm2vec.hub import original_tensors
from xvlm2vec.hub.original import write_original
from xvlm2vec.hub.staging import ExportError

TEXTS = ["a red bicycle", "una bicicletta rossa", "古いパン屋"]


def test_shards_stay_shards(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "given"
    write_text_model(source)
    AutoModel.from_pretrained(source).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    (source / "model.safetensors").unlink()
    shutil.copytree(tmp_path / "shards", source, dirs_exist_ok=True)
    taught = teach(AutoModel.from_pretrained(source), "layer.1.output.dense.weight")
    diff = write_original(source, folder, taught)
    index = read_json(source / "model.safetensors.index.json")["weight_map"]
    assert len(set(index.values())) > 3
    assert diff.changed_tensors == ["encoder.layer.1.output.dense.weight"]
    assert diff.changed_files == [index["encoder.layer.1.output.dense.weight"]]
    assert torch.equal(
        AutoModel.from_pretrained(folder).encoder.layer[1].output.dense.weight,
        taught.encoder.layer[1].output.dense.weight,
    )


def test_the_header_of_a_file_stays(tmp_path: Path) -> None:
    source, folder = write_text_model(tmp_path / "source"), tmp_path / "given"
    edit_weights(source, {}, {"format": "pt", "made_for": "a test"})
    write_original(source, folder, teach(AutoModel.from_pretrained(source)))
    old, new = ((place / "model.safetensors").read_bytes() for place in (source, folder))
    length = 8 + int.from_bytes(old[:8], "little")
    assert len(old) == len(new)
    assert old[:length] == new[:length]
    assert old != new
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "made_for": "a test"}


@pytest.mark.parametrize(
    ("stored", "trained"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float32")]
)
def test_a_dtype_of_training_changes_nothing_by_itself(stored: str, trained: str, tmp_path: Path) -> None:
    source, folder = write_text_model(tmp_path / "source"), tmp_path / "given"
    AutoModel.from_pretrained(source, dtype=getattr(torch, stored)).save_pretrained(source)
    taught = teach(AutoModel.from_pretrained(source, dtype=getattr(torch, trained)), "layer.0.output.dense")
    diff = write_original(source, folder, taught)
    keys = ["encoder.layer.0.output.dense.bias", "encoder.layer.0.output.dense.weight"]
    assert different(*weight_files(source, folder)) == sorted(diff.changed_tensors) == keys
    expected = taught.encoder.layer[0].output.dense.weight.to(getattr(torch, stored))
    assert torch.equal(load_file(folder / "model.safetensors")[keys[1]], expected)


def test_one_tensor_in_another_dtype_than_the_rest_keeps_it(tmp_path: Path) -> None:
    source, folder = write_text_model(tmp_path / "source"), tmp_path / "given"
    AutoModel.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    key = "encoder.layer.0.output.LayerNorm.weight"
    edit_weights(source, {key: torch.rand(32)})
    taught = teach(AutoModel.from_pretrained(source, dtype=torch.float32), "layer.0.output")
    write_original(source, folder, taught)
    assert key in different(*weight_files(source, folder))
    assert torch.equal(load_file(folder / "model.safetensors")[key], taught.encoder.layer[0].output.LayerNorm.weight)


def test_a_step_below_the_stored_precision_changes_nothing(tmp_path: Path) -> None:
    source, folder = write_text_model(tmp_path / "source"), tmp_path / "given"
    AutoModel.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    taught = AutoModel.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        taught.pooler.dense.weight.mul_(1 + 2**-15)
    assert write_original(source, folder, taught).changed_tensors == []
    assert contents(folder)["model.safetensors"] == contents(source)["model.safetensors"]


@pytest.mark.parametrize("rounded", [True, False])
def test_one_tensor_in_another_dtype_is_not_rounded_by_the_way(rounded: bool, tmp_path: Path) -> None:
    """Whether the model was loaded in the checkpoint's dtype and then made float32, or was loaded in float32."""
    source, folder = write_text_model(tmp_path / "source"), tmp_path / "given"
    AutoModel.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    edit_weights(source, {"encoder.layer.0.output.LayerNorm.weight": torch.rand(32)})
    loaded = AutoModel.from_pretrained(source) if rounded else AutoModel.from_pretrained(source, dtype=torch.float32)
    diff = write_original(source, folder, teach(loaded.float(), "layer.1.output.dense.bias"))
    assert diff.changed_tensors == different(*weight_files(source, folder)) == ["encoder.layer.1.output.dense.bias"]


@pytest.mark.parametrize(
    ("tied", "head", "follows"),
    [(True, "same", True), (True, "other", False), (False, "same", False), (False, None, False)],
)
def test_a_head_follows_the_embeddings_only_where_it_is_tied(
    tied: bool, head: str | None, follows: bool, tmp_path: Path
) -> None:
    source, folder = decoder(tmp_path / "source", tied, head), tmp_path / "given"
    taught = teach(AutoModel.from_pretrained(source))
    diff = write_original(source, folder, taught)
    assert ("lm_head.weight" in diff.changed_tensors) == follows
    whole, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    expected = taught.embed_tokens.weight if follows else load_file(source / "model.safetensors")["lm_head.weight"]
    assert torch.equal(whole.lm_head.weight, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_a_class_that_transformers_does_not_know(tied: bool, tmp_path: Path) -> None:
    source, folder = decoder(tmp_path / "source", tied, "same"), tmp_path / "given"
    config = read_json(source / "config.json")
    write_json(source / "config.json", config | {"architectures": ["OwnForCausalLM"]})
    diff = write_original(source, folder, teach(AutoModel.from_pretrained(source)))
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"]) == tied
    assert ("lm_head.weight" in diff.changed_tensors) == tied


def test_a_tied_head_that_is_not_stored_is_not_added(tmp_path: Path) -> None:
    source, folder = decoder(tmp_path / "source", True, None), tmp_path / "given"
    taught = teach(AutoModel.from_pretrained(source))
    write_original(source, folder, taught)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder).lm_head.weight, taught.embed_tokens.weight)


def test_old_names_a_prefix_and_a_decoder_of_the_embeddings(tmp_path: Path) -> None:
    """As files of 2019: the class with the masked-language head, `gamma` and `beta`, position ids, a tied copy."""
    source, folder = write_text_model(tmp_path / "source", "BertForMaskedLM"), tmp_path / "given"
    weights = load_file(source / "model.safetensors")
    weights = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in weights.items()
    }
    weights |= {
        "cls.predictions.decoder.weight": weights["bert.embeddings.word_embeddings.weight"].clone(),
        "bert.embeddings.position_ids": torch.arange(64)[None],
    }
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    taught = teach(AutoModel.from_pretrained(source))
    diff = write_original(source, folder, taught)
    assert "bert.encoder.layer.0.output.LayerNorm.gamma" in diff.changed_tensors
    assert "cls.predictions.decoder.weight" in diff.changed_tensors
    assert "bert.embeddings.position_ids" in diff.unchanged_tensors
    assert diff.not_stored == ["pooler.dense.bias", "pooler.dense.weight"]
    assert "not stored by the original, and not here: pooler.dense.bias" in "\n".join(diff.summary())
    whole = AutoModelForMaskedLM.from_pretrained(folder)
    embeddings = taught.embeddings.word_embeddings.weight
    assert torch.equal(whole.bert.embeddings.word_embeddings.weight, embeddings)
    assert torch.equal(whole.get_output_embeddings().weight, embeddings)
    assert torch.equal(whole.bert.encoder.layer[0].output.LayerNorm.bias, taught.encoder.layer[0].output.LayerNorm.bias)


def test_experts_that_are_joined_when_loaded_come_apart_again(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "given"
    settings = TOWER | {"vocab_size": 100, "num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 16}
    config = transformers.Qwen3MoeConfig(**settings, num_experts=4, num_experts_per_tok=2)
    spread(transformers.Qwen3MoeForCausalLM(config)).to(torch.bfloat16).save_pretrained(source)
    taught = AutoModel.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        taught.layers[1].mlp.experts.down_proj[2].mul_(2)
        taught.layers[0].mlp.experts.gate_up_proj[3, -1].mul_(2)  # the last row is of `up_proj`
    diff = write_original(source, folder, taught)
    names = ["model.layers.0.mlp.experts.3.up_proj.weight", "model.layers.1.mlp.experts.2.down_proj.weight"]
    assert sorted(diff.changed_tensors) == names
    again = AutoModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(again[key], value) for key, value in taught.state_dict().items())


def test_what_was_added_has_no_place(tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "source")
    taught = AutoModel.from_pretrained(source)
    taught.projection = torch.nn.Linear(2, 3)
    with pytest.raises(ExportError, match=r"projection\.weight is nothing there, \(3, 2\) now"):
        write_original(source, tmp_path / "given", taught)


def test_a_longer_vocabulary_has_no_place(tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "source")
    taught = AutoModel.from_pretrained(source)
    taught.resize_token_embeddings(len(tokenizer()) + 8)
    with pytest.raises(ExportError, match=r"word_embeddings\.weight is \(\d+, 32\) there, \(\d+, 32\) now"):
        write_original(source, tmp_path / "given", taught)


def test_one_of_two_tied_weights_cannot_change_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    config = transformers.T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    spread(transformers.T5EncoderModel(config)).save_pretrained(source)
    taught = transformers.T5EncoderModel.from_pretrained(source)
    write_original(source, tmp_path / "both", teach(taught))
    apart = torch.nn.Embedding(100, 32)
    taught.encoder.embed_tokens = apart
    with pytest.raises(ExportError, match=r"encoder\.embed_tokens\.weight was taught, and no tensor of the original"):
        write_original(source, tmp_path / "given", taught)
    assert not (tmp_path / "given").exists()


@pytest.mark.parametrize("changed", [True, False])
def test_a_tensor_that_is_not_what_the_model_holds(
    changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader that does more than the names tell, such as one of quantized weights."""
    source, key = write_text_model(tmp_path / "source"), "encoder.layer.0.output.dense.weight"
    taught = AutoModel.from_pretrained(source)
    loaded = original_tensors._load

    def load(folder: Path, like: Any) -> Any:
        model, missing = loaded(folder, like)
        if folder == source:
            model.state_dict()[key].mul_(2)
        return model, missing

    monkeypatch.setattr(original_tensors, "_load", load)
    with torch.no_grad():
        taught.state_dict()[key].mul_(2)  # as it would be loaded, too
        if changed:
            taught.state_dict()[key].add_(1)
    with pytest.raises(ExportError, match=f"{key} was taught"):
        write_original(source, tmp_path / "given", taught)


def test_values_that_the_stored_dtype_cannot_hold(tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "source")
    AutoModel.from_pretrained(source, dtype=torch.float16).save_pretrained(source)
    taught = AutoModel.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        taught.pooler.dense.bias[0] = 1e6
    with pytest.raises(ExportError, match=r"pooler\.dense\.bias are not all finite in torch\.float16"):
        write_original(source, tmp_path / "given", taught)
