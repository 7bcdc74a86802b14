"""Exports without remote code: the same vectors, in processes that may run none."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageTextToText

from xvlm2vec import XVLM2VecConfig, XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.hub.card import ReleaseCard
from xvlm2vec.hub.golden import golden_inputs, read_golden
from xvlm2vec.hub.native import NativeError, chat_template, check_native, export_native
from xvlm2vec.hub.verify import verify
from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig
from xvlm2vec.modeling.messages import read_messages


@pytest.fixture(scope="module")
def native(model: XVLM2VecModel, processor, make_card, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_native(model, processor, tmp_path_factory.mktemp("native") / "native", card=make_card())


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_no_code_is_in_it(native: Path) -> None:
    assert not list(native.rglob("*.py"))
    for path in native.glob("*.json"):
        assert "auto_map" not in path.read_text(encoding="utf-8"), path.name
        assert '"xvlm2vec' not in path.read_text(encoding="utf-8") or path.name in {"golden.json", "export.json"}
    assert read_json(native / "config.json")["model_type"] == "idefics3"


def test_the_modules_are_stock(native: Path) -> None:
    modules = read_json(native / "modules.json")
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    assert all(module["type"].startswith("sentence_transformers.") for module in modules)
    assert read_json(native / "1_Pooling" / "config.json")["pooling_mode"] == "lasttoken"
    assert read_json(native / "config_sentence_transformers.json")["prompts"] == {
        "query": "Find the image: ",
        "document": "",
    }


def test_weights_are_the_backbones(native: Path, model: XVLM2VecModel) -> None:
    loaded, info = AutoModel.from_pretrained(native, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = model.backbone.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_names_are_those_that_servers_know(native: Path, model: XVLM2VecModel, tmp_path: Path) -> None:
    """Those of the family's published class, its head aside."""
    whole = AutoModelForImageTextToText.from_config(model.backbone.config)
    whole.save_pretrained(tmp_path)
    published = load_file(tmp_path / "model.safetensors").keys() - {"lm_head.weight"}
    assert load_file(native / "model.safetensors").keys() == published
    assert read_json(native / "config.json")["architectures"] == ["Idefics3ForConditionalGeneration"]


def test_the_card_names_doors_and_golden_files(native: Path) -> None:
    text = (native / "README.md").read_text(encoding="utf-8")
    for part in (
        "without remote code",
        "`AutoModel` with\n`AutoProcessor`",
        "`query`",
        "the last attended token, divided",
        "Scores, training and limits are on the page of the\noriginal.",
    ):
        assert part in text


def test_the_card_names_a_few_of_many_prompts(processor: XVLM2VecProcessor, backbone_folder: Path, tmp_path) -> None:
    prompts = {f"t2i-{number}": "Find it: " for number in range(10)}
    many = XVLM2VecModel.from_backbone(backbone_folder, prompts=prompts)
    card = ReleaseCard(name="x", repo_id="me/x", on_hub=True)
    text = (export_native(many, processor, tmp_path / "native", card=card) / "README.md").read_text(encoding="utf-8")
    assert "`t2i-7` and 2 more" in text
    assert "`t2i-8`" not in text
    assert "[me/x](https://huggingface.co/me/x)" in text


@pytest.mark.slow
def test_vectors_are_the_same_without_trust_in_remote_code(native: Path, tmp_path: Path) -> None:
    """Texts, images, both and several images, alone and in mixed batches, in a process without this package."""
    report = verify(native, dtypes=("float32",))
    assert {check.loader for check in report.checks} == {"native"}
    assert {check.arrangement for check in report.checks} == {"alone", "one batch", "reversed"}
    assert report.ok, report.table()


def build(name: str, folder: Path) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
    """A tiny model of another family, as the tests of `modeling` build it."""
    spec = importlib.util.spec_from_file_location("families", Path(__file__).parents[1] / "modeling" / "conftest.py")
    families = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(families)
    families.build(name, folder)
    return XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)


def test_a_qwen_family_keeps_its_vectors(tmp_path: Path) -> None:
    """Its processor wants torchvision, for videos: the rows are made by ours, and the model is that of transformers."""
    model, processor = build("qwen2_5_vl", tmp_path)
    folder = export_native(model, processor, tmp_path / "native")
    plain = AutoModel.from_pretrained(folder).eval()
    assert type(plain).__module__.startswith("transformers.models.qwen2_5_vl")
    golden = read_golden(folder)
    texts, image_list = golden_inputs(golden.image_size)
    for text, images, expected in zip(texts, image_list, golden.vectors, strict=True):
        with torch.no_grad():
            states = plain(**processor(text=[text], images=[images])).last_hidden_state
        assert torch.cosine_similarity(states[0, -1], expected, dim=0) > 1 - 1e-5


@pytest.mark.slow
def test_another_family_through_its_own_processor(tmp_path: Path) -> None:
    folder = export_native(*build("llava_next-llama", tmp_path), tmp_path / "native")
    report = verify(folder, dtypes=("float32",))
    assert report.ok, report.table()


@pytest.mark.slow
def test_a_changed_weight_is_noticed(native: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(native, tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    weights["model.text_model.norm.weight"].mul_(-1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    report = verify(folder, dtypes=("float32",))
    assert not report.ok
    assert all(check.first_difference == "text en" for check in report.checks)


def test_the_adapter_is_merged(adapted, processor, model: XVLM2VecModel, tmp_path: Path) -> None:
    folder = export_native(adapted, processor, tmp_path / "native")
    saved = AutoModel.from_pretrained(folder).state_dict()
    assert saved.keys() == model.backbone.state_dict().keys()
    changed = [name for name, value in model.backbone.state_dict().items() if not torch.equal(saved[name], value)]
    assert any("q_proj" in name for name in changed)


def render(processor: XVLM2VecProcessor, messages: list[dict]) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(chat_template(processor)).render(messages=messages)


CONVERSATIONS = [
    [{"role": "user", "content": [{"type": "text", "text": "ein  Hund \n"}]}],
    [{"role": "system", "content": "Find: "}, {"role": "user", "content": "a dog"}],
    [{"role": "user", "content": [{"type": "image", "image": "x"}]}],
    [
        {"role": "system", "content": [{"type": "text", "text": "Find: "}]},
        {"role": "user", "content": [{"type": "text", "text": "{{ 1 }}"}, {"type": "image", "image": "x"}]},
    ],
    [{"role": "user", "content": [{"type": "image", "image": "x"}, {"type": "image", "image": "y"}]}],
]


@pytest.mark.parametrize(
    "model_type", ["idefics3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_next", "internvl", "gemma3", "paligemma"]
)
def test_the_chat_template_writes_rows_as_the_processor_does(processor: XVLM2VecProcessor, model_type: str) -> None:
    other = XVLM2VecProcessor(processor.inner, model_type)
    for number, messages in enumerate(CONVERSATIONS):
        row = read_messages(number, messages)
        written = other.prompt_of(row, number).string
        if row.images:  # the family's own processor writes these parts where there are images
            written = written.removesuffix(other.family.after_text)
        assert render(other, messages) == written


def test_phi3_v_needs_its_code() -> None:
    class Model:
        config = XVLM2VecConfig(vlm_config=Phi3VConfig())

    with pytest.raises(NativeError, match=r"no 'phi3_v' model any more.*without --native"):
        check_native(Model())  # type: ignore[arg-type]


def test_a_layout_of_prompts_needs_its_code(model: XVLM2VecModel) -> None:
    class Model:
        config = XVLM2VecConfig(vlm_config=model.config.vlm_config, layout="qwen2_vl-vlm2vec")

    with pytest.raises(NativeError, match="prompts and positions of 'qwen2_vl-vlm2vec'"):
        check_native(Model())  # type: ignore[arg-type]
