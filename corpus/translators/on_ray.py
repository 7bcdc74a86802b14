"""Any translator on a Ray cluster: each worker has one, and texts go to whoever is free."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from xvlm2vec.corpus.rows import ENGLISH

from .engine import Answer, Engine, asks_again

_BLOCKS = 4
"""Least blocks of texts for each worker, so that none is idle for long at the end."""
_FAILED = -1
"""Number of the answer that says that a worker cannot go on."""
MISSING = "this needs Ray: pip install 'xvlm2vec[ray]'"


class OnRay:
    """A translator that works on a Ray cluster, through Ray Data.

    What a worker was doing when it died is done again by another one, and each text has one answer. The translator of
    this process only checks languages.

    Args:
        engine: The translator, as this process has it.
        make: Makes the same translator in a worker, which must have this package and what the translator reads.
        workers: Number of workers.
        address: Of the cluster, as `ray.init` takes it; None starts one on this machine.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: The cluster does not start in time.
    """

    def __init__(self, engine: Engine, make: Callable[[], Engine], workers: int, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError(MISSING) from error
        import ray.data

        if not ray.is_initialized():
            try:
                ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
            except Exception as error:  # Ray raises the plainest there is where a cluster does not start in time
                raise RuntimeError(f"the Ray cluster cannot be used: {error}") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # which sets up its own logs when it is imported
        self.engine, self.make, self.workers = engine, make, workers
        self.batch_size, self.asks_again = engine.batch_size, asks_again(engine)

    def check(self, languages: Sequence[str]) -> None:
        """See `Engine`."""
        self.engine.check(languages)

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """See `Engine`.

        Raises:
            RuntimeError: A worker cannot make the translator, or the translator fails there as a whole.
        """
        import ray.data

        if not texts:
            return
        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = max(-(-len(texts) // self.batch_size), min(len(texts), _BLOCKS * self.workers))
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / self.workers)  # a worker sees no others
        rows = ray.data.from_items(
            [{"number": number, "text": text} for number, text in enumerate(texts)], override_num_blocks=blocks
        )
        answers = rows.map_batches(
            _Worker, fn_constructor_args=(self.make, language, source), batch_size=None, batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self.workers), num_gpus=gpus,
        )  # fmt: skip
        for row in answers.iter_rows():
            if row["number"] == _FAILED:
                raise RuntimeError(f"a worker of the Ray cluster failed: {row['problem']}")
            yield row["number"], row["translation"], row["problem"]


class _Worker:
    """Translates blocks of texts with a translator of its own, which is made for the first block."""

    def __init__(self, make: Callable[[], Engine], language: str, source: str) -> None:
        self.make, self.language, self.source = make, language, source

    @cached_property
    def engine(self) -> Engine:
        """The translator."""
        return self.make()

    def __call__(self, block: Any) -> Any:
        import pyarrow as pa

        try:
            answers = self._answers(block["number"].to_pylist(), block["text"].to_pylist())
        except Exception as error:  # Ray would wrap it in pages of its own, or try for ever
            answers = [(_FAILED, None, f"{type(error).__name__}: {error}")]
        columns = list(zip(*answers, strict=True))
        types = {"number": pa.int64(), "translation": pa.string(), "problem": pa.string()}
        return pa.table(
            {name: pa.array(column, kind) for column, (name, kind) in zip(columns, types.items(), strict=True)}
        )

    def _answers(self, numbers: list[int], texts: list[str]) -> list[Answer]:
        found = sorted(self.engine.translate(texts, self.language, self.source), key=lambda answer: answer[0])
        return [(numbers[place], translation, problem) for place, translation, problem in found]
