"""How many threads compute: fewer beside busy processes, more when they are gone, and never more than at the start."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from xvlm2vec.modeling import threads
from xvlm2vec.modeling.threads import ThreadChoice, candidates, chosen_threads, fastest, timed_work


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, whatever the machine has, and nothing measured yet."""
    monkeypatch.setattr(threads, "KNOWN", threads.Known())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Machine:
    """A clock, and seconds of a trial by the number of threads, idle or beside a busy process."""

    def __init__(self) -> None:
        self.now, self.busy, self.trials = 0.0, False, 0

    def clock(self) -> float:
        return self.now

    def trial(self, count: int, rows: int, limit: float) -> float:
        self.trials += 1
        return 4.0 * count if self.busy else 1 / count

    def choice(self) -> ThreadChoice:
        return ThreadChoice(clock=self.clock, trial=self.trial)


def test_threads_follow_the_machine() -> None:
    machine = Machine()
    choice = machine.choice()
    for busy, expected in ((False, 2), (True, 1), (True, 1), (False, 2)):
        machine.now, machine.busy = machine.now + threads.EVERY + 1, busy
        choice.check()
        assert torch.get_num_threads() == expected
    choice.stop()
    assert torch.get_num_threads() == 2


def test_nothing_is_measured_before_it_is_time() -> None:
    machine = Machine()
    choice = machine.choice()
    choice.check()
    assert machine.trials == 0
    machine.now = threads.FIRST
    choice.check()
    measured = machine.trials
    assert measured == 2 * threads.ROUNDS
    machine.now += threads.EVERY - 0.1
    choice.check()
    assert machine.trials == measured


def test_the_next_computation_starts_with_what_was_found_last() -> None:
    machine = Machine()
    machine.busy = True
    first = machine.choice()
    machine.now = threads.FIRST
    first.check()
    first.stop()
    machine.now += 1
    second = machine.choice()
    assert torch.get_num_threads() == second.count == 1
    measured = machine.trials
    second.check()
    assert machine.trials == measured
    second.stop()
    assert torch.get_num_threads() == 2
    machine.now += threads.RECENT
    assert machine.choice().count == torch.get_num_threads() == 2


def test_one_thread_and_other_devices_and_threads_have_no_choice() -> None:
    machine = Machine()
    found = [ThreadChoice("meta", machine.clock, machine.trial)]
    aside = threading.Thread(target=lambda: found.append(machine.choice()))
    aside.start()
    aside.join()
    torch.set_num_threads(1)
    found.append(machine.choice())
    torch.set_num_threads(2)
    machine.now = 100.0
    for choice in found:
        choice.check()
        choice.stop()
    assert machine.trials == 0
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(2, 2, [1, 2]), (1, 2, [1, 2]), (8, 8, [4, 8]), (4, 8, [2, 4, 8]), (4, 6, [2, 4, 6]), (1, 8, [1, 2])],
)
def test_neighbouring_counts_are_tried(count: int, most: int, expected: list[int]) -> None:
    assert candidates(count, most) == expected


def test_more_threads_must_be_clearly_faster_in_all_rounds_together() -> None:
    assert fastest([1, 2], lambda count, rows, limit: {1: 1.0, 2: 0.9}[count]) == 1
    assert fastest([1, 2], lambda count, rows, limit: {1: 1.0, 2: 0.6}[count]) == 2
    lucky = iter([1.0, 0.5, 1.0, 5.0] * threads.ROUNDS)
    assert fastest([1, 2], lambda count, rows, limit: next(lucky)) == 1


@pytest.mark.parametrize(("limit", "operations"), [(float("inf"), threads.OPERATIONS), (0.0, 1)])
def test_work_is_done_on_the_given_threads_and_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, limit: float, operations: int
) -> None:
    done, tanh = [], torch.tanh
    monkeypatch.setattr(torch, "tanh", lambda states: done.append(torch.get_num_threads()) or tanh(states))
    torch.set_num_threads(1)
    assert timed_work(2, 64, limit) > 0
    assert done == [2] * operations


def test_threads_come_back_after_an_error() -> None:
    def broken() -> None:
        with chosen_threads("cpu"):
            torch.set_num_threads(1)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        broken()
    assert torch.get_num_threads() == 2


def test_the_real_trials_give_a_count() -> None:
    choice = ThreadChoice(clock=iter([0.0, 0.0, 10.0, 11.0]).__next__)
    choice.check()
    assert torch.get_num_threads() == choice.count
    assert choice.count in (1, 2)
    choice.stop()


def test_deterministic_runs_keep_their_threads(monkeypatch):
    """Another number of threads rounds otherwise."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert threads.ThreadChoice("cpu").active
    torch.use_deterministic_algorithms(True)
    try:
        assert not threads.ThreadChoice("cpu").active
    finally:
        torch.use_deterministic_algorithms(False)
