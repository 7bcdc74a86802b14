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
        for part in _parts(function, function.__module__, {}):
            digest.update(b"%d:" % len(part) + part)
    except _OpaqueError:
        return None
    return digest.hexdigest()


class _OpaqueError(Exception):
    """A value whose contents are not known."""


def _parts(value: Any, module: str, seen: dict[int, Any]) -> Iterator[bytes]:
    """The bytes that tell a value apart; `seen` keeps the values that it holds, so that no id is given twice."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}".encode()
    elif id(value) in seen:
        yield f"seen {list(seen).index(id(value))}".encode()
    else:
        seen[id(value)] = value
        digests, inner = _contents(value, module)
        yield from digests
        for part in inner:
            yield from _parts(part, module, seen)


def _contents(value: Any, module: str) -> tuple[list[bytes], list[Any]]:
    """What tells a compound value apart: bytes, and the values inside it."""
    if isinstance(value, FunctionType) and value.__module__ == module:
        return _named(module, value.__qualname__), _references(value)
    if isinstance(value, CodeType):
        names = (value.co_name, value.co_names, value.co_varnames, value.co_freevars, value.co_consts)
        return [value.co_code], [names]
    if isinstance(value, ModuleType):
        return _named(value.__name__, "", str(getattr(value, "__version__", ""))), []
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [f"array {value.dtype} {value.shape}".encode(), value.tobytes()], []
    if hasattr(value, "tobytes") and hasattr(value, "mode"):
        return [content_digest(value)], []  # an image
    if isinstance(value, tuple | list | set | frozenset | Mapping):
        items = list(value.items()) if isinstance(value, Mapping) else list(value)
        if isinstance(value, set | frozenset):
            items.sort(key=repr)  # their order differs between processes
        return [f"{type(value).__name__} {len(items)}".encode()], items
    if not isinstance(getattr(value, "__qualname__", None), str) or value.__module__ not in sys.modules:
        raise _OpaqueError
    if value.__module__ == module and _file(module) is None:
        raise _OpaqueError
    return _named(value.__module__, value.__qualname__), []


def _references(function: FunctionType) -> list[Any]:
    """A function's code, and the values that it refers to: defaults, enclosed and global ones."""
    values: list[Any] = [function.__code__, function.__defaults__, function.__kwdefaults__]
    values += [cell.cell_contents for cell in function.__closure__ or ()]
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        values += [name, function.__globals__[name]]
    return values


def _names(code: CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


def _named(module: str, name: str, version: str = "") -> list[bytes]:
    path = _file(module)
    return [f"{module} {name} {version}".encode(), path.read_bytes() if path else b""]


def _file(module: str) -> Path | None:
    """The file of a module, which a notebook or a prompt has not."""
    name = getattr(sys.modules.get(module), "__file__", None)
    return Path(name) if name and Path(name).is_file() else None
