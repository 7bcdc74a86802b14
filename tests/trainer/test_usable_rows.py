"""Rows without a translation are left out with a warning, and the training goes through."""

import copy
import logging

import pytest
from datasets import Dataset, Image
from steps import make_trainer

from xvlm2vec.trainer.usable_rows import drop_unusable_rows


def test_a_row_without_a_translation_is_left_out_and_told(tmp_path, model, processor, corpus, caplog):
    rows = list(corpus)
    rows[7] = {**rows[7], "translations": []}
    rows[9] = {**rows[9], "translations": [{"lang": "it", "text": ""}]}
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path, model, processor, Dataset.from_list(rows), max_steps=-1, num_train_epochs=1)
    assert f"2 of 16 rows have no translation and are left out: {rows[7]['id']}, {rows[9]['id']}" in caplog.text
    trainer.train()
    assert len(trainer.train_dataset) == 14


def test_a_row_without_anything_in_english_is_left_out_and_told(tmp_path, model, processor, corpus, caplog):
    rows = list(corpus)
    assert (rows[1]["image"], rows[0]["image"] is None) == (None, False)
    rows[0] = {**rows[0], "text_en": " "}  # its image stays
    rows[1] = {**rows[1], "text_en": "  "}
    rows[3] = {**rows[3], "text_en": None}
    stored = Dataset.from_list(rows, features=corpus.features)
    for kind in (stored, stored.to_iterable_dataset()):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            kept = [row["id"] for row in drop_unusable_rows(kind)]
        assert kept == [row["id"] for place, row in enumerate(rows) if place not in (1, 3)]
        assert "no English text and no image" in caplog.text
    settings = {"max_steps": -1, "num_train_epochs": 1}
    assert make_trainer(tmp_path, model, processor, stored, **settings).train().global_step == 4


def test_a_stream_leaves_rows_out_as_they_come(tmp_path, model, processor, corpus, caplog):
    rows = list(corpus.cast_column("image", Image(decode=False)))
    bare = [{**row, "id": f"bare-{index}", "translations": []} for index, row in enumerate(rows[:11])]
    stream = Dataset.from_list([*rows[:1], *bare, *rows[1:]], features=corpus.features).to_iterable_dataset(2)
    with caplog.at_level(logging.WARNING):
        found = list(drop_unusable_rows(stream))
    assert found == rows  # images as they are stored
    told = [record.getMessage() for record in caplog.records]
    assert [message.partition(" rows")[0] for message in told] == ["1", "10"]
    assert "'bare-0'" in told[0]
    trainer = make_trainer(tmp_path, model, processor, stream, max_steps=4)
    trainer.train()
    assert trainer.state.global_step == 4


@pytest.mark.parametrize("teacher", ["cached", "copy"])
def test_rows_made_when_they_are_read_are_left_out_too(tmp_path, model, processor, corpus, caplog, teacher):
    """Also where a whole step has none."""
    bare = {"row-1-0", "row-0-1", "row-1-1", "row-2-1", "row-3-1"}

    def make(rows):
        kept = [items if name not in bare else [] for name, items in zip(rows["id"], rows["translations"], strict=True)]
        return {**rows, "translations": kept}

    settings = {"teacher": teacher, "teacher_store": str(tmp_path / "store"), "max_steps": 4}
    settings |= {"train_sampling_strategy": "sequential", "learning_rate": 0.1, "optim": "sgd"}
    trainer = make_trainer(tmp_path, copy.deepcopy(model), processor, corpus.with_transform(make), **settings)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "1 rows have had no translation so far and are left out, the last of them 'row-1-0'" in caplog.text
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[1] == 0
    assert all(loss > 0 for loss in (losses[2], losses[3]))
    other = make_trainer(tmp_path, model, processor, corpus.select([0, 2, 3, *range(8, 16)]), **settings)
    batch = other.data_collator([other.train_dataset[index] for index in range(3)])
    assert losses[0] == pytest.approx(other.compute_loss(model, batch).item(), rel=1e-5, abs=1e-9)


def test_a_stream_is_still_shuffled_anew_in_each_epoch(corpus):
    orders = []
    for filtered in (False, True):
        stream = corpus.to_iterable_dataset(4).shuffle(seed=0, buffer_size=8)
        stream = drop_unusable_rows(stream) if filtered else stream
        for epoch in (0, 1):
            stream.set_epoch(epoch)
            orders.append([row["id"] for row in stream])
    assert orders[2:] == orders[:2]
    assert orders[0] != orders[1]


def test_a_whole_corpus_stays_as_it_is(corpus):
    assert drop_unusable_rows(corpus) is corpus
    assert drop_unusable_rows(None) is None
    made = Dataset.from_dict({"number": [1]})
    assert drop_unusable_rows({"held out": made})["held out"] is made
    with pytest.raises(ValueError, match="No row of the corpus has a translation"):
        drop_unusable_rows(Dataset.from_list([{"id": "a", "translations": []}]))
