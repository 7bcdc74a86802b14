"""The progress bar of a stage: where it starts, what it shows, and only in the first process."""

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from xvlm2vec.trainer.progress import StageBar


@pytest.fixture
def stage(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    return {"args": args, "state": TrainerState(max_steps=10, global_step=4), "control": TrainerControl()}


def test_a_resumed_stage_starts_where_it_was_and_shows_the_loss(stage, capsys):
    bar = StageBar("Teacher")
    bar.on_train_begin(**stage)
    stage["state"].global_step = 7
    bar.on_step_end(**stage)
    bar.on_log(**stage, logs={"loss": "0.25", "learning_rate": 1e-3, "english_drift": 0.125})
    bar.on_log(**stage, logs={"loss": 0.25, "rows_per_second": 4.94, "tokens_per_second": 1234.4})
    bar.on_train_end(**stage)
    shown = capsys.readouterr().err
    assert "4/10" in shown
    assert "7/10" in shown
    assert "Teacher" in shown
    assert "loss=0.2500, english_drift=0.1250" in shown
    assert "rows/s=4.9, tokens/s=1234" in shown
    assert "learning_rate" not in shown


def test_other_processes_show_nothing(stage, capsys):
    bar = StageBar("Teacher")
    stage["state"].is_world_process_zero = False
    bar.on_train_begin(**stage)
    bar.on_step_end(**stage)
    bar.on_log(**stage, logs={"loss": 1.0})
    bar.on_train_end(**stage)
    assert capsys.readouterr().err == ""
