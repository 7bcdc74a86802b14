"""A taught embedder, given back in the form in which it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedder_folders import (
    SIDE,
    add_modules,
    contents,
    different,
    read_json,
    teach,
    weight_files,
    write_json,
    write_text_embedder,
    write_text_model,
    write_towers,
    write_vision_language_model,
)
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, AutoModelForImageTextToText

from xvlm2vec.hub.original import OriginalDiff, write_original
from xvlm2vec.hub.original_modules import TaughtHead
from xvlm2vec.hub.staging import ExportError
from xvlm2vec.hub.stored_tensors import StoredTensors

TEXTS = ["a red bicycle", "una bicicletta rossa", "古いパン屋"]


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


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


def test_the_last_word_before_the_folder_takes_its_place(tmp_path: Path) -> None:
    source, folder = write_text_model(tmp_path / "source"), tmp_path / "given"
    taught = teach(AutoModel.from_pretrained(source))

    def refuse(written: Path) -> None:
        assert different(*weight_files(source, written))
        raise ValueError("another vector")

    with pytest.raises(ValueError, match="another vector"):
        write_original(source, folder, taught, finish=refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    diff = write_original(source, folder, taught, finish=lambda written: write_json(written / "scores.json", {}))
    assert diff.added_files == ["scores.json", "export.json"]


def test_an_adapter_must_be_merged_first(tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "source")
    adapted: Any = get_peft_model(AutoModel.from_pretrained(source), LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(ExportError, match="merge its adapter first"):
        write_original(source, tmp_path / "given", adapted)
    with pytest.raises(ExportError, match="no place for what was taught"):
        write_original(source, tmp_path / "given", adapted.get_base_model())
    taught = adapted.merge_and_unload()
    assert write_original(source, tmp_path / "given", taught).changed_tensors == []


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
