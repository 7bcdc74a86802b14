"""Activated adapters in PEFT's own form give PEFT's own forward pass our vectors, or are refused in one sentence."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.hub.alora import AloraError, export_alora, invocation_tokens
from xvlm2vec.hub.native import save_as_published
from xvlm2vec.modeling.recipe import Recipe
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig

MARK = "<fake_token_around_image></s>"
FORMS = {"text": f"{{instruction}}{MARK}{{text}}", "image": "{images}", "image+text": f"{{images}}{MARK}{{text}}"}
IMAGE = Image.new("RGB", (32, 32), (10, 200, 90))


@pytest.fixture(scope="module")
def marked(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows have tokens right before every text."""
    folder = tmp_path_factory.mktemp("marked")
    model = XVLM2VecModel.from_backbone(backbone_folder)
    model.config.recipe = Recipe(FORMS, image="<image>").to_dict()
    model.save_pretrained(folder)
    XVLM2VecProcessor.from_pretrained(backbone_folder, recipe=model.config.recipe).save_pretrained(folder)
    return folder


def taught(folder: Path, **settings: object) -> XVLM2VecModel:
    model = add_activated(XVLM2VecModel.from_pretrained(folder), AdapterConfig(rank=3, activated=True, **settings))
    model.language_adapters["default"].languages = ["de"]
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_finds_the_text_by_itself_and_gives_our_vectors(marked: Path, tmp_path: Path, rslora: bool) -> None:
    model = taught(marked, rslora=rslora)
    export_alora(model, model.processor, "default", tmp_path / "alora")
    save_as_published(XVLM2VecModel.from_pretrained(marked).backbone, tmp_path / "published")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the language-model head is not stored
        whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "published", dtype="float32")
        peft = PeftModel.from_pretrained(whole, tmp_path / "alora").eval()
    texts, images = ["ein Hund", "der Hund und das Bild", "ein Hund"], [None, None, IMAGE]
    inputs = model.processor(text=texts, images=images)
    with torch.no_grad():
        states = peft(**inputs, output_hidden_states=True).hidden_states[-1]
        bare = model(**inputs).embeddings
    last = inputs["attention_mask"].shape[1] - 1 - inputs["attention_mask"].flip(1).argmax(1)
    vectors = torch.nn.functional.normalize(states[torch.arange(3), last], dim=-1)
    spoken = model.encode(texts, images=images, language="de")
    np.testing.assert_allclose(vectors, spoken, atol=2e-6)
    assert np.abs(spoken - bare.numpy()).max() > 1e-2


def test_what_peft_has_no_word_for_is_said(marked: Path, backbone_folder: Path, tmp_path: Path) -> None:
    for settings, message in (({"dora": True}, "activated DoRA"), ({"train_embeddings": True}, "token embeddings")):
        model = taught(marked, **settings)
        with pytest.raises(AloraError, match=message):
            export_alora(model, model.processor, "default", tmp_path / "alora")
    with pytest.raises(AloraError, match="No sequence of tokens"):
        invocation_tokens(XVLM2VecProcessor.from_pretrained(backbone_folder))
    twice = {**FORMS, "text": f"{{instruction}}{MARK}{{text}}{MARK}"}
    recipe = Recipe(twice, image="<image>").to_dict()
    doubled = XVLM2VecProcessor.from_pretrained(backbone_folder, recipe=recipe)
    with pytest.raises(AloraError, match="once more"):
        invocation_tokens(doubled)
    assert not (tmp_path / "alora").exists()
