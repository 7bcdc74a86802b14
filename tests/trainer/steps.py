"""What tests of distillation steps share: a trainer of the tiny model, a moved student, the reference written out."""

from __future__ import annotations

import torch
from torch.nn.functional import mse_loss
from transformers import TrainerCallback

from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer
from xvlm2vec.trainer.vision_parameters import VISION_PARTS


def arguments(folder, **settings):
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    steps = {"per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 1e-3, "max_grad_norm": 0.0}
    # Most tests hand batches to the trainer that no corpus holds.
    return SelfDistillationConfig(output_dir=str(folder), **{"teacher": "copy", **quiet, **steps, **settings})


def make_trainer(folder, model, processor, rows=None, loss=None, other=None, **settings):
    args = arguments(folder, **settings)
    eval_rows = rows if args.eval_strategy != "no" else None
    return SelfDistillationTrainer(
        model, args, train_dataset=rows, eval_dataset=eval_rows, processing_class=processor, loss=loss, teacher=other
    )


def shaken(model, seed=1):
    """A student that has moved away from its teacher."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def reference_loss(student, teacher, processor, rows):
    """The paper's loss, row by row of the reference: every pair runs its three forward passes alone."""
    errors = []
    for row in rows:
        for item in row["translations"]:

            def embed(model, text, row=row):
                return model(**processor(text=[text], images=[row["image"]])).pooler_output

            with torch.no_grad():
                target = embed(teacher, row["text_en"])
            english, translated = embed(student, row["text_en"]), embed(student, item["text"])
            errors.append((mse_loss(english, target) + mse_loss(translated, target)) / 2)
    return torch.stack(errors).mean()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def is_vision(name):
    return any(part in VISION_PARTS for part in name.split("."))


def close(mine, other):
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def named(name):
    """Puts a name before the message of a comparison."""
    return lambda message: f"{name}: {message}"


def at_step_end(function):
    """A callback that calls a function at the end of each step."""
    return type("Callback", (TrainerCallback,), {"on_step_end": staticmethod(function)})()
