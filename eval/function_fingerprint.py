"""Names a Python function by its code and by all that it refers to, so that vectors of another one are not reused."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from xvlm2vec.common.store import content_digest

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))


def function_fingerprint(function: Callable[..., Any]) -> str | None:
    """SHA-256 of a function: code, defaults, enclosed and global values, and the file of its module.

    Functions of its own module are followed; what other modules define is named by their files.

    Returns:
        None if it refers to something that cannot be told apart by its contents, such as a model, or is no plain
        function.
    """
    if not isinstance(function, FunctionType):
        return None
    digest = hashlib.sha256()
    try:
        for part in _Parts(function.__module__).of(function):
            digest.update(b"%d:" % len(part) + part)
    except _OpaqueError:
        return None
    return digest.hexdigest()


class _OpaqueError(Exception):
    """A value whose contents are not known."""


class _Parts:
    """The bytes that tell values apart, one value after another."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.seen: dict[int, Any] = {}  # values are kept, so that no id is given twice

    def of(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, _PLAIN):
            yield f"{type(value).__name__} {value!r}".encode()
        elif id(value) in self.seen:
            yield f"seen {list(self.seen).index(id(value))}".encode()
        else:
            self.seen[id(value)] = value
            yield from self._compound(value)

    def _compound(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, FunctionType) and value.__module__ == self.module:
            yield from self._function(value)
        elif isinstance(value, CodeType):
            yield value.co_code
            yield from self.of((value.co_name, value.co_names, value.co_varnames, value.co_freevars, value.co_consts))
        elif isinstance(value, ModuleType):
            yield from _named(value.__name__, "", str(getattr(value, "__version__", "")))
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            yield f"array {value.dtype} {value.shape}".encode()
            yield value.tobytes()
        elif hasattr(value, "tobytes") and hasattr(value, "mode"):
            yield content_digest(value)  # an image
        elif isinstance(value, tuple | list | set | frozenset | Mapping):
            yield from self._collection(value)
        elif isinstance(getattr(value, "__qualname__", None), str) and value.__module__ in sys.modules:
            if value.__module__ == self.module and _file(self.module) is None:
                raise _OpaqueError
            yield from _named(value.__module__, value.__qualname__)
        else:
            raise _OpaqueError

    def _function(self, function: FunctionType) -> Iterator[bytes]:
        yield from _named(function.__module__, function.__qualname__)
        yield from self.of(function.__code__)
        yield from self.of(function.__defaults__)
        yield from self.of(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            yield from self.of(cell.cell_contents)
        for name in sorted(_names(function.__code__) & function.__globals__.keys()):
            yield from self.of(name)
            yield from self.of(function.__globals__[name])

    def _collection(self, value: Any) -> Iterator[bytes]:
        items = list(value.items()) if isinstance(value, Mapping) else list(value)
        if isinstance(value, set | frozenset):
            items.sort(key=repr)  # their order differs between processes
        yield f"{type(value).__name__} {len(items)}".encode()
        for item in items:
            yield from self.of(item)


def _names(code: CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


def _named(module: str, name: str, version: str = "") -> Iterator[bytes]:
    yield f"{module} {name} {version}".encode()
    path = _file(module)
    yield path.read_bytes() if path else b""


def _file(module: str) -> Path | None:
    """The file of a module, which a notebook or a prompt has not."""
    name = getattr(sys.modules.get(module), "__file__", None)
    return Path(name) if name and Path(name).is_file() else None
