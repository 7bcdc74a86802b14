"""Which files of an original are given back, which stay behind, and originals that are damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedder_folders import (
    contents,
    decoder,
    teach,
    write_json,
    write_text_embedder,
    write_text_model,
)
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForCausalLM

from xvlm2vec.hub.original import write_original
from xvlm2vec.hub.original_modules import TaughtHead
from xvlm2vec.hub.staging import ExportError
from xvlm2vec.modeling.loading import CheckpointError

TEXTS = ["a red bicycle", "una bicicletta rossa", "古いパン屋"]


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
