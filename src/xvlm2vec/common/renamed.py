"""Names that were changed: the old one is taken for one more release, with a `DeprecationWarning`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def renamed_keywords(**names: str) -> Callable[[F], F]:
    """Decorates a function or a class that takes keywords under their old names, too.

    Args:
        **names: The new name of each old one, such as `licence="license"`.
    """

    def decorate(target: F) -> F:
        call = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]

        @functools.wraps(call)
        def take(*arguments: Any, **values: Any) -> Any:
            for old in names.keys() & values.keys():
                warn_renamed(old, names[old], 3)
                values[names[old]] = values.pop(old)
            return call(*arguments, **values)

        if not isinstance(target, type):
            return take  # type: ignore[return-value]
        target.__init__ = take  # type: ignore[misc]
        return target

    return decorate


def warn_renamed(old: str, new: str, stacklevel: int = 2) -> None:
    """Says that a name was changed, as seen from a caller `stacklevel` frames above."""
    warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=stacklevel + 1)
