"""The contrastive stage: the loss of its formula, pieces that change nothing, resuming, and rows of every kind."""

import copy
import json
import pickle
import shutil

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch.nn.functional import cross_entropy, normalize
from transformers import TrainerCallback

from xvlm2vec.common.columns import PAIR_COLUMNS
from xvlm2vec.trainer.adapters import AdapterConfig, load_adapter
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.pair_collator import PairCollator


@pytest.fixture
def pairs(image):
    from datasets import Features, Image, Value

    texts = [
        ("a red bicycle", None, "by the wall", None),
        ("", image(1), "two dogs", None),
        ("the bakery", image(2), "opens early", image(3)),
        ("rain", None, "", image(4)),
    ]
    columns = PAIR_COLUMNS
    features = Features({name: Image() if name.endswith("image") else Value("string") for name in columns})
    return Dataset.from_list([dict(zip(columns, row, strict=True)) for row in texts * 3], features=features)


class Losses(TrainerCallback):
    """Keeps the loss and gradient norm of every step."""

    def __init__(self, kill_at=None):
        self.steps, self.kill_at = [], kill_at

    def on_step_begin(self, args, state, control, **kwargs):
        args.logging_steps = state.logging_steps = 1

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" in logs:
            self.steps.append((state.global_step, float(logs["loss"]), float(logs["grad_norm"])))

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.kill_at:
            raise InterruptedError


def train(folder, output, pairs, kill_at=None, eval_rows=None, adapter=None, guide=None, **settings):
    losses = Losses(kill_at)
    usual = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_steps": 1, "use_cpu": True}
    args = ContrastiveConfig(output_dir=str(output), **{**usual, **settings})
    options = {"eval_rows": eval_rows, "adapter": adapter, "guide": guide}
    model = train_contrastive(args, pairs, [losses], model=str(folder), **options)
    return model, losses.steps


def test_the_first_loss_is_symmetric_infonce(tmp_path, folder, pairs, model, processor):
    _, steps = train(folder, tmp_path / "out", pairs, train_sampling_strategy="sequential", temperature=0.1)
    rows = pairs.select(range(4))
    with torch.no_grad():
        queries = model(**processor(text=[t or None for t in rows["qry"]], images=list(rows["qry_image"]))).embeddings
        targets = [t or None for t in rows["pos_text"]]
        found = model(**processor(text=targets, images=list(rows["pos_image"]))).embeddings
    scores, own = queries @ found.T / 0.1, torch.arange(4)
    expected = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
    assert steps[0][1] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("muon", [None, 1e-5], ids=["adamw", "muon"])
def test_pieces_give_the_same_losses_and_gradients(tmp_path, folder, pairs, muon):
    settings = {"learning_rate": 1e-5, "muon_learning_rate": muon}
    _, whole = train(folder, tmp_path / "whole", pairs, **settings)
    _, pieces = train(folder, tmp_path / "pieces", pairs, mini_batch_size=3, **settings)
    assert len(whole) == 3
    for mine, other in zip(whole, pieces, strict=True):
        assert mine == pytest.approx(other, rel=1e-5)


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, folder, pairs):
    settings = {"num_train_epochs": 2, "save_steps": 2, "muon_learning_rate": 1e-3}
    whole, steps = train(folder, tmp_path / "whole", pairs, **settings)
    with pytest.raises(InterruptedError):
        train(folder, tmp_path / "broken", pairs, kill_at=5, **settings)
    torn = tmp_path / "broken" / "checkpoints" / "checkpoint-6"
    shutil.copytree(torn.with_name("checkpoint-4"), torn)
    (torn / "trainer_state.json").unlink()
    resumed, rest = train(folder, tmp_path / "broken", pairs, **settings)
    assert len(steps) == 6
    assert rest == steps[4:]
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_training_lowers_the_loss_and_saves_what_loads_again(tmp_path, folder, pairs):
    model, steps = train(folder, tmp_path / "out", pairs, num_train_epochs=6)
    assert sum(loss for _, loss, _ in steps[-3:]) < 0.8 * sum(loss for _, loss, _ in steps[:3])
    loaded = SentenceTransformer(str(tmp_path / "out"))
    texts = ["a red bicycle", "rain"]
    torch.testing.assert_close(
        loaded.encode(texts, convert_to_tensor=True), model.encode(texts, convert_to_tensor=True)
    )


def test_rows_in_order_stay_in_order(tmp_path, folder, pairs, monkeypatch):
    seen = []
    collate = PairCollator.__call__

    def watch(self, features):
        seen.extend(row["qry"] for row in features)
        return collate(self, features)

    monkeypatch.setattr(PairCollator, "__call__", watch)
    train(folder, tmp_path / "in order", pairs, train_sampling_strategy="sequential")
    assert seen == pairs["qry"][:]
    seen.clear()
    train(folder, tmp_path / "shuffled", pairs)
    assert seen != pairs["qry"][:]
    assert sorted(seen) == sorted(pairs["qry"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("pos_text"), "Row 1 of a batch has neither 'pos_text' nor 'pos_image'"),
        (lambda row: row.update(qry="", qry_image=None), "Row 1 of a batch has neither 'qry' nor 'qry_image'"),
    ],
)
def test_bad_rows_are_named(pairs, change, message):
    rows = [copy.copy(pairs[0]), copy.copy(pairs[1])]
    change(rows[1])
    with pytest.raises(ValueError, match=message):
        PairCollator(preprocess_fn=lambda texts, **_: {})(rows)


def test_accumulated_steps_are_the_mean_of_their_batches(tmp_path, folder, pairs):
    settings = {"train_sampling_strategy": "sequential", "learning_rate": 1e-9}
    _, single = train(folder, tmp_path / "single", pairs, **settings)
    _, accumulated = train(folder, tmp_path / "accumulated", pairs, gradient_accumulation_steps=3, **settings)
    assert len(accumulated) == 1
    assert accumulated[0][1] == pytest.approx(sum(loss for _, loss, _ in single) / 3, rel=1e-3)


def test_held_out_rows_are_all_read(tmp_path, folder, pairs, monkeypatch):
    seen = []
    collate = PairCollator.__call__

    def watch(self, features):
        seen.append([row["qry"] for row in features])
        return collate(self, features)

    monkeypatch.setattr(PairCollator, "__call__", watch)
    settings = {"per_device_eval_batch_size": 4, "eval_strategy": "steps", "eval_steps": 2, "max_steps": 2}
    train(folder, tmp_path / "out", pairs, eval_rows=pairs.select(range(6)), **settings)
    texts = pairs["qry"][:6]
    assert seen[-2:] == [texts[:4], texts[4:]]


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_an_interrupted_adapter_ends_with_the_same_bits_and_loads_on_its_base(tmp_path, folder, pairs, model, dora):
    settings = {"max_steps": 4, "save_steps": 2, "adapter": AdapterConfig(rank=2, dora=dora, train_embeddings=True)}
    whole, _ = train(folder, tmp_path / "whole", pairs, **settings)
    with pytest.raises(InterruptedError):
        train(folder, tmp_path / "broken", pairs, kill_at=3, **settings)
    train(folder, tmp_path / "broken", pairs, **settings)
    files = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "broken")]
    assert files[0].keys() == files[1].keys()
    for name, value in files[0].items():
        assert torch.equal(value, files[1][name]), name
    checkpoint = tmp_path / "whole" / "checkpoints" / "checkpoint-4"
    assert not (checkpoint / "model.safetensors").exists()
    texts = ["a red bicycle", "rain"]
    before = model.encode(text=texts)
    adapted = load_adapter(model, tmp_path / "whole").merge_and_unload().encode(text=texts)
    torch.testing.assert_close(torch.as_tensor(adapted), whole.encode(texts, convert_to_tensor=True), atol=1e-5, rtol=0)
    assert not torch.allclose(torch.as_tensor(before), torch.as_tensor(adapted), atol=1e-4)


def test_old_names_are_read_with_a_warning(tmp_path):
    old = {"batch_size": 8, "epochs": 2, "warmup_ratio": 0.1, "shuffle": False, "model": "somewhere"}
    with pytest.warns(DeprecationWarning, match="is deprecated; use") as told:
        args = ContrastiveConfig(output_dir=str(tmp_path), use_cpu=True, **old)
    assert {str(item.message).partition(" ")[0] for item in told} == set(old)
    assert (args.per_device_train_batch_size, args.num_train_epochs, args.warmup_steps) == (8, 2, 0.1)
    assert (args.train_sampling_strategy, args.old_model) == ("sequential", "somewhere")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_sampling_strategy": "group_by_length"}, "is none of random, sequential"),
        ({"train_sampling_strategy": "sequential", "batch_sampler": "no_duplicates"}, "leave train_sampling"),
        ({"mini_batch_size": 0}, "mini_batch_size must be"),
        ({"temperature": 0}, "temperature must be"),
        ({"push_to_hub": True}, "xvlm2vec release"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveConfig(output_dir=str(tmp_path), use_cpu=True, **settings)


def test_a_checkpoint_holds_no_token(tmp_path):
    args = ContrastiveConfig(output_dir=str(tmp_path), use_cpu=True, hub_token="secret")
    assert b"secret" not in pickle.dumps(args)


def test_marks_of_images_are_not_learned_as_letters(tmp_path, folder, pairs):
    marked = pairs.map(
        lambda row: {
            "qry": row["qry"] if row["qry_image"] is None else f"<|image_1|>\n{row['qry']}",
            "pos_text": row["pos_text"] if row["pos_image"] is None else f"<image>{row['pos_text']}",
        }
    ).cast(pairs.features)
    settings = {"max_steps": 1, "train_sampling_strategy": "sequential"}
    _, bare = train(folder, tmp_path / "bare", pairs, **settings)
    _, with_marks = train(folder, tmp_path / "marked", marked, **settings)
    assert with_marks == bare


def test_a_mark_without_an_image_is_told_before_the_training(tmp_path, folder, pairs):
    rows = [pairs[index] for index in range(8)]
    rows[5]["pos_text"], rows[5]["pos_image"] = "<image>\ntwo dogs", None
    broken = Dataset.from_list(rows, features=pairs.features)
    with pytest.raises(ValueError, match="Row 5, 'pos_text': the text holds 1 marks of an image"):
        train(folder, tmp_path / "out", broken)
    made = broken.with_transform(lambda batch: batch)
    with pytest.raises(ValueError, match="Row 1 of a batch, 'pos_text'"):
        train(folder, tmp_path / "made", made, train_sampling_strategy="sequential")


@pytest.mark.parametrize("pieces", [None, 3], ids=["plain", "cached"])
def test_matryoshka_sums_over_sizes_and_the_model_tells_them(tmp_path, folder, pairs, model, processor, pieces):
    settings = {"train_sampling_strategy": "sequential", "temperature": 0.1, "max_steps": 1, "mini_batch_size": pieces}
    _, steps = train(folder, tmp_path / "out", pairs, matryoshka_dims=[8, 16], **settings)
    rows = pairs.select(range(4))
    with torch.no_grad():
        sides = [
            model(**processor(text=[text or None for text in rows[name]], images=list(rows[image]))).embeddings
            for name, image in (PAIR_COLUMNS[:2], PAIR_COLUMNS[2:])
        ]
    own, expected = torch.arange(4), 0.0
    for size in (8, 16, 32):
        queries, targets = (normalize(side[:, :size]) for side in sides)
        scores = queries @ targets.T / 0.1
        expected += (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
    assert steps[0][1] == pytest.approx(expected.item(), rel=1e-4)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["matryoshka_dims"] == [16, 8]
    with pytest.raises(ValueError, match="do not fit vectors of 32 values"):
        train(folder, tmp_path / "wrong", pairs, matryoshka_dims=[64])
