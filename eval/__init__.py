"""Evaluation: benchmarks as data, metrics, one runner for every model, reports.

Public names are loaded on first use: `mteb_tasks(...)` are our benchmarks as tasks of mteb, `mteb_model(...)` is any of
our models as mteb takes it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .mteb.models import mteb_model
    from .mteb.tasks import mteb_tasks

_HOMES = {"mteb_model": "mteb.models", "mteb_tasks": "mteb.tasks"}

__all__ = ["mteb_model", "mteb_tasks"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
