"""Recipes in YAML: those that are shipped, and a user's own."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from xvlm2vec.modeling.pooling import check_pooling
from xvlm2vec.modeling.recipe import Recipe

from .extract import EmbedderRecipe
from .sources import AdoptionError

FOLDER = "recipes"
_KEYS = tuple(field.name for field in fields(EmbedderRecipe) if field.name != "notes")


def shipped_recipes() -> tuple[str, ...]:
    """The names of the recipes that come with this package."""
    folder = resources.files(__package__) / FOLDER
    return tuple(sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml")))


def read_recipe(name: str) -> EmbedderRecipe:
    """A recipe from a file, or a shipped one by its name.

    Args:
        name: Path of a YAML file, or one of `shipped_recipes`.

    Raises:
        AdoptionError: The file says something that a recipe cannot say.
        FileNotFoundError: There is neither such a file nor such a recipe.
    """
    try:
        values: Any = yaml.safe_load(_text(name))
    except yaml.YAMLError as error:
        raise AdoptionError(f"{name} is no YAML: {error}") from error
    if not isinstance(values, dict) or "writing" not in values:
        raise AdoptionError(f"{name} describes no embedder: it needs `writing`, with the forms of its rows.")
    rests_on = values.pop("rests_on", None)
    unknown = sorted(values.keys() - set(_KEYS))
    if unknown:
        raise AdoptionError(f"{name} has {', '.join(map(repr, unknown))}; a recipe may have {', '.join(_KEYS)}.")
    try:
        writing = Recipe.from_dict(values.pop("writing"))
        check_pooling(str(values.get("pooling", "lasttoken")))
    except (ValueError, TypeError, AttributeError) as error:
        raise AdoptionError(f"{name}: {error}") from error
    for key in ("heads", "matryoshka_dims"):
        values[key] = tuple(values.get(key) or ())
    notes = (f"the recipe {name} rests on: {' '.join(str(rests_on).split())}",) if rests_on else ()
    return EmbedderRecipe(writing=writing, notes=notes, **values)


def write_recipe(recipe: EmbedderRecipe, path: Path) -> None:
    """Writes a recipe as YAML that `read_recipe` reads."""
    values = {key: getattr(recipe, key) for key in _KEYS}
    values["writing"] = recipe.writing.to_dict()
    plain = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value not in (None, (), {})
    }
    path.write_text(yaml.safe_dump(plain, allow_unicode=True, sort_keys=False, width=1000), encoding="utf-8")


def _text(name: str) -> str:
    if Path(name).is_file():
        return Path(name).read_text(encoding="utf-8")
    if name in shipped_recipes():
        return (resources.files(__package__) / FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    raise FileNotFoundError(f"there is no recipe {name}: neither a file nor one of {', '.join(shipped_recipes())}.")
