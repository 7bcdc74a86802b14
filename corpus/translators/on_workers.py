"""Any translator by several workers, such as those of a Ray cluster, each of which has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from xvlm2vec.common.workers import WorkerError, Workers, first_failing
from xvlm2vec.corpus.rows import ENGLISH

from .engine import Answer, Engine, asks_again

_BLOCKS = 4
"""Least blocks of texts for each worker, so that none is idle for long at the end."""


class OnWorkers:
    """A translator that several workers have.

    Each text has one answer, whatever happens to a worker. The translator of this process only checks languages.

    Args:
        engine: The translator, as this process has it.
        make: Makes the same translator in a worker, which must have this package and what the translator reads.
        workers: The workers.
        count: How many they are.
    """

    def __init__(self, engine: Engine, make: Callable[[], Engine], workers: Workers, count: int) -> None:
        self.workers, self.count = workers, count
        self.engine, self.make = engine, make
        self.batch_size, self.asks_again = engine.batch_size, asks_again(engine)

    def check(self, languages: Sequence[str]) -> None:
        """See `Engine`."""
        self.engine.check(languages)

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """See `Engine`.

        Raises:
            WorkerError: A worker cannot make the translator, or the translator fails there at a text.
        """
        if not texts:
            return
        blocks = max(-(-len(texts) // self.batch_size), min(len(texts), _BLOCKS * self.count))
        size = -(-len(texts) // blocks)
        starts = range(0, len(texts), size)
        items = [list(texts[start : start + size]) for start in starts]
        results = self.workers.map(items, partial(Translating, self.make, language, source))
        for start, answers in zip(starts, results, strict=True):
            for number, translation, problem in answers:
                yield start + number, translation, problem


class Translating:
    """Translates blocks of texts with a translator of its own: what a worker does.

    Args:
        make: Makes the translator.
        language: Code of the language into which they are translated.
        source: Code of their own language.
    """

    def __init__(self, make: Callable[[], Engine], language: str, source: str) -> None:
        self.engine, self.language, self.source = make(), language, source

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        """The answers, in the order of the texts.

        Raises:
            WorkerError: The translator fails; names the text, if it fails at one alone.
        """
        try:
            return self._answers(texts)
        except Exception as error:
            number = first_failing(self._answers, texts)
            where = f"one of {len(texts)} texts, the first {texts[0]!r:.80}" if number is None else repr(texts[number])
            raise WorkerError(f"{where:.200}: {type(error).__name__}: {error}") from error

    def _answers(self, texts: Sequence[str]) -> list[Answer]:
        return sorted(self.engine.translate(texts, self.language, self.source), key=lambda answer: answer[0])
