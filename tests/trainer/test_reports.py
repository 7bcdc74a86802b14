"""What trackers get to draw: distances, drift and paces reach every callback that `report_to` names."""

from steps import make_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback

DRAWN = {"loss", "english_drift", "rows_per_second", "tokens_per_second"}
DISTANCES = {"distance/ar", "distance/de", "distance/it"}


class Tracker(TrainerCallback):
    """Stands where those of transformers stand, and keeps what it is told."""

    def __init__(self):
        self.told = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.told.append((state.global_step, dict(logs)))


def test_a_tracker_is_told_distances_drift_and_paces(tmp_path, model, processor, corpus):
    trainer = make_trainer(tmp_path, model, processor, corpus, eval_strategy="steps", eval_steps=3)
    trainer.add_callback(tracker := Tracker())
    trainer.train()
    steps = {step: logs for step, logs in tracker.told if "loss" in logs}
    assert list(steps) == [1, 2, 3]
    for logs in steps.values():
        assert logs.keys() > DRAWN | DISTANCES
        assert all(isinstance(logs[name], float) for name in DRAWN | DISTANCES)
    (held_out,) = (logs for _, logs in tracker.told if "eval_loss" in logs)
    assert held_out.keys() > {f"eval_{name}" for name in DISTANCES | {"english_drift", "worst_distance"}}


def test_tensorboard_draws_them(tmp_path, model, processor, corpus):
    settings = {"report_to": "tensorboard", "eval_strategy": "steps", "eval_steps": 3}
    make_trainer(tmp_path, model, processor, corpus, **settings).train()
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    drawn = set(events.Tags()["scalars"])
    assert drawn > {f"train/{name}" for name in DRAWN | DISTANCES} | {f"eval/{name}" for name in DISTANCES}
    assert [event.step for event in events.Scalars("train/distance/de")] == [1, 2, 3]
