"""Rows without a translation are left out with a warning, and the training goes through."""

import logging

import pytest
from datasets import Dataset
from steps import make_trainer

from xvlm2vec.trainer.translated_rows import translated


def test_a_row_without_a_translation_is_left_out_and_told(tmp_path, model, processor, corpus, caplog):
    rows = list(corpus)
    rows[7] = {**rows[7], "translations": []}
    rows[9] = {**rows[9], "translations": [{"lang": "it", "text": ""}]}
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path, model, processor, Dataset.from_list(rows), max_steps=-1, num_train_epochs=1)
    assert f"2 of 16 rows have no translation and are left out: {rows[7]['id']}, {rows[9]['id']}" in caplog.text
    trainer.train()
    assert len(trainer.train_dataset) == 14


def test_a_whole_corpus_stays_as_it_is(corpus):
    assert translated(corpus) is corpus
    assert translated(None) is None
    made = Dataset.from_dict({"number": [1]})
    assert translated({"held out": made})["held out"] is made
    with pytest.raises(ValueError, match="No row of the corpus has a translation"):
        translated(Dataset.from_list([{"id": "a", "translations": []}]))
