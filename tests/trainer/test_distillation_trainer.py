"""Self-distillation steps against a reference written out: three forward passes a pair through the plain processor."""

import copy
import logging

import pytest
import torch
from datasets import Dataset
from steps import arguments, close, gradients, is_vision, make_trainer, named, reference_loss, shaken
from torch.nn.functional import cosine_similarity
from transformers import TrainerCallback

from xvlm2vec.modeling.model_parts import embedder_of
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.collators import ParallelCollator
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer
from xvlm2vec.trainer.losses import (
    CrossModalAlignmentLoss,
    ImageDistillationLoss,
    LanguageDisentanglementLoss,
    LossSum,
    MatryoshkaLoss,
    MultilingualContrastiveLoss,
    OneToManyContrastiveLoss,
    SelfDistillationLoss,
)
from xvlm2vec.trainer.optimizers import MuonAdamW
from xvlm2vec.trainer.vision_parameters import freeze_vision


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
    assert trainers["adapter-off"].teacher.model is adapted
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
    loss = trainer.compute_loss(model, ParallelCollator(processor)(rows))
    assert loss.item() < 1e-12  # the teacher's pass has other neighbours, so the last bits may differ


@pytest.mark.parametrize("muon", [None, 1e-3], ids=["adamw", "muon"])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen vision", "trained vision"])
def test_only_what_should_train_is_trained(tmp_path, model, processor, corpus, frozen, muon):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(tmp_path, model, processor, corpus, freeze_vision=frozen, muon_learning_rate=muon)
    teacher = {name: value.clone() for name, value in trainer.teacher.model.state_dict().items()}
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, MuonAdamW) is (muon is not None)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    vision = {name for name in before if is_vision(name)}
    assert vision
    assert bool(moved & vision) is not frozen
    assert moved - vision
    for name, value in trainer.teacher.model.state_dict().items():
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


def written_out_inputs(student, teacher, processor, rows):
    """What losses are called with, each vector from a pass of its own."""

    def embed(model, text, image, means=False):
        inputs = processor(text=[text], images=[image])
        output = model(**inputs)
        if not means:
            return output.pooler_output[0]
        shown = inputs["input_ids"][0].eq(model.config.vlm_config.image_token_id).nonzero()
        return output.last_hidden_state[0, : int(shown[-1]) + 2 if len(shown) else 1].mean(dim=0)

    found = {}

    def add(name, vector):
        found.setdefault(name, []).append(vector)

    for row in rows:
        image = row["image"]
        for item in row["translations"]:
            add("student_en", embed(student, row["text_en"], image))
            add("student_lang", embed(student, item["text"], image))
            add("student_lang_alone", embed(student, item["text"], None))
            add("student_en_image", embed(student, row["text_en"], image, means=True))
            add("student_lang_image", embed(student, item["text"], image, means=True))
            with torch.no_grad():
                add("teacher_en", embed(teacher, row["text_en"], image))
                add("teacher_en_image", embed(teacher, row["text_en"], image, means=True))
                alone = embed(teacher, "", image) if image is not None else torch.zeros_like(found["teacher_en"][0])
                add("teacher_image", alone)
            add("has_image", torch.tensor(image is not None))
    stacked = {name: torch.stack(vectors) for name, vectors in found.items()}
    owners = [index for index, row in enumerate(rows) for _ in row["translations"]]
    languages = [item["lang"] for row in rows for item in row["translations"]]
    return {**stacked, "row_of_pair": torch.tensor(owners), "languages": languages}


@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_every_loss_gets_what_it_compares(tmp_path, model, processor, rows, sharing):
    loss = LossSum(
        {
            "paper": SelfDistillationLoss(),
            "image": ImageDistillationLoss(),
            "alignment": CrossModalAlignmentLoss(0.5),
            "contrast": MatryoshkaLoss(MultilingualContrastiveLoss(0.5), [8, 32]),
            "one to many": OneToManyContrastiveLoss(0.5),
            "language": LanguageDisentanglementLoss(),
        },
        {"image": 0.5, "alignment": 0.1, "contrast": 0.2},
    )
    teacher = copy.deepcopy(model)
    trainer = make_trainer(tmp_path, model, processor, None, loss, sharing=sharing, freeze_vision=False)
    shaken(model)
    reference = copy.deepcopy(model)
    expected = loss(**written_out_inputs(reference, teacher, processor, rows))
    terms = dict(loss.last_terms)
    inputs = trainer.data_collator(rows)
    assert (inputs["batches"][0].groups is None) is (sharing == "off")
    value = trainer.compute_loss(model, inputs)
    for name, term in terms.items():
        assert loss.last_terms[name].item() == pytest.approx(term.item(), rel=1e-4), name
    mine, theirs = gradients(model, value), gradients(reference, expected)
    assert set(mine) == set(theirs)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-5, msg=named(name))


class Recorded(TrainerCallback):
    """Keeps the gradient of each step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("tokens", [16_384, 40], ids=["one pass", "many passes"])
@pytest.mark.parametrize(("batch", "accumulation"), [(6, 1), (2, 3), (1, 6)])
def test_the_gradient_is_that_of_all_pairs_whatever_the_rows_hold(
    tmp_path, model, processor, rows, tokens, batch, accumulation
):
    student = model.double()
    teacher = copy.deepcopy(student)
    six = [*rows, {**rows[0], "id": "more"}, {**rows[1], "id": "text"}]
    settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    trainer = make_trainer(
        tmp_path, student, processor, Dataset.from_list(six), max_tokens_per_forward=tokens, **settings
    )
    with torch.no_grad():
        for name, parameter in shaken(copy.deepcopy(student)).named_parameters():
            if not is_vision(name):
                student.get_parameter(name).copy_(parameter)
    expected = reference_loss(reference := copy.deepcopy(student), teacher, processor, six)
    theirs = gradients(reference, expected)
    recorded = Recorded()
    trainer.add_callback(recorded)
    trainer.train()
    (mine,) = recorded.steps
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-6, atol=1e-8, msg=named(name))
    (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert entry["loss"] == pytest.approx(expected.item(), rel=1e-6)


def test_terms_and_paces_are_logged(tmp_path, model, processor, corpus):
    loss = LossSum({"keep": SelfDistillationLoss(0.0), "learn": SelfDistillationLoss(1.0)}, {"learn": 2})
    trainer = make_trainer(tmp_path, model, processor, corpus, loss, max_tokens_per_forward=50)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 3
    for entry in entries:
        assert entry["loss"] == pytest.approx(entry["loss/keep"] + 2 * entry["loss/learn"], rel=1e-4)
        assert entry["tokens_per_second"] > entry["rows_per_second"] > 0


@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_the_best_checkpoint_is_that_of_the_worst_language(tmp_path, model, processor, corpus, sharing):
    trainer = make_trainer(
        tmp_path, model, processor, corpus, sharing=sharing, eval_strategy="steps", eval_steps=1, save_strategy="steps",
        save_steps=1, max_steps=6, learning_rate=2e-2, load_best_model_at_end=True,
        metric_for_best_model="worst_distance", per_device_eval_batch_size=3,
    )  # fmt: skip
    assert trainer.args.greater_is_better is False
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "eval_worst_distance" in entry]
    assert len(entries) == 6
    for entry in entries:
        languages = [entry[f"eval_distance/{code}"] for code in ("it", "de", "ar")]
        assert entry["eval_worst_distance"] == max(languages)
        assert entry["eval_english_drift"] >= 0
    best = min(entries, key=lambda entry: entry["eval_worst_distance"])
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best['step']}")
    again = trainer.evaluate()
    assert again["eval_worst_distance"] == pytest.approx(best["eval_worst_distance"], rel=1e-4)
    assert again["eval_loss"] == pytest.approx(best["eval_loss"], rel=1e-4)


def test_a_backbone_that_cannot_share_is_told_and_trained_all_the_same(tmp_path, model, processor, corpus, caplog):
    model.backbone.config.get_text_config().attention_dropout = 0.1
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path, model, processor, corpus)
    assert "Each text is passed whole" in caplog.text
    assert "dropout" in caplog.text
    assert trainer.collator.sharing is False
    trainer.train()
    assert len([entry for entry in trainer.state.log_history if "loss" in entry]) == 3


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
    [
        ({"teacher": "oracle"}, "choose one of cached, adapter-off, copy"),
        ({"translations_per_row": 0}, "at least 1"),
        ({"sharing": "on"}, "choose one of auto, tree, dense, off"),
        ({"max_tokens_per_forward": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **settings)


def test_adapter_off_needs_an_adapter(tmp_path, model, processor):
    with pytest.raises(ValueError, match='use teacher="cached"'):
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


def test_true_resumes_from_the_newest_checkpoint_that_is_whole(tmp_path, model, processor, corpus):
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    make_trainer(tmp_path, copy.deepcopy(model), processor, corpus, **settings).train()
    (tmp_path / "checkpoint-3" / "trainer_state.json").unlink()
    trainer = make_trainer(tmp_path, copy.deepcopy(model), processor, corpus, **settings)
    trainer.train(resume_from_checkpoint=True)
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3]
    with pytest.raises(ValueError, match="no complete checkpoint"):
        make_trainer(tmp_path / "none", model, processor, corpus).train(resume_from_checkpoint=True)


def test_settings_have_defaults(tmp_path, model, processor, corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XVLM2VEC_CACHE", str(tmp_path))
    trainer = SelfDistillationTrainer(model, train_dataset=corpus, processing_class=processor)
    assert trainer.args.teacher == "cached"


def test_the_pace_counts_from_the_start_of_the_training(tmp_path, model, processor, corpus):
    trainer = make_trainer(tmp_path, model, processor, corpus)
    trainer._pace.leave_out(-1000.0)  # as if the teacher's store had taken so long
    trainer.train()
    (first, *_) = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["rows_per_second"] > 0.1


def test_workers_that_stay_are_refused(tmp_path):
    with pytest.raises(ValueError, match="dataloader_persistent_workers"):
        arguments(tmp_path, dataloader_num_workers=1, dataloader_persistent_workers=True)
