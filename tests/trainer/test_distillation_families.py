"""Self-distillation on tiny checkpoints of other families: the step is that of plain forward passes of each text."""

import copy

import pytest
import torch
from datasets import Dataset
from steps import is_vision, named
from torch.nn.functional import mse_loss

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer

SHARING = (
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_next-llama", "llava_next-mistral", "llava_onevision",
    "smolvlm", "idefics3", "internvl", "phi3_v", "gemma3", "qwen3_5", "lfm3_vl",
)  # fmt: skip
LOOKING_AHEAD = ("paligemma",)  # whole prompts attend in both directions


def pairs_one_by_one(student, teacher, processor, rows):
    errors = []
    for row in rows:
        for item in row["translations"]:
            english = processor(text=[row["text_en"]], images=[row["image"]])
            translated = processor(text=[item["text"]], images=[row["image"]])
            with torch.no_grad():
                target = teacher(**english).pooler_output
            errors += [mse_loss(student(**inputs).pooler_output, target) for inputs in (english, translated)]
    return torch.stack(errors).mean()


def learning(parameters, loss):
    """Names of the parameters that a loss moves."""
    options = {"allow_unused": True, "retain_graph": True}
    found = torch.autograd.grad(loss, list(parameters.values()), **options)
    return [name for name, gradient in zip(parameters, found, strict=True) if gradient is not None and gradient.any()]


@pytest.mark.parametrize("kind", ["frozen vision", "trained vision", "adapter"])
@pytest.mark.parametrize("family", SHARING + LOOKING_AHEAD)
def test_loss_and_gradients_are_those_of_plain_passes(tmp_path, build_checkpoint, rows, family, kind):
    frozen = kind == "frozen vision"
    folder = build_checkpoint(family, tmp_path / "model")
    student = XVLM2VecModel.from_backbone(folder, dtype=torch.float32)
    processor = XVLM2VecProcessor.from_pretrained(folder)
    teacher = copy.deepcopy(student)
    if kind == "adapter":
        student = add_adapter(student, AdapterConfig(rank=2, dora=True, train_vision=True))
    args = SelfDistillationConfig(
        str(tmp_path / "out"), use_cpu=True, report_to="none", freeze_vision=frozen, teacher="copy"
    )
    trainer = SelfDistillationTrainer(student, args, train_dataset=Dataset.from_list(rows), processing_class=processor)
    assert trainer.collator.sharing is (family in SHARING)
    trained = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert any(is_vision(name) for name in trained) is not frozen
    with torch.no_grad():
        for parameter in trained.values():
            parameter += 0.02 * torch.randn_like(parameter)
    expected = pairs_one_by_one(student, teacher, processor, rows)
    loss = trainer.compute_loss(student, trainer.data_collator(rows))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert loss.item() > 1e-2
    assert any(is_vision(name) for name in learning(trained, expected)) is not frozen
    options = {"allow_unused": True, "materialize_grads": True}
    mine = torch.autograd.grad(loss, list(trained.values()), **options)
    theirs = torch.autograd.grad(expected, list(trained.values()), **options)
    for name, gradient, other in zip(trained, mine, theirs, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6, msg=named(name))
