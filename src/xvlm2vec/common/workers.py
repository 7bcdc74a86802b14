"""One function over many items: in this process, in several of this machine, or on a Ray cluster.

The results come in the order of the items, and are the same ones wherever they were made. Workers are given items that
say where to read (a place in a file, numbers of rows), so that files must have the same path for all of them.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

Work = Callable[[Any], Any]
"""Takes an item and gives its result."""
Make = Callable[[], Work]
"""Makes the function in a worker, with what it needs: rules, a model, a list of texts."""

MISSING = "this needs Ray: pip install 'xvlm2vec[ray]'"
RAY_RUNS = "processes forked from one that uses a Ray cluster may crash; take Cluster, or another process for this"
_ITEM, _RESULT = "item", "result"
_HELD = 16
"""Results that a process holds before they go to the disk."""
_MOST_BLOCKS = 4_096


class WorkerError(RuntimeError):
    """A worker failed at an item; says at which."""


class Workers(Protocol):
    """Whoever does the work."""

    def map(self, items: Sequence[Any], make: Make) -> Iterator[Any]:
        """Gives the result of each item, in their order.

        Args:
            items: The items; few values each, as all are held in memory.
            make: Makes the function.

        Raises:
            WorkerError: A worker failed.
        """


class Here:
    """This process alone."""

    def map(self, items: Sequence[Any], make: Make) -> Iterator[Any]:
        """See `Workers`; errors are those of the function."""
        return map(make(), items) if items else iter(())


class Processes:
    """Several processes of this machine, by `datasets.Dataset.map`: each takes a stretch of the items.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def map(self, items: Sequence[Any], make: Make) -> Iterator[Any]:
        """See `Workers`; the results wait in a temporary file until all are there.

        Raises:
            RuntimeError: This process uses a Ray cluster, whose threads a forked process does not have.
        """
        from datasets import Dataset, Features, Value

        if not items:
            return
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            raise RuntimeError(RAY_RUNS)
        table = Dataset.from_dict({_ITEM: [pickle.dumps(item) for item in items]})
        with tempfile.TemporaryDirectory(prefix="xvlm2vec-workers-") as folder:
            with _shown_bars():
                results = table.map(
                    _Row(make), num_proc=min(self.count, len(items)), remove_columns=[_ITEM],
                    features=Features({_RESULT: Value("binary")}), cache_file_name=str(Path(folder) / "results.arrow"),
                    writer_batch_size=_HELD, new_fingerprint="results", desc="Workers",
                )  # fmt: skip
            for row in results:
                yield pickle.loads(row[_RESULT])
            del results  # Windows does not remove a file that is mapped


@contextmanager
def _shown_bars() -> Iterator[None]:
    """Shows the bars of `datasets`, which the commands hide: until all results are there nothing else moves."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.enable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            datasets.disable_progress_bars()


class Cluster:
    """Workers of a Ray cluster, by Ray Data. What one was doing when it died is done again by another.

    Args:
        count: How many.
        address: Of the cluster, as `ray.init` takes it; None starts one on this machine.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: The cluster does not start in time.
    """

    def __init__(self, count: int, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError(MISSING) from error
        import ray.data

        if not ray.is_initialized():
            try:
                # Without an address Ray would join any cluster of this machine, also one that is gone.
                ray.init(address=address or "local", logging_level=logging.WARNING, log_to_driver=False)
            except Exception as error:  # Ray raises the plainest there is where a cluster does not start in time
                raise RuntimeError(f"the Ray cluster cannot be used: {error}") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # which sets up its own logs when it is imported
        self.count = count

    def map(self, items: Sequence[Any], make: Make) -> Iterator[Any]:
        """See `Workers`."""
        import ray.data

        if not items:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.execution_options.preserve_order = False, True
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / self.count)  # a worker sees no others
        rows = ray.data.from_items(
            [{_ITEM: pickle.dumps(item)} for item in items], override_num_blocks=min(len(items), _MOST_BLOCKS)
        )
        results = rows.map_batches(
            _Block, fn_constructor_args=(make, os.getcwd()), batch_size=None, batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self.count), num_gpus=gpus,
        )  # fmt: skip
        for row in results.iter_rows():
            result, problem = pickle.loads(row[_RESULT])
            if problem:
                raise WorkerError(problem)
            yield result


class _Row:
    """The function as `Dataset.map` calls it."""

    def __init__(self, make: Make) -> None:
        self.make = make

    @cached_property
    def work(self) -> Work:
        """The function, made for the first item: then it is the worker that makes it."""
        return self.make()

    def result(self, item: bytes) -> tuple[Any, str]:
        """The result of an item, or what is wrong."""
        try:
            return self.work(pickle.loads(item)), ""
        except Exception as error:
            kind = "" if isinstance(error, WorkerError) else f"{type(error).__name__}: "  # it names the row already
            return None, f"a worker failed: {kind}{error}"

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        result, problem = self.result(row[_ITEM])
        if problem:
            raise WorkerError(problem)
        return {_RESULT: pickle.dumps(result)}


class _Block(_Row):
    """The function as Ray Data calls it: an error is a result, as Ray would wrap it in pages, or try for ever.

    Args:
        make: Makes the function.
        folder: The command's working folder, from which paths lead; a worker of a cluster starts in another one.
    """

    def __init__(self, make: Make, folder: str) -> None:
        super().__init__(make)
        self.folder = folder

    @cached_property
    def work(self) -> Work:
        """The function, made in the command's working folder."""
        os.chdir(self.folder)
        return self.make()

    def __call__(self, block: Any) -> Any:
        import pyarrow as pa

        results = [pickle.dumps(self.result(item)) for item in block[_ITEM].to_pylist()]
        return pa.table({_RESULT: pa.array(results, pa.binary())})


def first_failing(work: Work, items: Sequence[Any]) -> int | None:
    """Number of the first item at which a function fails when it is given that one alone, for what is told of it."""
    for number, item in enumerate(items):
        try:
            work([item])
        except Exception:
            return number
    return None
