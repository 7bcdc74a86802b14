"""A run in stages: which changes of its settings a folder takes."""

import pytest

from xvlm2vec.common.run_state import RunState, RunStateError


def test_a_finished_run_may_be_extended_and_nothing_else(tmp_path):
    folder, done = tmp_path / "run", []
    RunState(folder, {"model": "a", "max_steps": 2}).run("training", lambda: done.append(2))
    extended = RunState(folder, {"model": "a", "max_steps": 6}, extendable=("max_steps", "num_train_epochs"))
    extended.run("training", lambda: done.append(6))
    assert done == [2, 6]
    RunState(folder, {"model": "a", "max_steps": 6}).run("training", lambda: done.append(7))
    assert done == [2, 6]
    with pytest.raises(RunStateError, match="model: there 'a', now 'b'"):
        RunState(folder, {"model": "b", "max_steps": 9}, extendable=("max_steps",))
    with pytest.raises(RunStateError, match="max_steps: there 6, now 9"):
        RunState(folder, {"model": "a", "max_steps": 9})
