"""Activated adapters: the step is that of plain passes in which only a translation's own tokens are changed."""

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from steps import make_trainer, named
from torch.nn.functional import embedding, linear, mse_loss

from xvlm2vec.modeling.language_adapters import DEFAULT
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig

FAMILIES = ("llava", "llava_next-llama", "qwen2_vl", "qwen3_vl", "idefics3", "smolvlm", "phi3_v")
KINDS = {
    "lora": AdapterConfig(rank=2, activated=True),
    "rslora": AdapterConfig(rank=3, rslora=True, activated=True),
    "dora, embeddings": AdapterConfig(rank=2, dora=True, train_embeddings=True, activated=True),
}


@pytest.fixture(scope="module")
def build_checkpoint():
    """The builder of tiny checkpoints that the tests of the models use."""
    path = Path(__file__).parents[1] / "modeling" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_checkpoints", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module.build
    del sys.modules[spec.name]


def moved_adapter(model, config):
    """A model with an adapter that does something."""
    add_activated(model, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return model


def own_place(processor, text, image):
    """Where a row's text begins: what it has in common with rows of other texts is not its own."""
    ids = processor(text=[text], images=[image])["input_ids"][0].tolist()
    if image is None:  # the mark that some tokenizers put before the first word is a text's own
        special = set(processor.inner.tokenizer.all_special_ids)
        return next(place for place, value in enumerate(ids) if value not in special)
    places = []
    for other in ("Qx", "ja", "鳥"):
        theirs = processor(text=[other], images=[image])["input_ids"][0].tolist()
        places.append(next(place for place, pair in enumerate(zip(ids, theirs)) if pair[0] != pair[1]))  # noqa: B905
    return min(places)


@contextmanager
def plainly_adapted(model, start):
    """Every layer with an adapter multiplies the tokens from a place on with merged weights of its own."""
    handles = []

    def adapted_linear(layer, inputs, output):
        change = layer.activated[DEFAULT]
        weight = layer.weight + change.scale * change.lora_B @ change.lora_A
        if change.lora_magnitude_vector is not None:
            weight = weight * (change.lora_magnitude_vector / weight.norm(dim=1).detach())[:, None]
        mine = linear(inputs[0], weight, layer.bias)
        return torch.cat([output[:, :start], mine[:, start:]], dim=1)

    def adapted_table(table, inputs, output):
        mine = embedding(inputs[0].clamp(min=0), table.modules_to_save[DEFAULT].weight)
        return torch.cat([output[:, :start], mine[:, start:]], dim=1)

    for module in model.modules():
        if hasattr(module, "activated"):
            handles.append(module.register_forward_hook(adapted_linear))
        if hasattr(module, "modules_to_save"):
            handles.append(module.register_forward_hook(adapted_table))
    yield
    for handle in handles:
        handle.remove()


def plain_loss(model, processor, rows):
    """The second half of the paper's loss, pair by pair; the first is zero."""
    errors = []
    for row in rows:
        with torch.no_grad():
            target = model(**inputs_of(model, processor, row["text_en"], row["image"])).pooler_output
        for item in row["translations"]:
            with plainly_adapted(model, own_place(processor, item["text"], row["image"])):
                vector = model(**inputs_of(model, processor, item["text"], row["image"])).pooler_output
            errors.append(mse_loss(vector, target) / 2)
    return torch.stack(errors).mean()


def inputs_of(model, processor, text, image):
    inputs = processor(text=[text], images=[image])
    dtype = model.dtype
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def trained_weights(model):
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def adapter_gradients(model, loss):
    weights = trained_weights(model)
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


@pytest.mark.parametrize(
    ("family", "kind"),
    [*(("llava", kind) for kind in KINDS), *((family, "dora, embeddings") for family in FAMILIES[1:])],
)
def test_loss_and_gradients_are_those_of_plain_passes(tmp_path, build_checkpoint, rows, family, kind):
    folder = build_checkpoint(family, tmp_path / "model")
    processor = XVLM2VecProcessor.from_pretrained(folder)
    model = moved_adapter(XVLM2VecModel.from_backbone(folder, dtype=torch.float64), KINDS[kind])
    trainer = make_trainer(tmp_path / "out", model, processor, Dataset.from_list(rows))
    loss = trainer.compute_loss(model, trainer.data_collator(rows))
    expected = plain_loss(model, processor, rows)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss.item() > 1e-4
    mine, theirs = adapter_gradients(model, loss), adapter_gradients(model, expected)
    assert all(gradient.any() for gradient in mine.values())
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-6, atol=1e-9, msg=named(name))
