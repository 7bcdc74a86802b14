"""A training whose loss is no number stops before the weights take it, and says which rows it was."""

import json

import pytest
import torch
from safetensors.torch import load_file
from steps import at_step_end, make_trainer

from xvlm2vec.trainer.losses import SelfDistillationLoss
from xvlm2vec.trainer.non_finite_loss import NonFiniteLossError


class Failing(SelfDistillationLoss):
    """Gives a NaN, or a gradient that is none, in its third call."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.calls = kind, 0

    def forward(self, **inputs):
        self.calls += 1
        value = super().forward(**inputs)
        if self.calls < 3:
            return value
        if self.kind == "loss":
            return value * torch.nan
        zero = (inputs["student_lang"] - inputs["student_lang"].detach()).sum()
        return value + zero.abs().sqrt()  # the value is 0, its derivative is not a number


@pytest.mark.parametrize(("kind", "what"), [("loss", "The loss"), ("gradient", "The gradient")])
@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_what_is_no_number_stops_the_training_with_its_batch_saved(
    tmp_path, model, processor, corpus, kind, what, sharing
):
    trainer = make_trainer(
        tmp_path, model, processor, corpus, Failing(kind), sharing=sharing, per_device_train_batch_size=2, max_steps=5
    )
    before = None

    def remember(*_, **__):
        nonlocal before
        before = [parameter.detach().clone() for parameter in model.parameters()]

    trainer.add_callback(at_step_end(remember))
    with pytest.raises(NonFiniteLossError, match=f"{what} is no finite number in step 3 .rows row-") as raised:
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    folder = tmp_path / "bad-batch-3"
    assert str(folder / "rows.json") in str(raised.value)
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    by_id = {row["id"]: row for row in corpus}
    assert len(rows) == 2
    for row in rows:
        stored = by_id[row["id"]]
        assert row["text_en"] == stored["text_en"]
        assert row["translations"] == stored["translations"]
        assert row["image"] is (stored["image"] is not None)
        assert row["id"] in str(raised.value)
    assert load_file(folder / "inputs.safetensors")
