"""Published VLM2Vec and xVLM2Vec checkpoints, built tiny in their layouts: configurations, key names, adapter files."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling.adapters import read_adapter
from xvlm2vec.modeling.modeling_xvlm2vec import CheckpointError
from xvlm2vec.modeling.processor_checks import check_processor
from xvlm2vec.modeling.row_lengths import measure_rows
from xvlm2vec.modeling.rows import TextImageRow

DATA = Path(__file__).parent / "data" / "phi3v"
TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "k_proj", "q_proj", "out_proj", "v_proj"]
RANK, ALPHA, QWEN_LAYOUT = 4, 16, "qwen2_vl-vlm2vec"
TEXTS = ["a red bicycle", None, "ein rotes Fahrrad lehnt an der Wand", "query"]
TOLERANCE = 2e-5
FEW_PIXELS = 112 * 112  # the published files allow 12,845,056

# What today's names begin with, and the published ones.
OLD_NAMES = {
    "phi3_v": {"": "model."},
    "llava_next-mistral": {"language_model.": "language_model.model.", "vision_tower.": "vision_tower.vision_model."},
    "qwen2_vl": {"language_model.": "model."},
}
HEADS = {"phi3_v": "lm_head", "llava_next-mistral": "language_model.lm_head", "qwen2_vl": "lm_head"}
FAMILIES = list(OLD_NAMES)
Edit = Callable[[dict[str, Any]], object]


def old_name(family: str, name: str) -> str:
    new, old = next(((n, o) for n, o in OLD_NAMES[family].items() if name.startswith(n)), ("", ""))
    return old + name.removeprefix(new)


def old_config(family: str, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as transformers 4.4x wrote it."""
    new = {"dtype", "transformers_version", "image_seq_length", "legacy_rope_by_batch"}
    config = {key: value for key, value in config.items() if key not in new}
    config |= {"torch_dtype": "float32", "transformers_version": "4.44.2"}
    if family == "llava_next-mistral":
        config["text_config"]["rope_theta"] = config["text_config"].pop("rope_parameters")["rope_theta"]
        return config
    if family == "phi3_v":
        rope = config.pop("rope_parameters")
        factors = {key: rope[key] for key in ("short_factor", "long_factor")}
        remote = {"AutoConfig": "configuration_phi3_v.Phi3VConfig", "AutoModel": "modeling_phi3_v.Phi3VModel"}
        config |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "su", **factors}, "auto_map": remote}
        return config | {"architectures": ["Phi3VForCausalLM"]}
    text, tower = config.pop("text_config"), config["vision_config"]
    rope = text.pop("rope_parameters")
    del text["layer_types"], tower["rope_parameters"]
    tower |= {"model_type": "qwen2_vl", "in_chans": 3, "spatial_patch_size": 14}
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    return {**text, **config, "rope_theta": rope["rope_theta"], "rope_scaling": scaling}


def make_processor_old(family: str, folder: Path) -> None:
    """The processor's files as they were: no counts of image tokens, limits of pixels by their own names."""
    if family == "phi3_v":
        settings = {"image_processor_type": "Phi3VImageProcessor", "num_crops": 16, "num_img_tokens": 144}
        settings["auto_map"] = {"AutoImageProcessor": "processing_phi3_v.Phi3VImageProcessor"}
    elif family == "qwen2_vl":
        settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        del settings["size"]
        settings |= {"min_pixels": 3136, "max_pixels": FEW_PIXELS, "processor_class": "Qwen2VLProcessor"}
    else:
        settings = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))["image_processor"]
        settings |= {"processor_class": "LlavaNextProcessor"}
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")


def change(path: Path, edit: Edit) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(path: Path, edit: Edit) -> None:
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def published(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A full checkpoint with the configurations and key names of its time, and its head."""
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            folder = tmp_path_factory.mktemp("published") / "model"
            shutil.copytree(checkpoint(family), folder)
            backbone = AutoModel.from_pretrained(folder)
            weights = {old_name(family, key): value.clone() for key, value in backbone.state_dict().items()}
            weights[f"{HEADS[family]}.weight"] = torch.randn_like(backbone.get_input_embeddings().weight)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            (folder / "config.json").write_text(json.dumps(old_config(family, config)), encoding="utf-8")
            make_processor_old(family, folder)
            built[family] = folder
        return built[family]

    return get


def make_adapter(folder: Path, family: str, base: Path, dora: bool) -> dict[str, dict[str, torch.Tensor]]:
    """Writes an adapter as it was published and returns its weights by the names of today's modules."""
    backbone = AutoModel.from_pretrained(base)
    generator = torch.Generator().manual_seed(1)
    made: dict[str, dict[str, torch.Tensor]] = {}
    for name, module in backbone.named_modules():
        if name.rpartition(".")[2] in TARGETS and isinstance(module, nn.Linear):
            made[name] = {
                "lora_A.weight": torch.randn(RANK, module.in_features, generator=generator) * module.in_features**-0.5,
                "lora_B.weight": torch.randn(module.out_features, RANK, generator=generator) * 0.1,
            }
            if dora:
                noise = 1 + 0.3 * torch.rand(module.out_features, generator=generator)
                made[name]["lora_magnitude_vector"] = module.weight.detach().norm(dim=1) * noise
    folder.mkdir()
    stored = {
        f"base_model.model.{old_name(family, name)}.{part}": value.contiguous()
        for name, parts in made.items()
        for part, value in parts.items()
    }
    save_file(stored, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((DATA / "dora" / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"r": RANK, "lora_alpha": ALPHA, "use_dora": dora, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return made


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code of a checkpoint was run",)


def break_pickle(weights: dict[str, Any], file: Path, damage: str) -> None:
    torch.save(weights | ({"code": Code()} if damage == "code" else {}), file)
    kept = {"cut": -1000, "code": None, "empty": 0}[damage]
    file.write_bytes(file.read_bytes()[:kept])


def peft_config(dora: bool) -> LoraConfig:
    return LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.1, target_modules=TARGETS, use_dora=dora)


def encode(model: XVLM2VecModel, images: list[Any], **options: Any) -> np.ndarray:
    row_images = [images[0], images[1], None, images[2]]
    return np.asarray(model.encode(text=TEXTS, images=row_images, **options))


def assert_same(vectors: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(vectors - expected).max() < TOLERANCE  # not a number fails, too


class TestFull:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_weight_lands(
        self, family: str, published: Callable[[str], Path], checkpoint: Callable[[str], Path], images: list[Any]
    ) -> None:
        model = XVLM2VecModel.from_vlm2vec(published(family))
        expected = AutoModel.from_pretrained(checkpoint(family)).state_dict()
        assert model.backbone.state_dict().keys() == expected.keys()
        for key, value in model.backbone.state_dict().items():
            assert torch.equal(value, expected[key]), key
        plain = XVLM2VecModel.from_backbone(checkpoint(family))
        plain.config.layout = model.config.layout
        assert_same(encode(plain, images, processor=model.processor), encode(model, images))

    def test_pickled_phi_with_wte_only(
        self, published: Callable[[str], Path], tmp_path: Path, images: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "xVLM2Vec"
        shutil.copytree(published("phi3_v"), folder)
        weights = load_file(folder / "model.safetensors")
        weights["model.vision_embed_tokens.wte.weight"] = weights.pop("model.embed_tokens.weight")
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        change(folder / "config.json", lambda config: config.update(hidden_size=4096))  # as their training saved it
        with caplog.at_level(logging.WARNING, "xvlm2vec"):
            model = XVLM2VecModel.from_vlm2vec(folder)
        assert "weights_only=True" in caplog.text
        assert model.config.hidden_size == 32
        assert_same(encode(model, images), encode(XVLM2VecModel.from_vlm2vec(published("phi3_v")), images))

    @pytest.mark.parametrize("damage", ["cut", "code", "empty"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_broken_pickle(self, family: str, damage: str, published: Callable[[str], Path], tmp_path: Path) -> None:
        folder = tmp_path / "broken"
        shutil.copytree(published(family), folder)
        break_pickle(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin", damage)
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"broken.* has a broken file"):
            XVLM2VecModel.from_vlm2vec(folder)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_missing_weight(self, family: str, published: Callable[[str], Path], tmp_path: Path) -> None:
        folder = tmp_path / "cut"
        shutil.copytree(published(family), folder)
        key = next(key for key in load_file(folder / "model.safetensors") if "down_proj" in key)
        change_weights(folder / "model.safetensors", lambda weights: weights.pop(key))
        with pytest.raises(ValueError, match=r"missing.*layers\.\d\.mlp\.down_proj\.weight"):
            XVLM2VecModel.from_vlm2vec(folder)

    def test_base_is_for_adapters(self, published: Callable[[str], Path]) -> None:
        with pytest.raises(CheckpointError, match="is no adapter and needs no base='other'"):
            XVLM2VecModel.from_vlm2vec(published("phi3_v"), base="other")

    def test_other_models(self, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"is a 'smolvlm' model; .*from_backbone for others"):
            XVLM2VecModel.from_vlm2vec(checkpoint("smolvlm"))
        XVLM2VecModel.from_backbone(checkpoint("smolvlm")).save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match="use from_pretrained"):
            XVLM2VecModel.from_vlm2vec(tmp_path)


class TestPrompts:
    def test_qwen_is_as_trained(self, published: Callable[[str], Path], images: list[Any]) -> None:
        """Plain transformers on the published prompt: no marks around the image, positions counted."""
        model = XVLM2VecModel.from_vlm2vec(published("qwen2_vl"))
        whole = AutoModelForImageTextToText.from_pretrained(published("qwen2_vl")).eval()
        squeezed = images[0].resize((1344, 1344))
        inputs = model.processor.inner(text=["<|image_pad|>\na red bicycle"], images=[[squeezed]], return_tensors="pt")
        linear = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
        with torch.no_grad():
            hidden = whole(**inputs, position_ids=linear, output_hidden_states=True).hidden_states[-1][0, -1]
            two_dimensional = whole(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
            given = model.processor(text=["a red bicycle", "query"], images=[images[0], None])
            ours = model(**given).pooler_output[0]
        assert given["input_ids"][0].tolist() == inputs["input_ids"][0].tolist()
        assert torch.allclose(ours, hidden, rtol=1e-4, atol=1e-5)
        assert (ours - two_dimensional).abs().max() > 1e-2

    def test_qwen_has_its_budget_of_pixels(
        self, published: Callable[[str], Path], tmp_path: Path, images: list[Any]
    ) -> None:
        folder = Path(shutil.copytree(published("qwen2_vl"), tmp_path / "model"))
        change(folder / "preprocessor_config.json", lambda settings: settings.update(max_pixels=12845056))
        processor = XVLM2VecModel.from_vlm2vec(folder).processor
        assert processor.image_processor.size["longest_edge"] == 1280 * 28 * 28
        assert processor(images=images[0])["image_grid_thw"].tolist() == [[1, 70, 70]]  # 980 x 980: 1,225 tokens

    @pytest.mark.parametrize(("family", "tokens"), [("phi3_v", 757), ("llava_next-mistral", 88), ("qwen2_vl", 16)])
    def test_images_are_squeezed_as_in_training(
        self, family: str, tokens: int, published: Callable[[str], Path], images: list[Any], tmp_path: Path
    ) -> None:
        model = XVLM2VecModel.from_vlm2vec(published(family))
        model.processor.save_pretrained(tmp_path)
        free = XVLM2VecProcessor.from_pretrained(tmp_path, square=None)
        expected = free(text=["x"], images=[images[1].resize((1344, 1344))])
        for processor in (model.processor, XVLM2VecProcessor.from_pretrained(tmp_path)):
            given = processor(text=["x"], images=[images[1]])
            assert all(torch.equal(given[name], value) for name, value in expected.items())
        assert measure_rows(model.processor, [TextImageRow("x", (images[1],))])[0].shared == tokens

    def test_llava_counts_tokens_as_a_processor_that_was_told(
        self, published: Callable[[str], Path], checkpoint: Callable[[str], Path], images: list[Any]
    ) -> None:
        told = XVLM2VecProcessor.from_pretrained(checkpoint("llava_next-mistral"), square=1344)
        model = XVLM2VecModel.from_vlm2vec(published("llava_next-mistral"))
        rows = {"text": ["x", "y", None], "images": [images[0], None, images[1]]}
        assert all(torch.equal(model.processor(**rows)[name], value) for name, value in told(**rows).items())

    @pytest.mark.parametrize(
        ("family", "prompt"),
        [("phi3_v", "<|image|>\nx"), ("llava_next-mistral", "<image>\nx"), ("qwen2_vl", "<|image_pad|>\nx")],
    )
    def test_prompt(self, published: Callable[[str], Path], family: str, prompt: str) -> None:
        assert XVLM2VecModel.from_vlm2vec(published(family)).processor.prompt("x", 1) == prompt

    def test_layout_can_be_chosen_and_must_be_known(self, published: Callable[[str], Path]) -> None:
        folder = published("qwen2_vl")
        assert XVLM2VecProcessor.from_pretrained(folder).prompt("x", 1).startswith("<|vision_start|>")
        assert XVLM2VecProcessor.from_pretrained(folder, layout=QWEN_LAYOUT).prompt("x", 1) == "<|image_pad|>\nx"
        with pytest.raises(ValueError, match="layout='qwen' is unknown"):
            XVLM2VecProcessor.from_pretrained(folder, layout="qwen")

    def test_processor_of_another_layout(self, published: Callable[[str], Path]) -> None:
        model = XVLM2VecModel.from_vlm2vec(published("qwen2_vl"))
        usual = XVLM2VecProcessor.from_pretrained(published("qwen2_vl"))
        with pytest.raises(ValueError, match="writes prompts for 'qwen2_vl', but this model takes 'qwen2_vl-vlm2vec'"):
            model.encode(text="a red bicycle", processor=usual)

    def test_forward_refuses_images_of_the_other_layout(
        self, published: Callable[[str], Path], images: list[Any]
    ) -> None:
        folder = published("qwen2_vl")
        rows = {"text": TEXTS, "images": [images[0], None, None, [images[1], images[2]]]}
        rows["text"] = ["a red bicycle", "wall", *TEXTS[2:]]
        trained, plain = XVLM2VecModel.from_vlm2vec(folder), XVLM2VecModel.from_backbone(folder)
        usual = XVLM2VecProcessor.from_pretrained(folder)
        for side in ("left", "right"):
            with pytest.raises(ValueError, match=r"prompts without `vision_start_token_id`.*`model\.processor`"):
                trained(**usual(**rows, padding_side=side))
            with pytest.raises(ValueError, match="prompts with `vision_start_token_id`"):
                plain(**trained.processor(**rows, padding_side=side))
            with torch.no_grad():
                assert torch.isfinite(plain(**usual(**rows, padding_side=side)).embeddings).all()

    @pytest.mark.parametrize(
        ("family", "message"),
        [("phi3_v", "square=None for 1344"), ("llava_next-mistral", "square=None for 1344")],
    )
    def test_processor_with_other_images(
        self, published: Callable[[str], Path], images: list[Any], tmp_path: Path, family: str, message: str
    ) -> None:
        model = XVLM2VecModel.from_vlm2vec(published(family))
        usual = XVLM2VecProcessor.from_pretrained(published(family))
        expected = model.encode(images=images[1])
        with pytest.warns(UserWarning, match=rf"{message}.*Use `model\.processor`"):
            check_processor(usual, model.config)
        model.save_pretrained(tmp_path)
        model.processor.save_pretrained(tmp_path)
        again, saved = XVLM2VecModel.from_pretrained(tmp_path), XVLM2VecProcessor.from_pretrained(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_same(again.encode(images=images[1], processor=saved), expected)
        with pytest.warns(UserWarning, match=message):
            free = again.encode(images=images[1], processor=XVLM2VecProcessor.from_pretrained(tmp_path, square=None))
        assert np.abs(free - expected).max() > 1000 * TOLERANCE

    def test_number_of_crops(self, published: Callable[[str], Path]) -> None:
        model = XVLM2VecModel.from_vlm2vec(published("phi3_v"))
        other = XVLM2VecProcessor.from_pretrained(published("phi3_v"), square=1344, num_crops=16)
        with pytest.warns(UserWarning, match="num_crops=16 for 4"):
            check_processor(other, model.config)

    def test_saved_processor_of_another_layout(self, published: Callable[[str], Path], tmp_path: Path) -> None:
        model = XVLM2VecModel.from_vlm2vec(published("qwen2_vl"))
        model.save_pretrained(tmp_path)
        XVLM2VecProcessor.from_pretrained(published("qwen2_vl")).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"layout='qwen2_vl' for .*`model\.processor\.save_pretrained`"):
            XVLM2VecProcessor.from_pretrained(tmp_path)

    def test_processor_of_an_adapter(self, published: Callable[[str], Path], tmp_path: Path) -> None:
        make_adapter(tmp_path / "adapter", "qwen2_vl", published("qwen2_vl"), dora=False)
        with pytest.raises(ValueError, match=r"is an adapter.*from_vlm2vec.*`model\.processor`"):
            XVLM2VecProcessor.from_pretrained(tmp_path / "adapter")

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_vectors_do_not_depend_on_the_batch(
        self, published: Callable[[str], Path], images: list[Any], side: str
    ) -> None:
        model = XVLM2VecModel.from_vlm2vec(published("qwen2_vl"))
        row_images = [images[0], images[1], None, images[2]]
        alone = [model.encode(text=[t], images=[i])[0] for t, i in zip(TEXTS, row_images, strict=True)]
        with torch.no_grad():
            together = model(**model.processor(text=TEXTS, images=row_images, padding_side=side)).embeddings.numpy()
        assert_same(together, np.stack(alone))


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
class TestAdapters:
    def test_merged_equals_unmerged(
        self, family: str, dora: bool, published: Callable[[str], Path], tmp_path: Path, images: list[Any]
    ) -> None:
        """Against PEFT, each part put by hand on the module it was made for."""
        made = make_adapter(tmp_path / "adapter", family, published(family), dora)
        merged = XVLM2VecModel.from_vlm2vec(tmp_path / "adapter")
        unmerged = XVLM2VecModel.from_vlm2vec(published(family))
        before = encode(unmerged, images)
        inject_adapter_in_model(peft_config(dora), unmerged.backbone)
        adapted = {name for name, _ in unmerged.backbone.named_modules() if name.endswith(".lora_A")}
        assert adapted == {f"{name}.lora_A" for name in made}
        with torch.no_grad():
            for name, parts in made.items():
                module = unmerged.backbone.get_submodule(name)
                module.lora_A["default"].weight.copy_(parts["lora_A.weight"])
                module.lora_B["default"].weight.copy_(parts["lora_B.weight"])
                if dora:
                    module.lora_magnitude_vector["default"].weight.copy_(parts["lora_magnitude_vector"])
        expected = encode(unmerged.eval(), images)
        assert np.abs(before - expected).max() > 1000 * TOLERANCE
        assert_same(encode(merged, images), expected)

    def test_unmerged_through_peft(
        self, family: str, dora: bool, published: Callable[[str], Path], tmp_path: Path, images: list[Any]
    ) -> None:
        make_adapter(tmp_path / "adapter", family, published(family), dora)
        model = XVLM2VecModel.from_vlm2vec(published(family))
        adapter = read_adapter(tmp_path / "adapter")
        assert adapter is not None
        state = adapter.state_dict_for(model.backbone)
        adapted = get_peft_model(model.backbone, peft_config(dora))
        result = set_peft_model_state_dict(adapted, state)
        assert not result.unexpected_keys
        assert not [key for key in result.missing_keys if "lora_" in key]
        expected = encode(XVLM2VecModel.from_vlm2vec(tmp_path / "adapter"), images)
        assert_same(encode(model.eval(), images), expected)


class TestAdapterFaults:
    @pytest.fixture
    def adapter(self, published: Callable[[str], Path], tmp_path: Path) -> Path:
        make_adapter(tmp_path / "adapter", "qwen2_vl", published("qwen2_vl"), dora=True)
        return tmp_path / "adapter"

    @pytest.mark.parametrize("part", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"])
    def test_dropped_key(self, adapter: Path, part: str) -> None:
        key = f"base_model.model.model.layers.1.self_attn.v_proj.{part}"
        change_weights(adapter / "adapter_model.safetensors", lambda weights: weights.pop(key))
        missing = (
            rf"1 keys are missing \(language_model\.layers\.1\.self_attn\.v_proj\.{part.removesuffix('.weight')}\)"
        )
        with pytest.raises(CheckpointError, match=missing):
            XVLM2VecModel.from_vlm2vec(adapter)

    @pytest.mark.parametrize(
        "key",
        [
            "base_model.model.model.layers.9.self_attn.v_proj.lora_A.weight",
            "base_model.model.model.layers.0.self_attn.z_proj.lora_B.weight",
            "base_model.model.model.layers.0.input_layernorm.lora_A.weight",
            "base_model.model.model.layers.0.self_attn.v_proj.lora_embedding_A",
        ],
    )
    def test_extra_key(self, adapter: Path, key: str) -> None:
        change_weights(adapter / "adapter_model.safetensors", lambda weights: weights.update({key: torch.zeros(4, 32)}))
        with pytest.raises(CheckpointError, match="1 keys land on no module") as caught:
            XVLM2VecModel.from_vlm2vec(adapter)
        assert key in str(caught.value)

    def test_magnitudes_without_dora(self, adapter: Path) -> None:
        change(adapter / "adapter_config.json", lambda config: config.update(use_dora=False))
        with pytest.raises(CheckpointError, match=r"land on no module .*lora_magnitude_vector"):
            XVLM2VecModel.from_vlm2vec(adapter)

    def test_target_without_weights(self, adapter: Path) -> None:
        change(adapter / "adapter_config.json", lambda config: config["target_modules"].append("up_proj"))
        with pytest.raises(CheckpointError, match=r"6 keys are missing .*layers\.0\.mlp\.up_proj\.lora_A"):
            XVLM2VecModel.from_vlm2vec(adapter)

    @pytest.mark.parametrize("targets", [r"(?!visual).*\.([qkvo]|down|up)_proj", "all-linear"])
    def test_target_patterns(self, adapter: Path, targets: str) -> None:
        change(adapter / "adapter_config.json", lambda config: config.update(target_modules=targets))
        with pytest.raises(CheckpointError, match=r"are missing .*up_proj\.lora_A|are missing .*gate_proj\.lora_A"):
            XVLM2VecModel.from_vlm2vec(adapter)

    def test_pattern_on_old_names(self, adapter: Path, images: list[Any]) -> None:
        expected = encode(XVLM2VecModel.from_vlm2vec(adapter), images)
        pattern = r"model\.layers\.\d+\..*\.(q|k|v|o|down)_proj"
        change(adapter / "adapter_config.json", lambda config: config.update(target_modules=pattern))
        assert_same(encode(XVLM2VecModel.from_vlm2vec(adapter), images), expected)

    def test_only_our_doors_load_adapters(
        self, adapter: Path, published: Callable[[str], Path], tmp_path: Path
    ) -> None:
        """transformers would load it and report what the adapter lacks, but nothing of its base."""
        cut = Path(shutil.copytree(published("qwen2_vl"), tmp_path / "cut"))
        lost = "model.layers.1.mlp.gate_proj.weight"
        change_weights(cut / "model.safetensors", lambda weights: weights.pop(lost))
        change(adapter / "adapter_config.json", lambda config: config.update(base_model_name_or_path=str(cut)))
        with pytest.raises(CheckpointError, match=r"from_vlm2vec .* XVLM2VecModel\.from_pretrained"):
            XVLM2VecModel.from_backbone(adapter)
        with pytest.raises(CheckpointError, match=r"missing \(.*layers\.1\.mlp\.gate_proj"):
            XVLM2VecModel.from_vlm2vec(adapter)
        shutil.copy(adapter / "adapter_config.json", cut)
        with pytest.raises(CheckpointError, match="take that file away"):
            XVLM2VecModel.from_backbone(cut)

    def test_base_is_gone(self, adapter: Path) -> None:
        with pytest.raises(
            CheckpointError, match=r"(?s)belongs on 'gone/x', which cannot be loaded .*Pass `base`"
        ) as caught:
            XVLM2VecModel.from_vlm2vec(adapter, base="gone/x", local_files_only=True)
        assert str(adapter) in str(caught.value)

    @pytest.mark.parametrize("damage", ["cut", "code", "empty"])
    def test_broken_pickle(self, adapter: Path, damage: str) -> None:
        stored, file = adapter / "adapter_model.safetensors", adapter / "adapter_model.bin"
        break_pickle(load_file(stored), file, damage)
        stored.unlink()
        with pytest.raises(CheckpointError, match=r"adapter_model\.bin' has a broken file"):
            XVLM2VecModel.from_vlm2vec(adapter)

    def test_rank_of_the_config(self, adapter: Path) -> None:
        change(adapter / "adapter_config.json", lambda config: config.update(r=8))
        with pytest.raises(CheckpointError, match=r"of another shape .*\[4, \d+\] for \[8, "):
            XVLM2VecModel.from_vlm2vec(adapter)

    def test_misshapen_key(self, adapter: Path) -> None:
        key = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
        change_weights(adapter / "adapter_model.safetensors", lambda weights: weights.update({key: torch.zeros(4, 60)}))
        with pytest.raises(CheckpointError, match="1 keys are of another shape") as caught:
            XVLM2VecModel.from_vlm2vec(adapter)
        assert f"({key} [4, 60] for [4, 64])" in str(caught.value)

    def test_wrong_base(self, adapter: Path, published: Callable[[str], Path], tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"land on no module.*are missing") as caught:
            XVLM2VecModel.from_vlm2vec(adapter, base=published("phi3_v"))
        assert str(published("phi3_v")) in str(caught.value)

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            ({"base_model_name_or_path": ""}, "names no base model: pass `base`"),
            ({"bias": "all"}, "uses bias='all', which is not supported"),
            ({"modules_to_save": ["lm_head"]}, r"1 keys are missing \(lm_head \(of modules_to_save\)\)"),
            ({"rank_pattern": {"q_proj": 8}}, r"of another shape .*q_proj.* for \[8, "),
            ({"peft_type": "LOHA"}, "uses peft_type='LOHA'"),
            ({"r": None}, "lacks r"),
        ],
    )
    def test_settings(self, adapter: Path, edit: dict[str, Any], message: str) -> None:
        change(adapter / "adapter_config.json", lambda config: config.update(edit))
        with pytest.raises(CheckpointError, match=message):
            XVLM2VecModel.from_vlm2vec(adapter)

    def test_files(self, adapter: Path, images: list[Any], caplog: pytest.LogCaptureFixture) -> None:
        expected = encode(XVLM2VecModel.from_vlm2vec(adapter), images)
        stored = adapter / "adapter_model.safetensors"
        torch.save(load_file(stored), adapter / "adapter_model.bin")
        stored.write_bytes(stored.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="broken file"):
            XVLM2VecModel.from_vlm2vec(adapter)
        stored.unlink()
        with caplog.at_level(logging.WARNING, "xvlm2vec"):
            assert_same(encode(XVLM2VecModel.from_vlm2vec(adapter), images), expected)
        assert "weights_only=True" in caplog.text
        (adapter / "adapter_model.bin").unlink()
        with pytest.raises(CheckpointError, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
            XVLM2VecModel.from_vlm2vec(adapter)


def test_base_beside_the_adapter(published: Callable[[str], Path], tmp_path: Path, images: list[Any]) -> None:
    make_adapter(tmp_path / "adapter", "qwen2_vl", published("qwen2_vl"), dora=True)
    expected = encode(XVLM2VecModel.from_vlm2vec(tmp_path / "adapter"), images)
    shutil.copytree(published("qwen2_vl"), tmp_path / "base")
    change(
        tmp_path / "adapter" / "adapter_config.json", lambda config: config.update(base_model_name_or_path="../base")
    )
    assert_same(encode(XVLM2VecModel.from_vlm2vec(tmp_path / "adapter"), images), expected)


def test_base_overrides_the_config(published: Callable[[str], Path], tmp_path: Path, images: list[Any]) -> None:
    make_adapter(tmp_path / "adapter", "phi3_v", published("phi3_v"), dora=True)
    expected = encode(XVLM2VecModel.from_vlm2vec(tmp_path / "adapter"), images)
    change(tmp_path / "adapter" / "adapter_config.json", lambda config: config.update(base_model_name_or_path="gone/x"))
    model = XVLM2VecModel.from_vlm2vec(tmp_path / "adapter", base=published("phi3_v"))
    assert_same(encode(model, images), expected)
    assert model.config.name_or_path == str(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("family", "base", "adapter"),
    [
        ("phi3_v", "microsoft/Phi-3.5-vision-instruct", "TIGER-Lab/VLM2Vec-LoRA"),
        ("phi3_v", "swap-uniba/xVLM2Vec", "TIGER-Lab/VLM2Vec-LoRA"),
        ("phi3_v", "TIGER-Lab/VLM2Vec-Full", "TIGER-Lab/VLM2Vec-LoRA"),
        ("llava_next-mistral", "TIGER-Lab/VLM2Vec-LLaVa-Next", "org/adapter"),
        ("qwen2_vl", "Qwen/Qwen2-VL-2B-Instruct", "TIGER-Lab/VLM2Vec-Qwen2VL-2B"),
        ("qwen2_vl", "Qwen/Qwen2-VL-7B-Instruct", "TIGER-Lab/VLM2Vec-Qwen2VL-7B"),
        ("qwen2_vl", "Qwen/Qwen2-VL-2B-Instruct", "VLM2Vec/VLM2Vec-V2.0"),
    ],
)
def test_hub_ids(
    published: Any, put_in_cache: Any, tmp_path: Path, images: list[Any], family: str, base: str, adapter: str
) -> None:
    make_adapter(tmp_path / "adapter", family, published(family), dora=True)
    expected = encode(XVLM2VecModel.from_vlm2vec(tmp_path / "adapter"), images)
    full = encode(XVLM2VecModel.from_vlm2vec(published(family)), images)
    change(tmp_path / "adapter" / "adapter_config.json", lambda config: config.update(base_model_name_or_path=base))
    put_in_cache(tmp_path / "cache", base, published(family))
    put_in_cache(tmp_path / "cache", adapter, tmp_path / "adapter")
    hub = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    assert_same(encode(XVLM2VecModel.from_vlm2vec(adapter, **hub), images), expected)
    assert_same(encode(XVLM2VecModel.from_vlm2vec(base, **hub), images), full)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_through_every_door(
    family: str, published: Callable[[str], Path], tmp_path: Path, images: list[Any]
) -> None:
    from sentence_transformers import SentenceTransformer

    make_adapter(tmp_path / "adapter", family, published(family), dora=True)
    model = XVLM2VecModel.from_vlm2vec(tmp_path / "adapter")
    expected, saved = encode(model, images), tmp_path / "saved"
    model.save_pretrained(saved)
    model.processor.save_pretrained(saved)
    assert_same(encode(XVLM2VecModel.from_pretrained(saved), images), expected)
    remote = AutoModel.from_pretrained(saved, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(saved, trust_remote_code=True)
    assert_same(encode(remote, images), expected)
    assert_same(encode(remote, images, processor=processor), expected)
    door = SentenceTransformer(str(saved), trust_remote_code=True, device="cpu")
    first, last = ({"text": TEXTS[row], "image": images[place]} for row, place in ((0, 0), (3, 2)))
    rows = [first, images[1], TEXTS[2], last]
    assert_same(door.encode(rows), expected)


def test_dora_of_the_conformance_data(tmp_path: Path) -> None:
    """Numbers recorded from the original implementation with PEFT."""
    config = json.loads((DATA / "config.json").read_text(encoding="utf-8"))
    weights = load_file(DATA / "teacher.safetensors")
    rows, values = weights.pop("embedding_rows"), weights.pop("embedding_values")
    embedding = torch.zeros(config["vocab_size"], config["hidden_size"], dtype=values.dtype)
    embedding[rows] = values
    save_file(weights | {"model.embed_tokens.weight": embedding}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = XVLM2VecModel.from_vlm2vec(DATA / "dora", base=tmp_path, dtype=torch.float32, normalize=False)
    recorded = load_file(DATA / "expected.safetensors")
    with torch.no_grad():
        pooled = model(recorded["text_only.input_ids"], recorded["text_only.attention_mask"]).pooler_output
    expected = load_file(DATA / "dora" / "expected.safetensors")["merged.text_only"]
    assert (pooled - expected).abs().max() < 1e-4
    assert (pooled - recorded["text_only.pooled"]).abs().max() > 1e-2
