"""Who does the work of a command: this process, several of this machine, or a Ray cluster."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import console

if TYPE_CHECKING:
    from xvlm2vec.common.workers import Workers


def add_workers(parser: argparse.ArgumentParser, what: str, processes: bool = True) -> None:
    """Adds the flags that name workers.

    Args:
        parser: The command's parser.
        what: What they do.
        processes: Whether they may be processes of this machine.
    """
    group = parser.add_argument_group("by several workers", what)
    if processes:
        group.add_argument("--num-proc", type=console.positive, metavar="N", help="processes of this machine, by "
                           "datasets.map")  # fmt: skip
    group.add_argument("--engine", choices=("here", "ray"), default="here", help="ray: the workers of a Ray cluster, "
                       "by Ray Data; needs pip install 'xvlm2vec[ray]' (default here)")  # fmt: skip
    group.add_argument("--address", metavar="HOST:PORT", help="of the cluster; auto finds one that runs here "
                       "(default: a new one on this machine)")  # fmt: skip
    group.add_argument("--workers", type=console.positive, default=2, metavar="N", help="of the cluster, each with a "
                       "GPU if there are as many (default 2)")  # fmt: skip


def load_workers(flags: argparse.Namespace) -> Workers | None:
    """The workers; None for this process alone.

    Raises:
        ValueError: Flags do not fit together.
        ImportError: Ray is not installed.
        RuntimeError: The cluster cannot be used.
    """
    from xvlm2vec.common.workers import Cluster, Processes

    processes = getattr(flags, "num_proc", None) or 1
    if flags.engine == "here":
        if flags.address:
            raise ValueError("--address is that of a Ray cluster: add --engine ray.")
        return Processes(processes) if processes > 1 else None
    if processes > 1:
        raise ValueError("--num-proc is for this machine alone: with --engine ray, --workers says how many there are.")
    return Cluster(flags.workers, flags.address)
