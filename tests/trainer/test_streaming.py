"""A stream on one process, and what each process reads of it."""

import copy

import pytest
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node

from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer


def arguments(folder, **settings):
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    steps = {"per_device_train_batch_size": 3, "learning_rate": 1e-3, "teacher": "copy"}
    return SelfDistillationConfig(output_dir=str(folder), **{**quiet, **steps, **settings})


class Watching(SelfDistillationTrainer):
    seen = ()

    def training_step(self, model, inputs, *args, **kwargs):
        self.seen += tuple(name for batch in inputs["batches"] if batch.weight for name in batch.ids)
        return super().training_step(model, inputs, *args, **kwargs)


def test_a_stream_gives_the_losses_of_its_rows_in_order(tmp_path, model, processor, corpus):
    losses = []
    for rows in (corpus, corpus.to_iterable_dataset(num_shards=2)):
        # Without kept states of images: those of a stream come of other groups, and some CPUs round a row by its group.
        trainer = Watching(
            model=copy.deepcopy(model),
            args=arguments(tmp_path, max_steps=5, train_sampling_strategy="sequential", image_cache_gb=0.0),
            train_dataset=rows,
            processing_class=processor,
        )
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        assert list(trainer.seen) == corpus["id"][:15]
    assert losses[0] == losses[1]


def test_a_stream_is_read_again_when_it_ends(tmp_path, model, processor, rows):
    stream = Dataset.from_list(rows).to_iterable_dataset()
    trainer = Watching(
        model=model, args=arguments(tmp_path, max_steps=4), train_dataset=stream, processing_class=processor
    )
    trainer.train()
    names = [row["id"] for row in rows]
    assert list(trainer.seen) == [*names, *names]  # three rows, one row, three rows, one row


@pytest.mark.parametrize(("shards", "processes"), [(4, 2), (3, 2), (1, 3)])
def test_processes_share_a_stream_without_loss(shards, processes):
    stream = Dataset.from_dict({"id": list(range(11))}).to_iterable_dataset(num_shards=shards)
    parts = [[row["id"] for row in split_dataset_by_node(stream, rank, processes)] for rank in range(processes)]
    assert sorted(number for part in parts for number in part) == list(range(11))


def test_a_stream_needs_a_number_of_steps_and_another_teacher(tmp_path, model, processor, rows):
    stream = IterableDataset.from_generator(lambda: iter(rows))
    with pytest.raises(ValueError, match='teacher="copy"'):
        SelfDistillationTrainer(
            model, arguments(tmp_path, max_steps=1, teacher="cached"), train_dataset=stream, processing_class=processor
        )
    with pytest.raises(ValueError, match="max_steps"):
        SelfDistillationTrainer(model, arguments(tmp_path), train_dataset=stream, processing_class=processor)
