"""What calls of `encode` in several threads share: the mode of the model, its attention, and the tokenizer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_GUARD = threading.Lock()


class CopyableLock:
    """A lock that one thread may take several times. A copy, also in another process, is a new lock, open to all."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> CopyableLock:
        self._lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[CopyableLock], tuple[()]]:
        return CopyableLock, ()


@dataclass(frozen=True)
class LockedTokenizer:
    """A tokenizer that one thread calls at a time.

    The library behind it keeps padding and truncation as a state, and raises where that changes during a call. Whoever
    calls the tokenizer, directly or inside a processor, holds the lock.
    """

    tokenizer: Any
    lock: CopyableLock

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the tokenizer when no other thread does."""
        with self.lock:
            return self.tokenizer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "tokenizer"), name)


@dataclass
class _Evaluated:
    """The modules that were in training mode, and the number of calls that keep the model in evaluation mode."""

    in_training: list[nn.Module]
    calls: int = 0


_EVALUATED: dict[int, _Evaluated] = {}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode until the last of all calls that go on at once is over; then each module has its mode again."""
    with _GUARD:
        state = _EVALUATED.get(id(model))
        if state is None:
            state = _EVALUATED[id(model)] = _Evaluated([module for module in model.modules() if module.training])
            model.eval()
        state.calls += 1
    try:
        yield
    finally:
        with _GUARD:
            state.calls -= 1
            if not state.calls:
                del _EVALUATED[id(model)]
                for module in state.in_training:
                    module.training = True


@dataclass
class _Attention:
    """The attention of a language model that some calls change.

    Attributes:
        before: Its name before the first of them.
        threads: How many calls go on in each thread.
        must_stay: Whether other code has asked for the changed attention meanwhile.
    """

    before: str
    threads: Counter[int] = field(default_factory=Counter)
    must_stay: bool = False


_ATTENTIONS: dict[int, _Attention] = {}


@contextmanager
def restored_attention(config: Any) -> Iterator[None]:
    """Gives the language model of this configuration its attention back when the last of simultaneous calls is over."""
    thread = threading.get_ident()
    with _GUARD:
        state = _ATTENTIONS.setdefault(id(config), _Attention(config._attn_implementation))
        state.threads[thread] += 1
    try:
        yield
    finally:
        with _GUARD:
            state.threads[thread] -= 1
            state.threads += Counter()  # drops what is 0
            if not state.threads:
                del _ATTENTIONS[id(config)]
                if not state.must_stay and config._attn_implementation != state.before:
                    set_attention(config, state.before)


@contextmanager
def attention_to_change(config: Any) -> Iterator[None]:
    """Held by who changes the attention of a language model, to stay unless `restored_attention` is around it."""
    with _GUARD:
        state = _ATTENTIONS.get(id(config))
        if state is not None and threading.get_ident() not in state.threads:
            state.must_stay = True
        yield


def set_attention(config: Any, name: str) -> None:
    """Sets the attention of a language model alone.

    The empty name leaves the parts of a model alone that has its vision tower in the same configuration.
    """
    config._attn_implementation = {"": name}
