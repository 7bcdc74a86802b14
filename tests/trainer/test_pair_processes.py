"""What several processes need and one does without, tried in one; two real ones are in test_contrastive_distributed."""

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from test_dataset_sampling import sampler
from torch.utils.data import DataLoader

from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.pair_processes import tell_epochs, use_all_weights


def loader_of_a_process():
    batches = sampler()
    plain = DataLoader(batches.dataset, batch_sampler=batches)
    return prepare_data_loader(plain, num_processes=2, process_index=0, even_batches=False)


def epochs(loader):
    found = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        found.append([batch.tolist() for batch in loader])
    return found


def test_batches_of_a_process_differ_between_epochs():
    first, second = epochs(tell_epochs(loader_of_a_process()))
    assert first != second
    assert len(first) == len(second) == 4440 // 4 // 2


def test_accelerate_does_not_tell_the_epoch_to_batches_that_it_divides():
    first, second = epochs(loader_of_a_process())
    assert first == second, "accelerate has learned it: trainer/pair_processes.py needs no tell_epochs"


class Embedder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.texts, self.images = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).requires_grad_(False)

    def forward(self, features):
        return {"sentence_embedding": self.texts(features["text"])}


def test_each_pass_uses_what_is_trained_and_keeps_its_vectors():
    model = Embedder()
    model.other = torch.nn.Linear(3, 3)
    features = {"text": torch.ones(1, 2)}
    before = model(features)["sentence_embedding"]
    with use_all_weights(model):
        after = model(features)["sentence_embedding"]
    assert torch.equal(before, after)
    after.sum().backward()
    assert not model.other.weight.grad.any()
    assert model.texts.weight.grad.all()
    assert model.images.weight.grad is None
    model.zero_grad()
    model(features)["sentence_embedding"].sum().backward()
    assert model.other.weight.grad is None


@pytest.fixture
def pairs():
    return Dataset.from_dict({"qry": ["two dogs", "rain"] * 4, "pos_text": ["in the park", "over the sea"] * 4})


def test_what_several_processes_cannot_do_is_refused(tmp_path, folder, pairs, monkeypatch):
    monkeypatch.setattr(ContrastiveConfig, "world_size", 4)
    args = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "per_device_train_batch_size": 4}
    with pytest.raises(ValueError, match="dataloader_drop_last=False leaves some of several processes"):
        train_contrastive(ContrastiveConfig(**args, dataloader_drop_last=False), pairs, model=str(folder))
    with pytest.raises(ValueError, match="few has 8 rows, fewer than the 16 of a batch"):
        train_contrastive(ContrastiveConfig(**args), {"few": pairs}, model=str(folder))


def test_sharded_weights_are_refused(tmp_path, folder, pairs, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    args = ContrastiveConfig(str(tmp_path / "out"), use_cpu=True, per_device_train_batch_size=4)
    with pytest.raises(ValueError, match="contrast does not divide weights"):
        train_contrastive(args, pairs, model=str(folder))
