"""The embedder that is taken over: its folder, what it is made of, and a digest of its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xvlm2vec.modeling.adopted import digest_of, files_of
from xvlm2vec.modeling.hub_ids import is_path

Form = Literal["sentence-transformers", "plain"]


class AdoptionError(ValueError):
    """An embedder cannot be taken over as it is, or the proof of it failed."""


@dataclass(frozen=True)
class Source:
    """An embedder as its author saved it.

    Args:
        name: What the user calls it, a folder or Hub id.
        folder: Its files on this machine.
        revision: The commit of a Hub id.
        form: Whether sentence-transformers saved it, or it is a plain model of transformers.
        modules: The entries of `modules.json`; empty for a plain one.
    """

    name: str
    folder: Path
    revision: str | None
    form: Form
    modules: tuple[dict[str, Any], ...] = ()

    @property
    def transformer(self) -> Path:
        """The folder that holds configuration and weights of the transformer."""
        return self.folder / (self.modules[0].get("path") or "") if self.modules else self.folder

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the transformer."""
        return read_object(self.transformer / "config.json")

    @property
    def model_type(self) -> str:
        """The transformer's kind."""
        return str(self.config.get("model_type"))

    def digest(self) -> str:
        """SHA-256 of all files that make the vectors."""
        return digest_of(self.folder)


def open_source(name: str, revision: str | None = None) -> Source:
    """Finds an embedder, and downloads it where it is a Hub id.

    Raises:
        AdoptionError: It has no configuration, or its `modules.json` is damaged.
        FileNotFoundError: There is no such folder.
    """
    folder = files_of(name, revision)
    commit = None if is_path(name) else folder.name
    modules: Any = ()
    if (folder / "modules.json").is_file():
        try:
            modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
            modules = sorted(modules, key=lambda module: module["idx"])
        except (ValueError, KeyError, TypeError) as error:
            raise AdoptionError(f"{name}: modules.json is damaged ({error}).") from error
    if any(str(module.get("type")).endswith(".Router") for module in modules):
        raise AdoptionError(
            f"{name} has a Router, which sends rows to several models: a recipe describes one. `encode` and `evaluate` "
            "run it by its own SentenceTransformer; to teach a route, save it as a SentenceTransformer of its own and "
            "adopt that."
        )
    source = Source(name, folder, commit, "sentence-transformers" if modules else "plain", tuple(modules))
    if not (source.transformer / "config.json").is_file():
        raise AdoptionError(
            f"{name} has no {source.transformer.relative_to(folder) / 'config.json'}: no model is here."
        )
    return source


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file.

    Raises:
        AdoptionError: The file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdoptionError(f"{path.name} is no JSON ({error}).") from error
    if not isinstance(content, dict):
        raise AdoptionError(f"{path.name} holds a {type(content).__name__} where an object is meant.")
    return content
