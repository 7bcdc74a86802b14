"""How many threads a computation on a CPU uses: measured again while it runs, as other processes come and go.

The threads of an operation wait for each other at its end. If another process keeps a core busy, one of them waits for
that core, at thousands of operations a second, and two threads take several times as long as one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)

FIRST, EVERY = 0.5, 5.0  # seconds of work before the first measurement, and between later ones
RECENT = 60.0  # seconds for which a measurement tells the next computation where to start
ROUNDS = 6
OPERATIONS, ROWS = 24, 512  # of each round, and rows of an operation for each thread: some six milliseconds
GIVE_UP = 2.0  # how many times the best one's time a count may take
GAIN = 0.75  # more threads must take less than this share of the time of fewer


@dataclass
class Known:
    """What this process found last.

    Args:
        count: Threads.
        at: When, by the clock.
    """

    count: int = 0
    at: float = float("-inf")


KNOWN = Known()

Trial = Callable[[int, int, float], float]


class ThreadChoice:
    """Computes with as many threads as are fastest now, at most those that torch had at the start.

    It starts with what was found within the last minute in this process, else with all. It does nothing on other
    devices, with one thread, outside of the main thread (the number belongs to the process), and where
    `torch.use_deterministic_algorithms` asks for the same bits each time: other numbers of threads round otherwise.

    Args:
        device: Where the computation runs.
        clock: Seconds.
        trial: Seconds that a piece of work takes with so many threads; see `timed_work`.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        clock: Callable[[], float] = time.perf_counter,
        trial: Trial | None = None,
    ) -> None:
        self.most = torch.get_num_threads()
        self.clock, self.trial = clock, trial or timed_work
        main = threading.current_thread() is threading.main_thread()
        self.active = torch.device(device).type == "cpu" and self.most > 1 and main
        self.active &= not torch.are_deterministic_algorithms_enabled()
        self.count = self.most
        self._due = clock() + FIRST
        if self.active and clock() - KNOWN.at < RECENT and KNOWN.count <= self.most:
            self._use(KNOWN.count)
            self._due = KNOWN.at + EVERY

    def check(self) -> None:
        """Measures anew if it is time to; call it between steps or batches."""
        if not self.active or self.clock() < self._due:
            return
        chosen = fastest(candidates(self.count, self.most), self.trial)
        if chosen != self.count:
            logger.debug("Computing with %d of %d threads, which is faster now.", chosen, self.most)
        self._use(chosen)
        KNOWN.count, KNOWN.at = chosen, self.clock()
        self._due = KNOWN.at + EVERY

    def _use(self, count: int) -> None:
        self.count = count
        torch.set_num_threads(count)

    def stop(self) -> None:
        """Gives torch back the threads that it had."""
        if self.active:
            torch.set_num_threads(self.most)


@contextmanager
def chosen_threads(device: torch.device | str) -> Iterator[ThreadChoice]:
    """A choice that ends with the block."""
    choice = ThreadChoice(device)
    try:
        yield choice
    finally:
        choice.stop()


def candidates(count: int, most: int) -> list[int]:
    """Half as many threads, as many, and twice as many."""
    return sorted({max(count // 2, 1), count, min(2 * count, most)})


def fastest(counts: list[int], trial: Trial) -> int:
    """The count whose trials take least time in all; more threads only where they are clearly faster than fewer.

    Args:
        counts: Of threads, from few to many.
        trial: As of `ThreadChoice`.
    """
    seconds = dict.fromkeys(counts, 0.0)
    for _ in range(ROUNDS):
        limit = float("inf")
        for count in counts:
            taken = trial(count, ROWS * counts[-1], limit)
            seconds[count] += taken
            limit = min(limit, GIVE_UP * taken)
    best = counts[0]
    for count in counts[1:]:
        if seconds[count] < GAIN * seconds[best]:
            best = count
    return best


@torch.inference_mode()
def timed_work(count: int, rows: int, limit: float) -> float:
    """Runs products and elementwise operations, as a small model does, on so many threads.

    Args:
        count: Threads.
        rows: Of each operation.
        limit: Seconds after which the work ends early.

    Returns:
        Seconds.
    """
    torch.set_num_threads(count)
    states, weight = torch.ones(rows, 128), torch.full((128, 128), 1 / 128)
    started = time.perf_counter()
    for _ in range(OPERATIONS):
        states = torch.tanh(states @ weight)
        if time.perf_counter() - started > limit:
            break
    return time.perf_counter() - started
