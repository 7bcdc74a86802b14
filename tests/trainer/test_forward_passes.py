"""Passes that only other processes need: they run, and change nothing."""

import copy
from dataclasses import replace

import pytest
from steps import close, gradients, make_trainer, shaken

from xvlm2vec.modeling.packing import TokenGroup, pack_groups
from xvlm2vec.trainer.collators import FilledRows, FillerRow, PassCounts
from xvlm2vec.trainer.distillation_trainer import align_batches
from xvlm2vec.trainer.forward_passes import num_packs
from xvlm2vec.trainer.losses import CrossModalAlignmentLoss, LossSum, SelfDistillationLoss


@pytest.mark.parametrize("sharing", ["auto", "off"])
@pytest.mark.parametrize("kind", ["with images", "without"])
def test_passes_for_other_processes_change_nothing(tmp_path, model, processor, rows, sharing, kind):
    part = [row for row in rows if (row["image"] is None) is (kind == "without")]
    loss = LossSum({"paper": SelfDistillationLoss(), "alignment": CrossModalAlignmentLoss(0.5)})
    trainer = make_trainer(tmp_path, model, processor, loss=loss, sharing=sharing)
    shaken(model)
    (batch,) = trainer.data_collator(part)["batches"]
    own = trainer.passes.counts(batch)
    alone = int(kind == "with images")
    assert own == PassCounts(1, 1 if sharing == "auto" else 2, alone, alone)
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    expected = gradients(model, trainer.compute_loss(model, {"batches": [batch]}))
    assert len(seen) == own.texts + own.translations_only  # the teacher is a copy
    seen.clear()
    split = int(sharing == "auto")  # as if another process had rows on both sides of a RoPE limit
    more = replace(batch, passes=PassCounts(own.english + split, own.texts + split, 1, 1))
    found = gradients(model, trainer.compute_loss(model, {"batches": [more]}))
    assert len(seen) == own.texts + split + 1
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        close(gradient, expected[name])


def test_one_process_waits_for_none(tmp_path, model, processor, rows):
    trainer = make_trainer(tmp_path, model, processor)
    batches = trainer.data_collator(rows)["batches"]
    assert align_batches(batches, trainer.passes) is batches
    assert batches[0].passes is None


@pytest.mark.parametrize("limit", [None, 2, 3, 5, 7, 8, 40])
def test_sides_are_the_packs_without_a_budget(limit):
    groups = [TokenGroup([1, 2, 3], [[4], [5, 6], [7, 8, 9]]), TokenGroup([], [[1] * 4, [2] * 7])]
    tokens = sum(map(len, groups))
    assert num_packs(groups, limit) == len(pack_groups(groups, tokens, limit))


def test_fillers_follow_the_rows_and_weigh_nothing(tmp_path, model, processor, rows):
    filled = FilledRows(rows, 6)
    assert len(filled) == 6
    read = [filled[index] for index in range(6)]
    assert read == [*rows, *rows[:2]]
    assert [isinstance(row, FillerRow) for row in read] == [False] * 4 + [True] * 2
    batches = make_trainer(tmp_path, model, processor).data_collator(read)["batches"]
    assert [(batch.ids, batch.weight) for batch in batches] == [
        (["row-0", "row-1", "row-2", "row-3"], 1.0),
        (["row-0", "row-1"], 0.0),
    ]
    assert len(FilledRows(rows, 2)) == 4


def test_an_evaluation_reads_all_translations_and_always_the_same(tmp_path, model, processor, corpus, rows):
    settings = {"eval_strategy": "steps", "eval_steps": 3, "language_temperature": 2.0, "learning_rate": 0.0}
    found = []
    for drawn in (None, 1):
        folder = tmp_path / str(drawn)
        drawing = {"translations_per_row": drawn} if drawn else {"language_temperature": 1.0}
        trainer = make_trainer(folder, copy.deepcopy(model), processor, corpus, **{**settings, **drawing})
        for epoch in (0, 1):
            trainer.collator.epoch = epoch
            measured = trainer.evaluate()
            found.append({name: measured[name] for name in measured if "distance" in name or name == "eval_loss"})
    assert {"eval_distance/ar", "eval_distance/de", "eval_distance/it"} < found[0].keys()
    assert all(other == pytest.approx(found[0], rel=1e-6) for other in found[1:])
    drawn = sum(batch.pairs for batch in trainer.data_collator(rows)["batches"])
    assert drawn == len(rows)  # the training still draws
