"""The texts that are published beside a model, from the Jinja templates in `hub/templates/` and `model_card.md`."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import jinja2

_PLACES = {"model_card.md": ("xvlm2vec.hub.front",)}
"""The model card lies at the top of the repository, which is this package when it is installed."""


def render_template(name: str, /, **values: object) -> str:
    """Fills a template; a variable that it names and that is not given is an error, not an empty space.

    Args:
        name: Name of the file, such as `"native.md"`.
        **values: Its variables.

    Raises:
        jinja2.UndefinedError: The template names a variable that is not given.
        jinja2.TemplateNotFound: There is no such template.
    """
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    return environment


def _read(name: str) -> str | None:
    package, *folder = _PLACES.get(name, ("xvlm2vec.hub", "templates"))
    path = resources.files(package).joinpath(*folder, name)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _cell(value: Any) -> str:
    """A value that does not break out of its table cell."""
    return str(value).replace("|", "\\|").replace("\n", " ")
