"""The paper's loss on the recorded data of the original implementation: value and gradient norms."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from xvlm2vec.modeling.image_processing_phi3_v import Phi3VImageProcessor
from xvlm2vec.modeling.modeling_phi3_v import Phi3VModel
from xvlm2vec.modeling.pooling import pool
from xvlm2vec.trainer.losses import LossSum, SelfDistillationLoss

DATA = Path(__file__).parents[2] / "modeling" / "data" / "phi3v"


@pytest.fixture(scope="module")
def recorded():
    return json.loads((DATA / "loss_expected.json").read_text(encoding="utf-8"))["self_distillation"]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """The three pooled vectors of each row, and the student that made two of them."""
    inputs = load_file(DATA / "loss_inputs.safetensors")
    images = Phi3VImageProcessor().preprocess([Image.open(DATA / f"{name}.png") for name in ("tall", "wide")])
    # the original's numbers were recorded from pixels stored in half precision
    image_list = {"pixel_values": images["pixel_values"].half().float(), "image_sizes": images["image_sizes"]}
    models = {name: load(name, tmp_path_factory.mktemp(name)) for name in ("teacher", "student")}

    def embed(name, language):
        mask = inputs[f"attention_mask_{language}"]
        output = models[name](input_ids=inputs[f"input_ids_{language}"], attention_mask=mask, **image_list)
        return pool(output.last_hidden_state, mask, "lasttoken")

    with torch.no_grad():
        target = embed("teacher", "eng")
    embedded = {"student_en": embed("student", "eng"), "student_lang": embed("student", "lang"), "teacher_en": target}
    return embedded, models["student"]


def load(name, folder):
    """Restores a checkpoint under the original key names: the stored one holds only the embedding rows in use."""
    config = json.loads((DATA / "config.json").read_text(encoding="utf-8"))
    weights = load_file(DATA / f"{name}.safetensors")
    rows, values = weights.pop("embedding_rows"), weights.pop("embedding_values")
    embedding = torch.zeros(config["vocab_size"], config["hidden_size"], dtype=values.dtype)
    embedding[rows] = values
    weights |= {"model.embed_tokens.weight": embedding, "lm_head.weight": torch.zeros_like(embedding)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Phi3VModel.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize(
    "loss", [SelfDistillationLoss(), LossSum({"paper": SelfDistillationLoss()})], ids=["alone", "in a sum"]
)
def test_loss_and_gradients_are_those_of_the_paper(recorded, vectors, loss):
    embedded, student = vectors
    assert recorded["loss"] == pytest.approx(0.3268454, abs=1e-7)
    value = loss(**embedded)
    parameters = dict(student.named_parameters())
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    gradients = {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}
    assert value.item() == pytest.approx(recorded["loss"], rel=1e-4)
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert total.item() == pytest.approx(recorded["grad_norm_global"], rel=1e-4)
    for name, norm in recorded["grad_norms"].items():
        assert gradients[name.removeprefix("model.")].norm().item() == pytest.approx(norm, rel=1e-4), name
