"""Activated adapters: the step is that of plain passes in which only a translation's own tokens are changed."""

import copy
from contextlib import contextmanager

import pytest
import torch
from datasets import Dataset
from distributed_worker import turn_long_rows
from steps import at_step_end, make_trainer, named
from torch.nn.functional import embedding, linear, mse_loss

from xvlm2vec.modeling.language_adapters import DEFAULT
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig
from xvlm2vec.trainer.losses import SelfDistillationLoss, make_loss
from xvlm2vec.trainer.teachers import TeacherError

FAMILIES = ("llava", "llava_next-llama", "qwen2_vl", "idefics3")
MORE_FAMILIES = ("qwen3_vl", "smolvlm", "phi3_v", "lfm3_vl")
KINDS = {
    "lora": AdapterConfig(rank=2, activated=True),
    "rslora": AdapterConfig(rank=3, rslora=True, activated=True),
    "dora, embeddings": AdapterConfig(rank=2, dora=True, train_embeddings=True, activated=True),
}


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
    [
        *(("llava", kind) for kind in KINDS),
        *((family, "dora, embeddings") for family in FAMILIES[1:]),
        *(pytest.param(family, "dora, embeddings", marks=pytest.mark.slow) for family in MORE_FAMILIES),
    ],
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


def test_translations_beyond_a_rope_limit_see_a_prefix_with_their_own_factors(tmp_path, model, processor, rows):
    turn_long_rows(model, processor, rows)
    student = moved_adapter(model.double(), KINDS["dora, embeddings"])
    trainer = make_trainer(tmp_path, student, processor, Dataset.from_list(rows))
    batch = trainer.data_collator(rows)["batches"][0]
    assert trainer.passes.counts(batch).texts == 2
    loss, expected = trainer.compute_loss(student, {"batches": [batch]}), plain_loss(student, processor, rows)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    mine, theirs = adapter_gradients(student, loss), adapter_gradients(student, expected)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-6, atol=1e-9, msg=named(name))


@pytest.fixture
def student(model):
    """The tiny model with a fresh adapter."""
    torch.manual_seed(3)
    return add_activated(model, AdapterConfig(rank=4, train_embeddings=True, activated=True))


def test_base_weights_are_frozen_and_the_first_term_is_zero(tmp_path, student, processor, corpus, rows):
    before = {name: weight.clone() for name, weight in student.named_parameters() if not weight.requires_grad}
    trainer = make_trainer(
        tmp_path, student, processor, corpus, max_steps=6, teacher="cached", eval_strategy="steps", eval_steps=3
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "english_drift" in entry]
    assert len(logged) == 6
    assert {entry["english_drift"] for entry in logged} == {0.0}
    assert logged[-1]["loss"] < logged[0]["loss"]
    assert {entry["eval_english_drift"] for entry in trainer.state.log_history if "eval_loss" in entry} == {0.0}
    after = dict(student.named_parameters())
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert student.language_adapters[DEFAULT].languages == ["ar", "de", "it"]
    assert not list(tmp_path.glob("**/*.npy"))  # no teacher's vectors are stored


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "self-distillation:1,one-to-many:0.1"},
        {"loss": "multilingual-contrastive"},
        {"loss": "image-distillation"},
        {"matryoshka_dims": [8, 16]},
        {"muon_learning_rate": 1e-3},
        {"bf16": True},
    ],
    ids=lambda settings: next(iter(settings)) + ":" + str(next(iter(settings.values())))[:16],
)
def test_losses_and_settings_train_the_adapter(tmp_path, student, processor, corpus, settings):
    before = {name: weight.clone() for name, weight in trained_weights(student).items()}
    loss = make_loss(settings["loss"]) if "loss" in settings else None
    settings = {name: value for name, value in settings.items() if name != "loss"}
    trainer = make_trainer(tmp_path, student, processor, corpus, max_steps=2, loss=loss, **settings)
    trainer.train()
    assert all(torch.isfinite(weight).all() for weight in student.parameters())
    assert any(not torch.equal(weight, before[name]) for name, weight in trained_weights(student).items())


@pytest.mark.parametrize("distance", ["cosine", "smooth_l1"])
def test_other_distances(tmp_path, student, processor, rows, distance):
    loss = SelfDistillationLoss(distance=distance)
    trainer = make_trainer(tmp_path, student, processor, Dataset.from_list(rows), loss=loss)
    trainer.compute_loss(student, trainer.data_collator(rows)).backward()
    assert all(weight.grad is not None for weight in trained_weights(student).values())


def test_activation_checkpointing_and_cut_batches_change_no_gradient(tmp_path, student, processor, rows):
    with torch.no_grad():
        for weight in trained_weights(student).values():
            weight += 0.05 * torch.randn_like(weight)
    found = {}
    for kind, settings in {
        "plain": {},
        "checkpoints": {"activation_checkpointing": True},
        "cut": {"max_tokens_per_forward": 60},
    }.items():
        trainer = make_trainer(tmp_path / kind, student, processor, Dataset.from_list(rows), **settings)
        if settings.get("activation_checkpointing"):
            student.gradient_checkpointing_enable()
        batches = trainer.data_collator(rows)["batches"]
        assert (len(batches) > 1) is (kind == "cut")
        student.train()
        student.zero_grad()
        pairs = sum(batch.pairs for batch in batches)
        for batch in batches:
            trainer.compute_loss(student, {"batches": [batch]}, num_items_in_batch=pairs).backward()
        found[kind] = {name: weight.grad.clone() for name, weight in trained_weights(student).items()}
        student.gradient_checkpointing_disable()
    for kind in ("checkpoints", "cut"):
        for name, gradient in found["plain"].items():
            torch.testing.assert_close(found[kind][name], gradient, rtol=1e-4, atol=1e-7, msg=named(f"{kind} {name}"))


def test_a_resumed_run_ends_as_one_that_was_never_interrupted(tmp_path, model, processor, corpus):
    def train(folder, steps, resume=None):
        torch.manual_seed(3)
        student = add_activated(copy.deepcopy(model), AdapterConfig(rank=4, activated=True))
        trainer = make_trainer(folder, student, processor, corpus, max_steps=4, save_strategy="steps", save_steps=2)
        if steps < 4:
            trainer.add_callback(at_step_end(lambda args, state, control, **_: stop_at_step(state, control, steps)))
        trainer.train(resume_from_checkpoint=resume)
        return student

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "cut", 2)
    files = {path.name for path in (tmp_path / "cut" / "checkpoint-2").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert not {"model.safetensors", "config.json"} & files
    resumed = train(tmp_path / "cut", 4, resume=True)
    for name, weight in trained_weights(whole).items():
        assert torch.equal(weight, trained_weights(resumed)[name]), name
    assert resumed.language_adapters[DEFAULT].languages == ["ar", "de", "it"]


def test_each_language_teaches_its_own_adapter(tmp_path, model, processor, corpus):
    names = ["ar", "de", "it"]
    for name in names:
        add_activated(model, AdapterConfig(rank=2, train_embeddings=True, activated=True), name)
    before = {name: weight.clone() for name, weight in trained_weights(model).items()}
    make_trainer(tmp_path, model, processor, corpus).train()
    after = trained_weights(model)
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    parts = {name: [path for path in before if f".{name}." in path] for name in names}
    assert {len(part) for part in parts.values()} == {len(before) // 3}
    assert all(moved & set(part) for part in parts.values())
    assert [model.language_adapters[name].languages for name in names] == [[name] for name in names]


def test_a_stream_teaches_as_a_stored_corpus_does(tmp_path, model, processor, corpus):
    def train(folder, rows):
        torch.manual_seed(3)
        student = add_activated(copy.deepcopy(model), AdapterConfig(rank=4, activated=True))
        trainer = make_trainer(folder, student, processor, rows, train_sampling_strategy="sequential")
        trainer.train()
        return student

    stored, streamed = train(tmp_path / "stored", corpus), train(tmp_path / "stream", corpus.to_iterable_dataset())
    for name, weight in trained_weights(stored).items():
        torch.testing.assert_close(trained_weights(streamed)[name], weight, msg=named(name))
    assert streamed.language_adapters[DEFAULT].languages == ["ar", "de", "it"]


def stop_at_step(state, control, step):
    control.should_training_stop = state.global_step >= step


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sharing": "off"}, "sharing='off'"),
        ({"loss": "cross-modal-alignment"}, "by themselves"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path, student, processor, corpus, settings, message):
    loss = make_loss(settings["loss"]) if "loss" in settings else None
    settings = {name: value for name, value in settings.items() if name != "loss"}
    with pytest.raises(TeacherError, match=message):
        make_trainer(tmp_path, student, processor, corpus, loss=loss, **settings)


def test_a_backbone_that_cannot_share_is_refused_with_the_reason(tmp_path, student, processor, corpus):
    student.backbone.config.get_text_config().is_causal = False
    with pytest.raises(
        TeacherError, match="cannot share prefixes: its configuration says that attention is not causal"
    ):
        make_trainer(tmp_path, student, processor, corpus)


def test_the_vision_tower_stays_frozen(model):
    with pytest.raises(ValueError, match="cannot train the vision tower"):
        add_activated(model, AdapterConfig(rank=2, train_vision=True, activated=True))


def test_a_layer_that_keeps_more_than_keys_and_values_is_found(tmp_path, student, processor, corpus):
    """As a recurrent state would: what it adds depends on all tokens of the pass before."""
    layer = student.backbone.text_model.layers[0].mlp
    layer.register_forward_hook(lambda layer, inputs, output: output + inputs[0].shape[1])
    with pytest.raises(TeacherError, match=r"kept prefix have other vectors|differ by|changes with"):
        make_trainer(tmp_path, student, processor, corpus)
