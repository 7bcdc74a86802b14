"""An adapter's folder loads as the embedding model that it makes of its base, without PEFT, key by key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling.loading import CheckpointError

TEXTS = ["a red bicycle", "ein rotes Fahrrad"]
TARGETS = r"backbone\.language_model\..*\.(?:q_proj|v_proj|down_proj)"
PISSA = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "init_lora_weights": "pissa"}


@pytest.fixture(scope="module")
def base(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter_base") / "base"
    XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"), prompts={"query": "find: "}).save_pretrained(folder)
    XVLM2VecProcessor.from_pretrained(checkpoint("qwen2_vl")).save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, named: str, **settings: Any) -> np.ndarray:
    """Saves an adapter with random weights and returns the vectors that it gives through PEFT."""
    loader = XVLM2VecModel.from_pretrained if (base / "modules.json").is_file() else XVLM2VecModel.from_backbone
    options = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS} | settings
    adapted = get_peft_model(loader(base), LoraConfig(**options))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    adapted.save_pretrained(str(folder))
    change(folder, {"base_model_name_or_path": named})
    return np.asarray(adapted.get_base_model().eval().encode(text=TEXTS))


def change(folder: Path, values: dict[str, Any]) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["_tokens", "language_model.norm"], "target_modules": ["q_proj"]},
        {"modules_to_save": ["visual.merger"]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa", "use_dora": True},
        {"init_lora_weights": "olora", "use_rslora": True},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "olora", "rank_pattern": {"layers.1.*.q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
        {"rank_pattern": {"down_proj": 6}, "alpha_pattern": {r".*\.1\..*q_proj": 5}, "use_rslora": True},
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*layers\.1\..*"},
        {"target_modules": ["q_proj", "mlp.up_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]},
        {"target_modules": ["q_proj", "k_proj"], "layers_to_transform": [1]},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
        {"target_modules": ["q_proj"], "fan_in_fan_out": True},
    ],
    ids=str,
)
def test_merged_is_what_peft_gives(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = save_adapter(tmp_path / "adapter", base, str(base), **settings)
    plain = XVLM2VecModel.from_pretrained(base)
    assert np.abs(np.asarray(plain.encode(text=TEXTS)) - expected).max() > 1e-2
    model = XVLM2VecModel.from_pretrained(tmp_path / "adapter")
    assert np.abs(np.asarray(model.encode(text=TEXTS)) - expected).max() < 1e-5
    assert model.config.prompts == {"query": "find: "}
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    model.save_pretrained(tmp_path / "merged")
    model.processor.save_pretrained(tmp_path / "merged")
    again = XVLM2VecModel.from_pretrained(tmp_path / "merged")
    assert np.abs(np.asarray(again.encode(text=TEXTS)) - expected).max() < 1e-5


def test_base_beside_the_adapter(base: Path, tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "adapter", base, "../base")
    shutil.copytree(base, tmp_path / "base")
    model = XVLM2VecModel.from_pretrained(tmp_path / "adapter")
    assert np.abs(np.asarray(model.encode(text=TEXTS)) - expected).max() < 1e-5


def test_base_that_is_a_plain_backbone(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "adapter", checkpoint("qwen2_vl"), str(checkpoint("qwen2_vl")))
    model = XVLM2VecModel.from_pretrained(tmp_path / "adapter")
    assert np.abs(np.asarray(model.encode(text=TEXTS)) - expected).max() < 1e-5


def test_hub_ids_and_the_revision_of_the_base(base: Path, put_in_cache: Callable[..., None], tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "adapter", base, "org/base")
    change(tmp_path / "adapter", {"revision": "1" * 40})
    cache = tmp_path / "cache"
    put_in_cache(cache, "org/base", base, "1" * 40)
    put_in_cache(cache, "org/adapter", tmp_path / "adapter", "2" * 40)
    other = cache / "models--org--base" / "snapshots" / ("3" * 40)
    other.mkdir()
    (cache / "models--org--base" / "refs" / "main").write_text("3" * 40, encoding="utf-8")
    (other / "config.json").write_text("{}", encoding="utf-8")
    hub = {"cache_dir": cache, "local_files_only": True}
    model = XVLM2VecModel.from_pretrained("org/adapter", **hub)
    processor = XVLM2VecProcessor.from_pretrained("org/base", revision="1" * 40, **hub)
    assert np.abs(np.asarray(model.encode(text=TEXTS, processor=processor)) - expected).max() < 1e-5
    change(cache / "models--org--adapter" / "snapshots" / ("2" * 40), {"revision": "4" * 40})
    with pytest.raises(CheckpointError, match=r"belongs on 'org/base' at revision 4{40}, which cannot be loaded"):
        XVLM2VecModel.from_pretrained("org/adapter", **hub)


def test_the_processor_is_that_of_the_commit_of_the_weights(
    base: Path, put_in_cache: Callable[..., None], tmp_path: Path
) -> None:
    cache, files = tmp_path / "cache", tmp_path / "files"
    put_in_cache(cache, "org/base", base, "1" * 40)
    shutil.copytree(base, files)
    processor = XVLM2VecProcessor.from_pretrained(base)
    processor.max_length = 7
    processor.save_pretrained(files)
    put_in_cache(cache, "org/base", files, "2" * 40)
    hub = {"cache_dir": cache, "local_files_only": True}
    old, new = (XVLM2VecModel.from_pretrained("org/base", **where, **hub) for where in ({"revision": "1" * 40}, {}))
    put_in_cache(cache, "org/base", base, "3" * 40)  # the branch moves on before the processors are asked for
    assert old.processor.max_length != 7
    assert new.processor.max_length == 7


def test_pissa_saved_as_a_plain_adapter(base: Path, tmp_path: Path) -> None:
    """PEFT's own way to keep such an adapter loadable on the base as it is: twice the rank, minus the start."""
    adapted = get_peft_model(XVLM2VecModel.from_pretrained(base), LoraConfig(**PISSA))
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(str(tmp_path / "start"))
    adapted.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            weight += 0.05 * weight.sin() if "lora_" in name else 0
    expected = np.asarray(adapted.get_base_model().eval().encode(text=TEXTS))
    adapted.save_pretrained(str(tmp_path / "adapter"), path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    model = XVLM2VecModel.from_pretrained(tmp_path / "adapter", base=base)
    assert np.abs(np.asarray(model.encode(text=TEXTS)) - expected).max() < 1e-5


def test_pissa_loaded_by_peft_is_what_ours_gives(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", base, str(base), **PISSA)
    loaded = PeftModel.from_pretrained(XVLM2VecModel.from_pretrained(base), str(tmp_path / "adapter"))
    expected = np.asarray(loaded.get_base_model().eval().encode(text=TEXTS))
    model = XVLM2VecModel.from_pretrained(tmp_path / "adapter")
    assert np.abs(np.asarray(model.encode(text=TEXTS)) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"init_lora_weights": start}, rf"init_lora_weights='{start}'\. .*path_initial_model_for_weight_conversion")
        for start in ("corda", "loftq", "lora_ga", "pissa_niter_4", "a start of tomorrow")
    ]
    + [
        ({name: value}, rf"uses {name}=.* which is not supported\. Merge it with PEFT")
        for name, value in {
            "alora_invocation_tokens": [1],
            "bias": "lora_only",
            "kasa_config": {"beta": 1e-4},
            "layer_replication": [[0, 2], [1, 2]],
            "lora_bias": True,
            "target_parameters": ["experts.up"],
            "trainable_token_indices": [3],
            "use_qalora": True,
            "a_field_of_tomorrow": 1,
        }.items()
    ],
    ids=str,
)
def test_settings_that_cannot_be_merged_are_refused(
    base: Path, tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    save_adapter(tmp_path / "adapter", base, str(base))
    change(tmp_path / "adapter", setting)
    with pytest.raises(CheckpointError, match=message):
        XVLM2VecModel.from_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize("gone", ["org/gone", "no/such/folder/at/all"])
def test_a_base_that_is_gone(base: Path, tmp_path: Path, gone: str) -> None:
    expected = save_adapter(tmp_path / "adapter", base, gone)
    with pytest.raises(CheckpointError, match=f"belongs on '{gone}', which cannot be loaded .* Pass `base`"):
        XVLM2VecModel.from_pretrained(tmp_path / "adapter")
    model = XVLM2VecModel.from_pretrained(tmp_path / "adapter", base=base)
    assert np.abs(np.asarray(model.encode(text=TEXTS)) - expected).max() < 1e-5
    with pytest.raises(CheckpointError, match="is no adapter, so it needs no base="):
        XVLM2VecModel.from_pretrained(base, base=base)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda keys: keys.pop(next(iter(keys))), r"1 keys are missing \(backbone\.language_model"),
        (
            lambda keys: keys.update({"base_model.model.backbone.gone.lora_A.weight": torch.ones(4, 4)}),
            r"1 keys land on no module \(base_model\.model\.backbone\.gone",
        ),
        (lambda keys: keys.update({next(iter(keys)): torch.ones(3, 3)}), r"1 keys are of another shape"),
        (lambda keys: keys.clear(), r"keys are missing \(backbone\.language_model"),
    ],
    ids=["dropped", "extra", "misshapen", "empty"],
)
def test_a_key_that_does_not_land(base: Path, tmp_path: Path, edit: Callable[[Any], Any], message: str) -> None:
    save_adapter(tmp_path / "adapter", base, str(base))
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=message):
        XVLM2VecModel.from_pretrained(tmp_path / "adapter")


def test_saved_embeddings_must_be_there(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", base, str(base))
    change(tmp_path / "adapter", {"modules_to_save": ["embed_tokens"]})
    with pytest.raises(CheckpointError, match=r"are missing \(backbone\.language_model\.embed_tokens\.weight"):
        XVLM2VecModel.from_pretrained(tmp_path / "adapter")


def test_another_base(base: Path, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", base, str(base))
    XVLM2VecModel.from_backbone(checkpoint("idefics3")).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"does not fit .*other': \d+ keys land on no module"):
        XVLM2VecModel.from_pretrained(tmp_path / "adapter", base=tmp_path / "other")
