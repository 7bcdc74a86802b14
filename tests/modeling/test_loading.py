"""Checkpoints either land key by key or fail; settings survive a round trip."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel, Qwen2VLConfig

from xvlm2vec import XVLM2VecConfig, XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling.modeling_xvlm2vec import CheckpointError

PROMPTS = {"query": "find: ", "document-de": "Bild: "}


@pytest.fixture(scope="module")
def saved(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"), prompts=PROMPTS, matryoshka_dims=[8, 32, 16])
    model.save_pretrained(folder, max_shard_size="60KB")
    XVLM2VecProcessor.from_pretrained(checkpoint("qwen2_vl")).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(edit(content) or content), encoding="utf-8")


LOADERS = {
    "package": XVLM2VecModel.from_pretrained,
    "remote": lambda path: AutoModel.from_pretrained(path, trust_remote_code=True),
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())
class TestBrokenCheckpoints:
    def test_missing_shard(self, copy: Path, load: Callable[[Path], Any]) -> None:
        (copy / "model-00002-of-00007.safetensors").unlink()
        with pytest.raises(ValueError, match=r"is incomplete: .*model-00002-of-00007\.safetensors"):
            load(copy)

    def test_cut_shard(self, copy: Path, load: Callable[[Path], Any]) -> None:
        shard = copy / "model-00002-of-00007.safetensors"
        shard.write_bytes(shard.read_bytes()[:-100])
        with pytest.raises(ValueError, match="has a broken file"):
            load(copy)

    def test_shard_without_its_keys_in_the_index(self, copy: Path, load: Callable[[Path], Any]) -> None:
        def drop(index: Any) -> None:
            index["weight_map"] = {key: name for key, name in index["weight_map"].items() if "00003" not in name}

        change(copy / "model.safetensors.index.json", drop)
        with pytest.raises(ValueError, match=r"keys \d+ missing \(backbone\."):
            load(copy)

    def test_renamed_key(self, copy: Path, load: Callable[[Path], Any]) -> None:
        index = json.loads((copy / "model.safetensors.index.json").read_text())["weight_map"]
        key = "backbone.language_model.norm.weight"
        weights = load_file(copy / index[key])
        weights["backbone.language_model.final_norm.weight"] = weights.pop(key)
        save_file(weights, copy / index[key], metadata={"format": "pt"})
        change(
            copy / "model.safetensors.index.json",
            lambda content: content["weight_map"].update(
                {"backbone.language_model.final_norm.weight": content["weight_map"].pop(key)}
            ),
        )
        with pytest.raises(ValueError, match=r"1 missing \(.*\.norm\.weight\); 1 unexpected \(.*final_norm"):
            load(copy)

    def test_config_of_another_model(self, copy: Path, load: Callable[[Path], Any], checkpoint: Any) -> None:
        other = json.loads((checkpoint("idefics3") / "config.json").read_text())
        change(copy / "config.json", lambda config: config.update(vlm_config=other))
        with pytest.raises(ValueError, match=r"does not fit .*missing .*unexpected"):
            load(copy)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("hidden_size", 64, "of another shape"),
            ("num_hidden_layers", 1, r"12 unexpected \(backbone\.language_model\.layers\.1"),
            ("num_hidden_layers", 3, r"12 missing \(backbone\.language_model\.layers\.2"),
        ],
    )
    def test_config_of_another_size(
        self, copy: Path, load: Callable[[Path], Any], key: str, value: int, message: str
    ) -> None:
        def edit(config: Any) -> None:
            text = config["vlm_config"]["text_config"]
            text[key] = value
            text["layer_types"] = ["full_attention"] * text["num_hidden_layers"]

        change(copy / "config.json", edit)
        with pytest.raises(ValueError, match=message):
            load(copy)


class TestWrongKinds:
    def test_backbone_loaded_as_a_whole(self, checkpoint: Callable[[str], Path]) -> None:
        with pytest.raises(ValueError, match=r"use XVLM2VecModel\.from_vlm2vec, .* use XVLM2VecModel\.from_backbone"):
            XVLM2VecModel.from_pretrained(checkpoint("idefics3"))

    def test_adapter_beside_a_whole_model(self, copy: Path) -> None:
        (copy / "adapter_config.json").write_text("{}", encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"has an adapter_config\.json.*take that file away"):
            XVLM2VecModel.from_pretrained(copy)

    def test_whole_model_loaded_as_a_backbone(self, saved: Path) -> None:
        with pytest.raises(CheckpointError, match="is an embedding model already: use from_pretrained"):
            XVLM2VecModel.from_backbone(saved)

    def test_backbone_without_hidden_states(self, tmp_path: Path) -> None:
        part = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        config = CLIPConfig(
            text_config=part, vision_config=part | {"image_size": 28, "patch_size": 14}, projection_dim=8
        )
        CLIPModel(config).save_pretrained(tmp_path)
        model = XVLM2VecModel.from_backbone(tmp_path)
        with pytest.raises(ValueError, match="CLIPModel gives no `last_hidden_state`"):
            model(input_ids=torch.ones(1, 3, dtype=torch.long), pixel_values=torch.zeros(1, 3, 28, 28))

    def test_backbone_with_weights_left_over(self, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
        folder = Path(shutil.copytree(checkpoint("idefics3"), tmp_path / "copy"))
        weights = load_file(folder / "model.safetensors")
        weights["model.text_model.layers.7.mlp.up_proj.weight"] = torch.ones(2, 2)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"1 unexpected .*layers\.7\.mlp"):
            XVLM2VecModel.from_backbone(folder)


class TestRoundTrip:
    def test_config_of_an_older_version(self, copy: Path) -> None:
        change(copy / "config.json", lambda config: {k: v for k, v in config.items() if k != "image_settings"})
        model = XVLM2VecModel.from_pretrained(copy)
        assert model.config.image_settings == {}
        assert model.encode(text="a", processor=XVLM2VecProcessor.from_pretrained(copy, square=56)).shape == (32,)

    def test_saving_writes_no_fingerprint(self, saved: Path) -> None:
        """Which is for exports and `verify --write`: a checkpoint of a training run has nothing to prove."""
        assert (saved / "modules.json").is_file()
        assert not list(saved.glob("golden*"))

    def test_processor_comes_from_beside_the_weights(self, saved: Path) -> None:
        assert XVLM2VecModel.from_pretrained(saved).processor.model_type == "qwen2_vl"
        unsaved = XVLM2VecModel(XVLM2VecConfig(vlm_config=XVLM2VecConfig.from_pretrained(saved).vlm_config))
        with pytest.raises(ValueError, match="pass the processor it belongs to"):
            unsaved.encode(text="a")

    def test_config(self, saved: Path) -> None:
        config = XVLM2VecConfig.from_pretrained(saved)
        assert config.prompts == PROMPTS
        assert config.matryoshka_dims == [32, 16, 8]
        assert config.hidden_size == config.get_text_config().hidden_size == 32
        assert isinstance(config.vlm_config, Qwen2VLConfig)
        assert XVLM2VecConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
        assert type(AutoConfig.from_pretrained(saved, trust_remote_code=True)).__name__ == "XVLM2VecConfig"

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"pooling": "first"}, "pooling='first' is unknown; choose one of lasttoken, mean"),
            ({"matryoshka_dims": [64]}, r"matryoshka_dims \[64\] do not fit a hidden size of 32"),
            ({"matryoshka_dims": [16, 0]}, r"matryoshka_dims \[0\] do not fit"),
        ],
    )
    def test_bad_settings(self, checkpoint: Callable[[str], Path], settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"), **settings)

    def test_image_settings(self, saved: Path, tmp_path: Path) -> None:
        """The old name in `config.json` is read and the new one written; an unknown setting is told by name."""
        shutil.copytree(saved, tmp_path / "old")
        path = tmp_path / "old" / "config.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["image_settings"]
        path.write_text(json.dumps(content | {"picture_settings": {"square": 56}}), encoding="utf-8")
        with pytest.warns(DeprecationWarning, match="`picture_settings` is now `image_settings`"):
            config = XVLM2VecConfig.from_pretrained(tmp_path / "old")
        assert config.image_settings == {"square": 56}
        with pytest.warns(DeprecationWarning, match="`picture_settings` is now"):
            assert config.picture_settings == {"square": 56}
        config.save_pretrained(tmp_path / "new")
        written = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
        assert written["image_settings"] == {"square": 56}
        assert "picture_settings" not in written
        path.write_text(json.dumps(content | {"image_settings": {"zoom": 2}}), encoding="utf-8")
        with pytest.raises(ValueError, match="image_settings has 'zoom', which this version does not know"):
            XVLM2VecModel.from_pretrained(tmp_path / "old")
        model = XVLM2VecModel.from_pretrained(saved)
        model.config.image_settings = {"zoom": 2}
        with pytest.raises(ValueError, match="image_settings has 'zoom'"):
            model.encode(text="a")

    def test_sizes_that_were_not_trained_are_told(self, saved: Path) -> None:
        model = XVLM2VecModel.from_pretrained(saved)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for size in (None, 8, 16, 32):
                assert model.encode(text="a", dim=size).shape == (size or 32,)
        with pytest.warns(UserWarning, match="not trained for vectors of 12 values, but for those of 32, 16, 8"):
            twelve = model.encode(text="a", truncate_dim=12)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once for each size
            assert (model.encode(text="a", dim=12, truncate_dim=12) == twelve).all()
        model.config.matryoshka_dims = None
        with pytest.warns(UserWarning, match=r"of 10 values, but for whole vectors only \(no matryoshka_dims\)"):
            model.encode(text="a", dim=10)
        for wrong in (0, -1, 33):
            with pytest.raises(ValueError, match=f"dim={wrong} does not fit vectors of 32 values"):
                model.encode(text="a", dim=wrong)
        with pytest.raises(ValueError, match="two names of one argument"):
            model.encode(text="a", dim=8, truncate_dim=16)

    def test_config_without_a_type(self) -> None:
        with pytest.raises(ValueError, match="names no `model_type`"):
            XVLM2VecConfig(vlm_config={"hidden_size": 8})

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(
        self, checkpoint: Callable[[str], Path], images: list[Any], tmp_path: Path, dtype: torch.dtype
    ) -> None:
        model = XVLM2VecModel.from_backbone(checkpoint("idefics3"), dtype=dtype)
        assert {weight.dtype for weight in model.parameters()} == {dtype}
        processor = XVLM2VecProcessor.from_pretrained(checkpoint("idefics3"))
        half = model.encode(text=["a", "b"], images=[images[0], None], processor=processor)
        assert half.dtype == "float32"
        full = XVLM2VecModel.from_backbone(checkpoint("idefics3"), dtype=torch.float32)
        exact = full.encode(text=["a", "b"], images=[images[0], None], processor=processor)
        assert (1 - (half * exact).sum(axis=1)).max() < 2e-3
        model.save_pretrained(tmp_path)
        assert XVLM2VecModel.from_pretrained(tmp_path).dtype == dtype
        assert XVLM2VecModel.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32

    @pytest.mark.parametrize("load", LOADERS.keys())
    def test_attention_kernel_reaches_all_parts(self, saved: Path, load: str) -> None:
        loader = XVLM2VecModel if load == "package" else AutoModel
        model = loader.from_pretrained(saved, attn_implementation="eager", trust_remote_code=True)
        parts = (model, model.backbone, model.backbone.language_model, model.backbone.visual)
        assert [part.config._attn_implementation for part in parts] == ["eager"] * 4

    def test_backbone_with_and_without_its_head(self, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
        whole = XVLM2VecModel.from_backbone(checkpoint("llava_next-llama"))
        whole.backbone.save_pretrained(tmp_path)
        shutil.copy(checkpoint("llava_next-llama") / "tokenizer.json", tmp_path)
        bare = XVLM2VecModel.from_backbone(tmp_path)
        assert all(torch.equal(one, bare.state_dict()[key]) for key, one in whole.state_dict().items())

    def test_mean_pooling_and_length(self, checkpoint: Callable[[str], Path]) -> None:
        folder = checkpoint("qwen2_vl")
        processor = XVLM2VecProcessor.from_pretrained(folder)
        model = XVLM2VecModel.from_backbone(folder, pooling="mean", normalize=False)
        inputs = processor(text=["a red bicycle", "query"], padding_side="left")
        with torch.no_grad():
            output = model(**inputs)
        mask = inputs["attention_mask"].bool()
        means = torch.stack([row[kept].mean(0) for row, kept in zip(output.last_hidden_state, mask, strict=True)])
        assert torch.allclose(output.embeddings, means, atol=1e-6)
        assert torch.equal(output.embeddings, output.pooler_output)
