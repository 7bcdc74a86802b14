"""Self-distillation steps against a reference written out: three forward passes a pair through the plain processor."""

import copy

import pytest
import torch
from torch.nn.functional import cosine_similarity, mse_loss

from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.collators import ParallelCollator
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.distillation_trainer import VISION_PARTS, SelfDistillationTrainer, embedder_of, freeze_vision
from xvlm2vec.trainer.losses import LossSum, SelfDistillationLoss
from xvlm2vec.trainer.optimizers import MuonAdamW


def arguments(folder, **settings):
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    steps = {"per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 1e-3, "max_grad_norm": 0.0}
    return SelfDistillationConfig(output_dir=str(folder), **{**quiet, **steps, **settings})


def make_trainer(folder, model, processor, rows=None, loss=None, **settings):
    args = arguments(folder, **settings)
    eval_rows = rows if args.eval_strategy != "no" else None
    return SelfDistillationTrainer(
        model, args, train_dataset=rows, eval_dataset=eval_rows, processing_class=processor, loss=loss
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


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen vision", "trained vision"])
@pytest.mark.parametrize("tokens", [16_384, 30], ids=["one pass", "many passes"])
def test_loss_and_gradients_are_those_of_the_written_out_reference(tmp_path, model, processor, rows, frozen, tokens):
    teacher = copy.deepcopy(model)
    trainer = make_trainer(tmp_path, model, processor, freeze_vision=frozen, max_tokens_per_forward=tokens)
    with torch.no_grad():
        for name, parameter in shaken(copy.deepcopy(model)).named_parameters():
            if not (frozen and is_vision(name)):
                model.get_parameter(name).copy_(parameter)
    reference = copy.deepcopy(model)
    expected = reference_loss(reference, teacher, processor, rows)
    loss = trainer.compute_loss(model, ParallelCollator(processor)(rows))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert loss.item() > 1e-3
    mine, theirs = gradients(model, loss), gradients(reference, expected)
    assert set(mine) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(is_vision(name) for name in mine) is not frozen
    for name, gradient in mine.items():
        close(gradient, theirs[name])


def test_a_teacher_copy_and_a_switched_off_adapter_give_the_same_loss(tmp_path, model, processor, rows):
    adapted = add_adapter(model, AdapterConfig(rank=2, train_embeddings=True))
    trainers = {kind: make_trainer(tmp_path, adapted, processor, teacher=kind) for kind in ("adapter-off", "copy")}
    assert trainers["adapter-off"].teacher is None
    batch = ParallelCollator(processor)(rows)
    at_start = trainers["adapter-off"].compute_loss(adapted, batch)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    losses = {kind: trainer.compute_loss(adapted, batch) for kind, trainer in trainers.items()}
    assert losses["adapter-off"].item() == pytest.approx(losses["copy"].item(), abs=1e-7)
    assert losses["copy"].item() != pytest.approx(at_start.item(), rel=1e-3)
    first, second = (gradients(adapted, loss) for loss in losses.values())
    assert set(first) == set(second) == {name for name, p in adapted.named_parameters() if p.requires_grad}
    for name, gradient in first.items():
        close(gradient, second[name])


def test_before_training_english_costs_nothing(tmp_path, model, processor, rows):
    trainer = make_trainer(tmp_path, model, processor, language_weight=0.0)
    assert trainer.compute_loss(model, ParallelCollator(processor)(rows)).item() == 0


@pytest.mark.parametrize("muon", [None, 1e-3], ids=["adamw", "muon"])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen vision", "trained vision"])
def test_only_what_should_train_is_trained(tmp_path, model, processor, corpus, frozen, muon):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(tmp_path, model, processor, corpus, freeze_vision=frozen, muon_learning_rate=muon)
    teacher = {name: value.clone() for name, value in trainer.teacher.state_dict().items()}
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, MuonAdamW) is (muon is not None)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    vision = {name for name in before if is_vision(name)}
    assert vision
    assert bool(moved & vision) is not frozen
    assert moved - vision
    for name, value in trainer.teacher.state_dict().items():
        assert torch.equal(value, teacher[name]), f"the teacher's {name} moved"


def test_twenty_steps_lower_the_loss(tmp_path, model, processor, corpus):
    trainer = make_trainer(tmp_path, model, processor, corpus, max_steps=20, learning_rate=3e-3)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 20
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_english_drift_and_distances_are_logged(tmp_path, model, processor, corpus, rows):
    teacher = copy.deepcopy(model)
    trainer = make_trainer(tmp_path, model, processor, corpus, learning_rate=0.0, max_steps=1)
    with torch.no_grad():
        for name, parameter in shaken(copy.deepcopy(model)).named_parameters():
            if not is_vision(name):
                model.get_parameter(name).copy_(parameter)
    trainer.train_dataset = trainer.train_dataset.select(range(4))
    trainer.train()
    (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)

    @torch.no_grad()
    def embed(some_model, row, text):
        return some_model(**processor(text=[text], images=[row["image"]])).pooler_output

    drift = [
        1 - cosine_similarity(embed(model, row, row["text_en"]), embed(teacher, row, row["text_en"])) for row in rows
    ]
    assert entry["english_drift"] == pytest.approx(torch.cat(drift).mean().item(), abs=1e-5)
    german = [
        1 - cosine_similarity(embed(model, row, item["text"]), embed(teacher, row, row["text_en"]))
        for row in rows
        for item in row["translations"]
        if item["lang"] == "de"
    ]
    assert entry["distance/de"] == pytest.approx(torch.cat(german).mean().item(), abs=1e-5)
    assert {name for name in entry if name.startswith("distance/")} == {"distance/it", "distance/de", "distance/ar"}


def test_a_held_out_part_is_evaluated(tmp_path, model, processor, corpus, rows):
    trainer = make_trainer(tmp_path, model, processor, corpus, eval_strategy="steps", eval_steps=3)
    trainer.train()
    (entry,) = (entry for entry in trainer.state.log_history if "eval_loss" in entry)
    again = trainer.compute_loss(model.eval(), ParallelCollator(processor)(rows))
    assert entry["eval_loss"] == pytest.approx(again.item(), rel=1e-5)


def test_another_loss_takes_the_papers_place(tmp_path, model, processor, rows):
    loss = LossSum({"keep": SelfDistillationLoss(0.0), "learn": SelfDistillationLoss(1.0)}, {"learn": 2})
    trainer = make_trainer(tmp_path, shaken(model), processor, loss=loss)
    value = trainer.compute_loss(model, ParallelCollator(processor)(rows))
    terms = loss.last_terms
    assert value.item() == pytest.approx((terms["keep"] + 2 * terms["learn"]).item())


def test_bfloat16_autocast_stays_near(tmp_path, model, processor, corpus):
    losses = {}
    for bf16 in (False, True):
        trainer = make_trainer(tmp_path, copy.deepcopy(model), processor, corpus, bf16=bf16, max_steps=2)
        trainer.train()
        losses[bf16] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert losses[True] != losses[False]


def test_activation_checkpointing_changes_nothing(tmp_path, model, processor, corpus):
    losses = []
    for checkpointing in (False, True):
        student = copy.deepcopy(model)
        trainer = make_trainer(tmp_path, student, processor, corpus, activation_checkpointing=checkpointing)
        trainer.train()
        assert any(getattr(part, "gradient_checkpointing", False) for part in student.modules()) is checkpointing
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"teacher": "oracle"}, "choose one of copy, adapter-off"), ({"translations_per_row": 0}, "at least 1")],
)
def test_bad_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **settings)


def test_adapter_off_needs_an_adapter(tmp_path, model, processor):
    with pytest.raises(ValueError, match='use teacher="copy"'):
        make_trainer(tmp_path, model, processor, teacher="adapter-off")


def test_the_embedder_is_found_inside_an_adapter_and_its_lack_is_named(model):
    assert embedder_of(model) is model
    assert embedder_of(add_adapter(model, AdapterConfig(rank=2))) is model
    with pytest.raises(ValueError, match="A Linear holds no XVLM2VecModel"):
        embedder_of(torch.nn.Linear(2, 2))


def test_freezing_vision_leaves_the_language_model(model):
    freeze_vision(model)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        name for name, _ in model.named_parameters() if is_vision(name)
    }
