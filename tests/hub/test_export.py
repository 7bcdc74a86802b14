from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.hub import export
from xvlm2vec.hub.card import read_metadata
from xvlm2vec.hub.export import check_self_contained, export_adapter, export_model
from xvlm2vec.hub.golden import golden_vectors, image_size, read_golden
from xvlm2vec.hub.saved_weights import tensor_places
from xvlm2vec.hub.staging import ExportError


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_an_export_holds_all_that_users_need(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert {
        "README.md",
        "LICENSE",
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "processor_config.json",
        "tokenizer.json",
        "golden.json",
        "golden.safetensors",
        "modeling_xvlm2vec.py",
        "configuration_xvlm2vec.py",
        "processing_xvlm2vec.py",
        "model.safetensors.index.json",
    } <= names
    assert "__init__.py" not in names
    scores = json.loads((exported / "scores.json").read_text(encoding="utf-8"))["scores"]
    assert scores["teacher"]["t2i"]["de"] == {"p_at_1": 0.31, "n": 200}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in exported.iterdir()), "others may read it"
    assert exported.stat().st_mode & 0o777 == 0o755


def test_the_config_names_the_code_and_the_tested_versions(exported: Path, backbone_folder: Path) -> None:
    config = read_json(exported / "config.json")
    assert config["auto_map"] == {
        "AutoConfig": "configuration_xvlm2vec.XVLM2VecConfig",
        "AutoModel": "modeling_xvlm2vec.XVLM2VecModel",
    }
    assert read_json(exported / "processor_config.json")["auto_map"]["AutoProcessor"]
    versions = config["tested_versions"]
    assert versions["transformers"] == ">=5.21,<6"
    assert versions["torch"].startswith(">=")
    for name in ("config.json", "README.md", "processor_config.json", "golden.json"):
        assert str(backbone_folder) not in (exported / name).read_text(encoding="utf-8"), "a path of this machine"


def test_exporting_leaves_the_model_as_it_was(model: XVLM2VecModel, processor, tmp_path: Path) -> None:
    config, weights = model.config.to_dict(), {key: value.clone() for key, value in model.state_dict().items()}
    export_model(model, processor, tmp_path / "model")
    assert model.config.to_dict() == config
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_an_adapter_is_merged_into_a_copy(adapted: PeftModel, processor: XVLM2VecProcessor, tmp_path: Path) -> None:
    folder = export_model(adapted, processor, tmp_path / "model")
    keys = set(tensor_places(folder))
    assert not [key for key in keys if "lora" in key or "base_layer" in key or "modules_to_save" in key]
    size = image_size(processor)
    before = golden_vectors(adapted.get_base_model(), processor, size)
    assert torch.allclose(read_golden(folder).vectors, before, atol=1e-5)
    assert any("lora_" in name for name, _ in adapted.named_parameters()), "the model in memory keeps its adapter"
    loaded = XVLM2VecModel.from_pretrained(folder)
    assert torch.allclose(golden_vectors(loaded, processor, size), before, atol=1e-5)
    with adapted.disable_adapter():
        assert not torch.allclose(golden_vectors(adapted.get_base_model(), processor, size), before, atol=1e-2)


def test_adapter_layers_that_were_not_merged_are_refused(adapted: PeftModel, processor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"belong to an adapter .*merge_and_unload"):
        export_model(adapted.get_base_model(), processor, tmp_path / "model")
    assert not list(tmp_path.iterdir()), "nothing half-written is left"


def test_a_model_of_another_kind_is_refused(model: XVLM2VecModel, processor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Idefics3Model .*from_backbone"):
        export_model(model.backbone, processor, tmp_path / "model")


def test_an_earlier_export_is_replaced_and_a_foreign_folder_is_not(
    model: XVLM2VecModel, processor: XVLM2VecProcessor, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    export_model(model, processor, folder, max_shard_size="200KB")
    export_model(model, processor, folder)
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("model-*.safetensors")), "no shards of the earlier export"
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match=r"thesis\.txt"):
        export_model(model, processor, folder)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").write_bytes(b"")
    with pytest.raises(ExportError, match="not empty"):
        export_model(model, processor, other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "photos"]
    assert [path.name for path in other.iterdir()] == ["me.jpg"]


def test_a_failed_export_keeps_the_earlier_one(
    model: XVLM2VecModel, processor: XVLM2VecProcessor, tmp_path: Path
) -> None:
    folder = export_model(model, processor, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = copy.deepcopy(model)
    with torch.no_grad():
        next(broken.backbone.text_model.layers.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="infinite or undefined"):
        export_model(broken, processor, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.py", "import xvlm2vec.common.store", r"rows\.py imports xvlm2vec\.common\.store"),
        ("rows.py", "def f():\n    from xvlm2vec import x", r"rows\.py imports xvlm2vec"),
        ("rows.py", "from .absent import x", r"rows\.py imports \.absent, which is not there"),
        ("rows.py", "from . import x", "which is not there"),
        ("weights.bin", "", r"weights\.bin may run code"),
        ("config.json", '{"auto_map": {"AutoModel": "other.Model"}}', r"AutoModel to 'other\.Model'.*other\.py"),
    ],
)
def test_what_would_not_load_elsewhere_is_found(export_copy: Path, name: str, text: str, message: str) -> None:
    check_self_contained(export_copy)
    (export_copy / name).write_text(text)
    with pytest.raises(ExportError, match=message):
        check_self_contained(export_copy)


def test_adapter_comes_back_over_its_base(
    adapted: PeftModel, model: XVLM2VecModel, processor: XVLM2VecProcessor, make_card, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model.save_pretrained(base)
    folder = export_adapter(adapted, tmp_path / "adapter", base=base, card=make_card(adapter_id="a/b"))
    config = read_json(folder / "adapter_config.json")
    assert config["base_model_name_or_path"] == str(base)
    assert config["task_type"] == "FEATURE_EXTRACTION"
    assert config["auto_mapping"] is None
    reloaded = PeftModel.from_pretrained(AutoModel.from_pretrained(base), folder)
    size = image_size(processor)
    expected = golden_vectors(adapted.get_base_model(), processor, size)
    assert torch.equal(golden_vectors(reloaded.get_base_model(), processor, size), expected)
    metadata = read_metadata(folder / "README.md")
    assert metadata["library_name"] == "peft"
    assert metadata["base_model_relation"] == "adapter"
    assert "more information" not in (folder / "README.md").read_text(encoding="utf-8").lower()


def test_base_and_revision_are_recorded_as_given(adapted: PeftModel, tmp_path: Path) -> None:
    folder = export_adapter(adapted, tmp_path / "adapter", base="../../teacher", base_revision="v1.0.0")
    config = read_json(folder / "adapter_config.json")
    assert config["base_model_name_or_path"] == "../../teacher"
    assert config["revision"] == "v1.0.0"
    assert 'revision="v1.0.0"' in (folder / "README.md").read_text(encoding="utf-8")


def test_a_trained_weight_outside_the_adapter_is_not_lost_in_silence(make_adapter, tmp_path: Path) -> None:
    adapted = make_adapter()
    adapted.get_base_model().get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(ExportError, match=r"1 trained weights .*modules_to_save"):
        export_adapter(adapted, tmp_path / "adapter", base="x")
    assert not list(tmp_path.iterdir())


def test_an_adapter_that_does_not_come_back_is_refused(
    make_adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose keys were cut short, as a faulty writer would leave it."""
    adapted = make_adapter()
    monkeypatch.setattr(export, "load_file", lambda path: dict(list(load_file(path).items())[1:]))
    with pytest.raises(ExportError, match=r"the written file does not hold .*1 missing"):
        export_adapter(adapted, tmp_path / "adapter", base="x")


def test_a_plain_model_has_no_adapter_to_export(model: XVLM2VecModel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="holds no adapter"):
        export_adapter(model, tmp_path / "adapter", base="x")


def test_a_release_loaded_from_its_folder_can_be_exported_again(
    exported: Path, processor: XVLM2VecProcessor, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(exported, tmp_path / "moved"))
    again = export_model(XVLM2VecModel.from_pretrained(moved), processor, tmp_path / "again")
    assert torch.equal(read_golden(again).vectors, read_golden(exported).vectors)
    assert read_golden(again).weights == read_golden(exported).weights
