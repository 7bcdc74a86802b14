"""The templates beside this file, and the filters that they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(**filters: Callable[..., object]) -> Environment:
    """Reads the templates; everything that is not marked safe is escaped.

    Args:
        **filters: Further filters by name.
    """
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {"percent": percent, **filters}
    return env


def percent(fraction: float) -> str:
    """A fraction as percent with one decimal, without the sign."""
    return f"{100 * fraction:.1f}"


def signed(fraction: float) -> str:
    """A change in points with its sign and one decimal."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "\u2212")
