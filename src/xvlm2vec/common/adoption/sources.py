"""The embedder that is taken over: its folder, what it is made of, and a digest of its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xvlm2vec.modeling.adopted import digest_of, files_of
from xvlm2vec.modeling.hub_ids import is_path

ORIGIN_FILE = "adopted.json"
"""In the folder of a training that gave an embedder back in its own form: `XVLM2VecConfig.adopted` of that embedder."""
ROUTER = ".Router"
STOCK = "sentence_transformers."
Form = Literal["sentence-transformers", "plain"]


class AdoptionError(ValueError):
    """An embedder cannot be taken over as it is, or the proof of it failed."""


class BeyondRecipeError(AdoptionError):
    """An embedder does what no recipe can say; run by its own code it may be taken over nevertheless."""


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
    def begins_with_transformer(self) -> bool:
        """Whether a model of transformers comes first, as it does in all that a recipe describes."""
        return not self.modules or str(self.modules[0].get("type")).endswith(".Transformer")

    @property
    def module_types(self) -> tuple[str, ...]:
        """The classes of all modules, those behind a `Router` included."""
        types = [str(module.get("type")) for module in self.modules]
        for module in self.modules:
            folder = self.folder / (module.get("path") or "")
            if str(module.get("type")).endswith(ROUTER):
                routes = read_object(folder / "router_config.json") or read_object(folder / "config.json")
                types += [str(route) for route in (routes.get("types") or {}).values()]
        return tuple(types)

    @property
    def foreign_types(self) -> tuple[str, ...]:
        """The classes among them that are not of sentence-transformers."""
        return tuple(path for path in self.module_types if not path.startswith(STOCK))

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the transformer."""
        return read_object(self.transformer / "config.json")

    @property
    def model_type(self) -> str:
        """The transformer's kind."""
        return str(self.config.get("model_type"))

    def origin(self) -> dict[str, Any]:
        """What a copy remembers of where it came from; what a training gave back names the folder before it."""
        taught = read_object(self.folder / ORIGIN_FILE)
        if taught:
            return taught
        return {
            "source": str(self.folder) if self.revision is None else self.name,
            "revision": self.revision,
            "digest": self.digest(),
            "transformer": self.transformer.relative_to(self.folder).as_posix(),
        }

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
    source = Source(name, folder, commit, "sentence-transformers" if modules else "plain", tuple(modules))
    if source.begins_with_transformer and not (source.transformer / "config.json").is_file():
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
