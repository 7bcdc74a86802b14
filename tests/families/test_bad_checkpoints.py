"""Checkpoints that would give other vectors without a word are refused in one sentence; templates tell the marks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from building import TYPES
from judging import noise

from xvlm2vec.modeling.loading import CheckpointError
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

MARKS = "<|begin_of_image|><|image|><|end_of_image|>"
PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}IMAGE{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}[/]{% endfor %}"
)


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a checkpoint with changes of its configuration and a chat template."""

    def make(name: str, template: str | None = None, **changes: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(checkpoint(name), folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, "utf-8")
        return folder

    return make


def test_marks_of_the_chat_template(copy: Callable[..., Path]) -> None:
    folder = copy("glm4v", PARTS.replace("IMAGE", "(<|begin_of_image|><|image|>)\n"))
    processor = XVLM2VecProcessor.from_pretrained(folder)
    assert processor.prompt("x", 2) == "(<|begin_of_image|><|image|>)\n" * 2 + "x"


def test_marks_behind_all_images(copy: Callable[..., Path]) -> None:
    template = (
        "{% for m in messages %}user {% for p in m.content if p.type == 'image' %}<image>{% endfor %}"
        "{% if m.content[0].type == 'image' %}{{ '\n' }}{% endif %}"
        "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endfor %}"
    )
    processor = XVLM2VecProcessor.from_pretrained(copy("llava", template))
    assert processor.prompt("x", 2) == "<image><image>\nx"


@pytest.mark.parametrize(
    "template", ["{{ messages[0]['content'] }}", "{% for m in messages %}{{ m.role }}{% endfor %}"]
)
def test_a_template_that_knows_no_image(copy: Callable[..., Path], template: str) -> None:
    assert XVLM2VecProcessor.from_pretrained(copy("glm4v", template)).prompt("x", 1) == MARKS + "x"


def test_a_template_that_raises(copy: Callable[..., Path]) -> None:
    folder = copy("glm4v", "{{ raise_exception('only robots') }}")
    with pytest.raises(CheckpointError, match=r"chat template that raises TemplateError: only robots.*take it away"):
        XVLM2VecModel.from_backbone(folder)


def test_neither_template_nor_entry(copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(XVLM2VecProcessor.__call__.__globals__["family_of"].__globals__["FAMILIES"], "glm4v")
    with pytest.raises(CheckpointError, match=r"'glm4v' show an image is unknown: give the checkpoint a chat template"):
        XVLM2VecModel.from_backbone(copy("glm4v"))


def test_an_unknown_type_with_a_template(copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(XVLM2VecProcessor.__call__.__globals__["family_of"].__globals__["FAMILIES"], "glm4v")
    model = XVLM2VecModel.from_backbone(copy("glm4v", PARTS.replace("IMAGE", MARKS)))
    assert model.processor.prompt("x", 1) == MARKS + "x"
    assert model.encode(images=[noise(0), [noise(1), noise(2)]]).shape == (2, 64)


def test_another_image_token(copy: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"writes no token 7, which the model takes for an image"):
        XVLM2VecModel.from_backbone(copy("llava", image_token_id=7, image_token_index=7))


def test_images_that_no_token_stands_for(checkpoint: Callable[[str], Path]) -> None:
    model = XVLM2VecModel.from_backbone(checkpoint("llava"))
    inputs = model.processor(text=["a"], images=[noise(0)])
    model.backbone.config.image_token_id = 7
    with pytest.raises(ValueError, match=r"`pixel_values` holds images, but no token stands for one"):
        model(**inputs)


def test_the_processor_of_another_family(copy: Callable[..., Path], checkpoint: Callable[[str], Path]) -> None:
    folder = copy("llava")
    for path in checkpoint("glm4v").glob("*processor_config.json"):
        shutil.copy(path, folder)
    with pytest.raises(CheckpointError, match=r"Glm4vProcessor makes `image_grid_thw`, which the model does not take"):
        XVLM2VecModel.from_backbone(folder)


@pytest.mark.parametrize("name", ["llava", "glm4v", "ovis2", "paddleocr_vl", "hunyuan_vl"])
def test_an_image_token_in_a_text(name: str, checkpoint: Callable[[str], Path]) -> None:
    processor = XVLM2VecProcessor.from_pretrained(checkpoint(name))
    for token in TYPES[name].get("attributes", {}).values():
        with pytest.raises(ValueError, match=r"row 1: the text holds .*, which stands for an image; take it out"):
            processor(text=["a", f"b {token} c"])


def test_words_of_settings_are_no_tokens(checkpoint: Callable[[str], Path]) -> None:
    """`add_bos_token=False` of a tokenizer is a setting: texts may hold its value."""
    processor = XVLM2VecProcessor.from_pretrained(checkpoint("llava"))
    processor.inner.tokenizer.add_bos_token = False
    assert len(processor(text=["True or False or None"])["input_ids"]) == 1
