"""A taught embedder, given back in the form in which it came."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from embedder_folders import (
    SIDE,
    TOWER,
    add_modules,
    edit_weights,
    read_json,
    spread,
    teach,
    tokenizer,
    write_json,
    write_text_embedder,
    write_text_model,
    write_towers,
    write_vision_language_model,
)
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMaskedLM

from xvlm2vec.hub import original_tensors
from xvlm2vec.hub.original import OriginalDiff, write_original
from xvlm2vec.hub.original_modules import TaughtHead
from xvlm2vec.hub.staging import ExportError
from xvlm2vec.hub.stored_tensors import StoredTensors
from xvlm2vec.modeling.loading import CheckpointError

TEXTS = ["a red bicycle", "una bicicletta rossa", "古いパン屋"]


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def different(before: Path, after: Path) -> list[str]:
    """The tensors of two files that differ; names and dtypes must not."""
    old, new = load_file(before), load_file(after)
    assert {key: value.dtype for key, value in old.items()} == {key: value.dtype for key, value in new.items()}
    return sorted(key for key in old if raw(old[key]) != raw(new[key]))


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def text_embedder(folder: Path) -> Path:
    return write_text_embedder(folder)


def old_text_embedder(folder: Path) -> Path:
    return write_text_embedder(folder, place="0_Transformer", old=True)


def clip(folder: Path) -> Path:
    return write_towers(folder, "clip")


def siglip(folder: Path) -> Path:
    return write_towers(folder, "siglip")


def old_clip(folder: Path) -> Path:
    write_towers(folder / "0_CLIPModel", "clip")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    write_json(folder / "modules.json", [module])
    return folder


def llava(folder: Path) -> Path:
    return add_modules(write_vision_language_model(folder, "llava"))


def gemma3(folder: Path) -> Path:
    return add_modules(write_vision_language_model(folder, "gemma3"))


# --- whole embedders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [text_embedder, old_text_embedder, clip, siglip, old_clip, llava, gemma3])
def test_only_taught_tensors_differ_and_stock_libraries_give_the_taught_vectors(
    write: Any, image: Image.Image, tmp_path: Path
) -> None:
    source, folder = write(tmp_path / "source"), tmp_path / "given"
    before = contents(source)
    taught = SentenceTransformer(str(source), device="cpu")
    first: Any = taught[0]
    text_only = write in (text_embedder, old_text_embedder)
    teach(first.auto_model, *(["encoder"] if text_only else ["text_", "language_model"]))
    dense = [at for at, module in enumerate(taught) if isinstance(module, Dense)]
    heads = [TaughtHead(f"{at}_Dense", teach(taught[at]).state_dict()) for at in dense]
    diff = write_original(source, folder, first.auto_model, heads, card_text="# Taught\n")

    after = contents(folder)
    assert contents(source) == before
    weights = {name for name in before if name.endswith(".safetensors")}
    assert after.keys() == before.keys() | {"README.md", "export.json"}
    assert {name for name in before if before[name] != after[name]} == weights | ({"README.md"} & before.keys())
    assert after["README.md"] == b"# Taught\n"
    changed = [
        f"{name.rpartition('/')[0]}/{key}".removeprefix("/")
        for name in sorted(weights)
        for key in different(source / name, folder / name)
    ]
    assert sorted(diff.changed_tensors) == sorted(changed)
    assert changed
    assert not any("vision" in key for key in changed)

    stock = SentenceTransformer(str(folder), device="cpu")
    rows: list[Any] = TEXTS if text_only else [*TEXTS, image]
    for row in rows:  # one by one: sentence-transformers pads SigLIP's texts to the batch
        assert np.array_equal(stock.encode([row]), taught.encode([row]))
    original = SentenceTransformer(str(source), device="cpu")
    assert not np.allclose(original.encode(TEXTS[:1]), taught.encode(TEXTS[:1]), atol=1e-3)


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_vl", "qwen3_vl_moe", "smolvlm", "gemma3", "llava"])
def test_the_class_with_the_head_loads_every_tensor(name: str, tmp_path: Path) -> None:
    source, folder = write_vision_language_model(tmp_path / "source", name), tmp_path / "given"
    taught = teach(AutoModel.from_pretrained(source))
    write_original(source, folder, taught)
    whole, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    again = AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(again[key], value) for key, value in taught.state_dict().items())
    assert torch.equal(whole.get_input_embeddings().weight, taught.get_input_embeddings().weight)
    heads = [key for key in load_file(source / "model.safetensors") if key.endswith("lm_head.weight")]
    unchanged = set(load_file(source / "model.safetensors")) - set(different(*weight_files(source, folder)))
    assert unchanged == set(heads)
    assert (folder / "config.json").read_bytes() == (source / "config.json").read_bytes()


def weight_files(*folders: Path) -> list[Path]:
    return [folder / "model.safetensors" for folder in folders]


def test_a_router_names_which_backbone_was_taught(tmp_path: Path) -> None:
    bare, source, folder = write_text_model(tmp_path / "bare"), tmp_path / "source", tmp_path / "given"
    routes = {"query": [Transformer(str(bare)), Pooling(32)], "document": [Transformer(str(bare)), Pooling(32)]}
    SentenceTransformer(modules=[Router(routes, default_route="query")], device="cpu").save(str(source))
    (route,) = {path.parent.name for path in source.rglob("model.safetensors") if "query" in path.parent.name}
    taught = teach(AutoModel.from_pretrained(source / route))
    with pytest.raises(ExportError, match=r"has no config\.json; say where the backbone"):
        write_original(source, folder, taught)
    diff = write_original(source, folder, taught, weights_folder=route)
    assert [name for name in diff.changed_files if name != "README.md"] == [f"{route}/model.safetensors"]
    assert all(key.startswith(f"{route}/") for key in diff.changed_tensors)


# --- the weights' files ----------------------------------------------------------------------------------------------


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


def decoder(folder: Path, tied: bool, head: str | None) -> Path:
    """A decoder with a stored head: the embeddings' values, other ones, or what it has of its own (`None`)."""
    words = tokenizer()
    settings = TOWER | {"vocab_size": len(words), "num_key_value_heads": 2, "head_dim": 8}
    config = transformers.Qwen3Config(**settings, tie_word_embeddings=tied)
    spread(transformers.Qwen3ForCausalLM(config)).save_pretrained(folder)
    if head is not None:
        embeddings = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        edit_weights(folder, {"lm_head.weight": embeddings * (1 if head == "same" else 2)})
    return folder


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


# --- pickles, exports, links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2])
def test_pickles_become_safetensors(shards: int, tmp_path: Path) -> None:
    source, folder = write_text_embedder(tmp_path / "source"), tmp_path / "given"
    for place, parts in ((source, shards), (source / "2_Dense", 1)):
        weights = load_file(place / "model.safetensors")
        (place / "model.safetensors").unlink()
        pickle_weights(place, weights, parts)
    taught = SentenceTransformer(str(source), device="cpu")
    first: Any = taught[0]
    teach(first.auto_model)
    diff = write_original(source, folder, first.auto_model, [TaughtHead("2_Dense", teach(taught[2]).state_dict())])
    assert not list(folder.rglob("*.bin*"))
    assert "2_Dense/model.safetensors" in diff.added_files
    assert all(name.endswith((".bin", ".json")) for name in diff.left_out)
    assert diff.left_out["2_Dense/pytorch_model.bin"].endswith("its tensors are in 2_Dense/model.safetensors")
    stock = SentenceTransformer(str(folder), device="cpu")
    assert np.array_equal(stock.encode(TEXTS), taught.encode(TEXTS))


def pickle_weights(folder: Path, weights: dict[str, torch.Tensor], parts: int) -> None:
    if parts == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        return
    names = {key: f"pytorch_model-0000{at % parts + 1}-of-0000{parts}.bin" for at, key in enumerate(weights)}
    for name in set(names.values()):
        torch.save({key: weights[key] for key in weights if names[key] == name}, folder / name)
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": 1}, "weight_map": names})


def test_tied_tensors_in_a_pickle_share_their_memory(tmp_path: Path) -> None:
    source, folder = decoder(tmp_path / "source", True, None), tmp_path / "given"
    weights = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, source / "pytorch_model.bin")
    taught = teach(AutoModel.from_pretrained(source))
    diff = write_original(source, folder, taught)
    assert "lm_head.weight" in diff.changed_tensors
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder).lm_head.weight, taught.embed_tokens.weight)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    source = write_text_embedder(tmp_path / "source")
    taught = AutoModel.from_pretrained(source)
    (source / "2_Dense" / "model.safetensors").unlink()
    torch.save({"linear.weight": Runs()}, source / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="broken file"):
        write_original(source, tmp_path / "given", taught)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "given").exists()


LEFT_OUT = {
    "pytorch_model.bin": "another copy",
    "model.fp16.safetensors": "another copy",
    "model.safetensors.index.json": "another copy",
    "model-00001-of-00002.safetensors": "another copy",
    "tf_model.h5": "another copy",
    "onnx/model_quantized.onnx": "another copy",
    "onnx/config.json": "another copy",
    "openvino/openvino_model.xml": "another copy",
    "2_Dense/pytorch_model.bin": "another copy",
    "checkpoint-10/model.safetensors": "a state of the training",
    "optimizer.pt": "a state of the training",
    "training_args.bin": "a state of the training",
    ".git/config": "not part of the model",
    ".cache/huggingface/x.lock": "not part of the model",
    "golden.json": "vectors of the weights as they were",
    "notes.pkl": "may run code",
    ".DS_Store": "left behind",
}


def test_copies_of_the_old_weights_stay_behind(tmp_path: Path) -> None:
    source, folder = write_text_embedder(tmp_path / "source"), tmp_path / "given"
    for name in [*LEFT_OUT, "custom_code.py", "merges/vocabulary.txt"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"{}")
    diff = write_original(source, folder, AutoModel.from_pretrained(source))
    assert diff.left_out.keys() == LEFT_OUT.keys()
    assert all(diff.left_out[name].startswith(reason) for name, reason in LEFT_OUT.items())
    assert not set(contents(folder)) & LEFT_OUT.keys()
    assert {"custom_code.py", "merges/vocabulary.txt"} <= set(diff.unchanged_files)
    assert diff.changed_files == diff.changed_tensors == []
    assert "left out: tf_model.h5: another copy of the weights as they were before" in diff.summary()


def as_snapshot(folder: Path, cache: Path) -> Path:
    """Lays a folder down as the Hub's client does: links into a store of files."""
    place, blobs = cache / "models--a--b" / "snapshots" / ("0" * 40), cache / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for at, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        link = place / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blobs / str(at))
        link.symlink_to(os.path.relpath(blobs / str(at), link.parent))
    return place


def test_the_links_of_a_hub_snapshot_become_files(tmp_path: Path) -> None:
    plain = write_text_embedder(tmp_path / "plain")
    source, folder = as_snapshot(plain, tmp_path / "cache"), tmp_path / "given"
    before = contents(plain)
    write_original(source, folder, teach(AutoModel.from_pretrained(source)))
    assert contents(source) == before
    assert contents(folder).keys() == before.keys() | {"export.json"}
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.mark.parametrize("target", ["file", "folder", "nowhere"])
def test_links_out_of_the_folder_are_refused(target: str, tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "source")
    taught = AutoModel.from_pretrained(source)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("secret", encoding="utf-8")
    places = {"file": tmp_path / "secrets" / "key", "folder": tmp_path / "secrets", "nowhere": tmp_path / "missing"}
    (source / "link").symlink_to(places[target])
    error = CheckpointError if target == "nowhere" else ExportError
    with pytest.raises(error, match="link"):
        write_original(source, tmp_path / "given", taught)
    assert not (tmp_path / "given").exists()


# --- new modules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [True, False])
def test_a_new_head_stands_before_normalize(old: bool, tmp_path: Path) -> None:
    source, folder = write_text_embedder(tmp_path / "source", dense=False, old=old), tmp_path / "given"
    taught = SentenceTransformer(str(source), device="cpu")
    first: Any = taught[0]
    head = Dense(32, 24, activation_function=torch.nn.Identity())
    diff = write_original(
        source, folder, first.auto_model, [TaughtHead("2_Dense", head.state_dict(), head.get_config_dict())]
    )
    modules = read_json(folder / "modules.json")
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Dense", "2_Normalize"]
    assert [(module["idx"], module["name"]) for module in modules] == [(at, str(at)) for at in range(4)]
    assert modules[2]["type"] == ("sentence_transformers.models.Dense" if old else NEW_DENSE)
    assert {"2_Dense/config.json", "2_Dense/model.safetensors"} <= set(diff.added_files)
    assert diff.changed_files == ["modules.json"]
    stock = SentenceTransformer(str(folder), device="cpu")
    expected = SentenceTransformer(modules=[taught[0], taught[1], head, taught[2]], device="cpu")
    assert np.array_equal(stock.encode(TEXTS), expected.encode(TEXTS))


NEW_DENSE = "sentence_transformers.base.modules.dense.Dense"


def test_a_bare_text_encoder_gets_its_pooling_too(tmp_path: Path) -> None:
    source, folder = write_text_model(tmp_path / "source"), tmp_path / "given"
    backbone, pooling, head = AutoModel.from_pretrained(source), Pooling(32, pooling_mode="cls"), Dense(32, 24)
    dense = TaughtHead("2_Dense", head.state_dict(), head.get_config_dict())
    with pytest.raises(ExportError, match="must begin with its Pooling"):
        write_original(source, folder, backbone, [dense])
    write_original(source, folder, backbone, [TaughtHead("1_Pooling", {}, pooling.get_config_dict(), "Pooling"), dense])
    expected = SentenceTransformer(modules=[Transformer(str(source)), pooling, head], device="cpu")
    assert np.array_equal(SentenceTransformer(str(folder), device="cpu").encode(TEXTS), expected.encode(TEXTS))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (TaughtHead("4_Dense", {}), "has no configuration"),
        (TaughtHead("4_Dense", {}, {}, "Sparse"), "'Sparse' is no module that can be added"),
        (TaughtHead("../4_Dense", {}, {}), "leads out of the model's folder"),
        (TaughtHead("README.md", {}, {}), "has a folder that is taken"),
        (TaughtHead("2_Dense", {"linear.weights": torch.zeros(1)}), "linear.weights was taught, and 2_Dense of the"),
        (TaughtHead("2_Dense", {"linear.bias": torch.zeros(3)}), r"linear.bias was taught as \(3,\), and is stored"),
    ],
)
def test_heads_that_do_not_fit(head: TaughtHead, message: str, tmp_path: Path) -> None:
    source = write_text_embedder(tmp_path / "source")
    with pytest.raises(ValueError, match=message):
        write_original(source, tmp_path / "given", AutoModel.from_pretrained(source), [head])
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- what cannot be given back ---------------------------------------------------------------------------------------


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


def test_an_adapter_has_no_weights_of_its_own(tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "source")
    taught = AutoModel.from_pretrained(source)
    (source / "model.safetensors").rename(source / "adapter_model.safetensors")
    write_json(source / "adapter_config.json", {})
    with pytest.raises(CheckpointError, match="it is an adapter: merge it first"):
        write_original(source, tmp_path / "given", taught)


def truncate(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def no_weights(source: Path) -> None:
    (source / "model.safetensors").unlink()


def missing_shard(source: Path) -> None:
    (source / "model.safetensors").unlink()
    write_json(source / "model.safetensors.index.json", {"weight_map": {"x": "model-00001-of-00001.safetensors"}})


def shard_elsewhere(source: Path) -> None:
    missing_shard(source)
    write_json(source / "model.safetensors.index.json", {"weight_map": {"x": "../other.safetensors"}})


def no_index(source: Path) -> None:
    missing_shard(source)
    (source / "model.safetensors.index.json").write_text("[]", encoding="utf-8")


def no_modules(source: Path) -> None:
    (source / "modules.json").write_text("{", encoding="utf-8")


def modules_elsewhere(source: Path) -> None:
    write_json(source / "modules.json", [{"name": "0", "path": "../x", "type": "x"}])


def odd_modules(source: Path) -> None:
    write_json(source / "modules.json", [{"path": 3}])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "broken file"),
        (no_weights, "no file of weights that could be given back"),
        (missing_shard, "is incomplete"),
        (shard_elsewhere, "names a file elsewhere"),
        (no_index, "is no index of weights"),
        (no_modules, "is no valid JSON"),
        (modules_elsewhere, "leads out of the model's folder"),
        (odd_modules, "is no list of modules"),
    ],
)
def test_a_damaged_original(damage: Any, message: str, tmp_path: Path) -> None:
    source = write_text_embedder(tmp_path / "source")
    taught = AutoModel.from_pretrained(source)
    damage(source)
    with pytest.raises(CheckpointError, match=message):
        write_original(source, tmp_path / "given", taught)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- whole or not at all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_what_was_there(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = write_text_model(tmp_path / "source"), tmp_path / "given"
    taught = teach(AutoModel.from_pretrained(source))
    write_original(source, folder, taught)
    before, write = contents(folder), StoredTensors.write

    def interrupted(self: StoredTensors, key: str, value: torch.Tensor) -> None:
        if "layer.1" in key:
            raise error
        write(self, key, value)

    monkeypatch.setattr(StoredTensors, "write", interrupted)
    with pytest.raises(error):
        write_original(source, folder, teach(taught, seed=2))
    assert contents(folder) == before
    with pytest.raises(error):
        write_original(source, tmp_path / "other", taught)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "source"]


def test_folders_that_lie_in_each_other(tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "source")
    taught = AutoModel.from_pretrained(source)
    for folder in (source, source / "given", tmp_path):
        with pytest.raises(ExportError, match="lie in each other"):
            write_original(source, folder, taught)
    with pytest.raises(ExportError, match="there is no folder"):
        write_original(tmp_path / "missing", tmp_path / "given", taught)


def test_without_a_card_the_originals_stays(tmp_path: Path) -> None:
    source, folder = write_text_embedder(tmp_path / "source"), tmp_path / "given"
    diff = write_original(source, folder, AutoModel.from_pretrained(source))
    assert (folder / "README.md").read_bytes() == (source / "README.md").read_bytes()
    assert diff.changed_files == []
    assert diff.added_files == ["export.json"]


def test_the_summary_tells_the_difference() -> None:
    diff = OriginalDiff(["a", "b"], ["model.safetensors"], ["export.json"], {"x.onnx": "old"}, list("wxyz"), ["v"], [])
    assert diff.summary() == [
        "the same bytes: 2 files",
        "changed: model.safetensors",
        "taught: 4 of 5 stored tensors: w, x, y and 1 more",
        "added: export.json",
        "left out: x.onnx: old",
    ]
