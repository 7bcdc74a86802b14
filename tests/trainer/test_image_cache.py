"""Images of a frozen vision tower are computed once in a run of several epochs, and nothing else changes."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from steps import make_trainer
from transformers import TrainerCallback, TrainerState

from xvlm2vec.modeling.packing import ImageStates
from xvlm2vec.trainer import disk_space
from xvlm2vec.trainer.disk_space import bytes_to_come
from xvlm2vec.trainer.image_cache import FOLDER, ImageCache


def states(seed, listed=True):
    generator = torch.Generator().manual_seed(seed)
    layers = [tuple(torch.randn(size, 8, generator=generator) for size in (3, 2)) for _ in range(3)]
    return ImageStates(layers[0], tuple(layers[1:]), listed)


@pytest.mark.parametrize("listed", [True, False])
def test_round_trip(tmp_path, listed):
    cache, kept = ImageCache(tmp_path, 10**6), states(0, listed)
    assert cache.get(b"a" * 32, torch.device("cpu")) is None
    cache.put(b"a" * 32, kept)
    cache.put(b"a" * 64, states(1, listed))
    found = ImageCache(tmp_path, 10**6).get(b"a" * 32, torch.device("cpu"))
    for mine, other in zip((found.states, *found.deepstack), (kept.states, *kept.deepstack), strict=True):
        assert all(torch.equal(*parts) for parts in zip(mine, other, strict=True))
    assert found.listed is listed


def test_no_more_bytes_than_allowed(tmp_path):
    cache = ImageCache(tmp_path, 2 * (3 * 5 * 8 + 1) * 4)
    for number in range(5):
        cache.put(bytes([number]) * 32, states(number))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_torn_file_is_computed_again(tmp_path):
    cache = ImageCache(tmp_path, 10**6)
    cache.put(b"a" * 32, states(0))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert cache.get(b"a" * 32, torch.device("cpu")) is None


def test_a_full_disk_ends_the_keeping_not_the_training(tmp_path, caplog):
    cache = ImageCache(tmp_path / "cache", 10**6)
    shutil.rmtree(tmp_path / "cache")
    cache.put(b"a" * 32, states(0))
    assert "No more images are kept" in caplog.text
    (tmp_path / "cache").mkdir()
    cache.put(b"b" * 32, states(0))
    assert not list((tmp_path / "cache").iterdir())


def test_each_image_is_seen_once_in_all_epochs(tmp_path, model, processor, corpus):
    losses, looks = {}, {}
    for size in (0.0, 0.1):
        student, seen = copy.deepcopy(model), []
        student.backbone.vision_model.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        trainer = make_trainer(
            tmp_path / str(size), student, processor, corpus, image_cache_gb=size, max_steps=-1, num_train_epochs=3
        )
        seen.clear()  # the check of sharing has looked, too
        trainer.train()
        losses[size] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        looks[size] = len(seen)
        assert not (tmp_path / str(size) / FOLDER).exists()
    assert len(losses[0.0]) == 12
    assert losses[0.1] == pytest.approx(losses[0.0], rel=1e-5)
    assert looks[0.1] < looks[0.0]


class Watching(TrainerCallback):
    """Notes what the cache may hold, and what it holds, after each step."""

    def __init__(self, passes):
        self.passes, self.budgets, self.sizes = passes, set(), []

    def on_step_end(self, args, state, control, **kwargs):
        self.budgets.add(self.passes.cache.budget)
        self.sizes.append(sum(path.stat().st_size for path in self.passes.cache.folder.iterdir()))


def test_the_cache_leaves_the_disk_to_checkpoints(tmp_path, model, processor, corpus, monkeypatch, caplog):
    settings = {"image_cache_gb": 0.1, "max_steps": -1, "num_train_epochs": 3, "save_strategy": "epoch"}
    trainer = make_trainer(tmp_path, model, processor, corpus, **settings)
    watching = Watching(trainer.passes)
    trainer.add_callback(watching)
    left = 3000
    needed = bytes_to_come(model, trainer.args, TrainerState(max_steps=12, num_train_epochs=3))
    assert needed > 3 * sum(parameter.numel() * 4 for parameter in model.parameters())
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed + left))
    trainer.train()
    assert watching.budgets == {left}
    assert 0 < max(watching.sizes) < 2 * left  # each file has a header
    assert "The disk has room for no more than 3.0 kB of the states of images" in caplog.text


def test_an_image_of_several_rows_is_seen_once(tmp_path, model, processor, rows, image):
    trainer = make_trainer(tmp_path, model, processor)
    passes, seen = trainer.passes, []
    passes.embedder.backbone.vision_model.register_forward_hook(lambda _, inputs, output: seen.append(len(output[0])))
    twice = [rows[0], rows[1], {**rows[2], "image": image(0)}, {**rows[3], "image": image(2)}]
    (batch,) = trainer.data_collator(twice)["batches"]
    with torch.no_grad():
        found = passes.embed_texts(model, batch)
        assert seen == [2]
        for number, row in enumerate(twice):
            (alone,) = trainer.data_collator([row])["batches"]
            torch.testing.assert_close(found.english[number : number + 1], passes.embed_texts(model, alone).english)
    cache = passes.cache = ImageCache(tmp_path / "cache", 10**6)
    (again,) = trainer.data_collator(twice)["batches"]
    seen.clear()
    passes.embed_texts(model, again)
    assert seen == [2]
    assert len(list(cache.folder.iterdir())) == 2
