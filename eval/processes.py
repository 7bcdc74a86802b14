"""The processes of one evaluation, as `accelerate launch` or `torchrun` starts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

# How long a process waits for the others. If one fails, its launcher ends them all; this is for a slow one.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
        device: Where its model belongs, such as `cuda:1`; None if there is only one process.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


ALONE = Processes()


def processes() -> Processes:
    """The processes that a launcher started together; the first call joins them to a group."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ALONE
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, str(state.device))
