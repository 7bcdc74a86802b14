"""Adapters for texts in other languages, kept beside a base that they never change: put on, looked up, saved.

Whoever embeds a text says its language; nothing is guessed. Without a language the base speaks, and so it does for the
language that it was taught in. An adapter is saved as PEFT saves one, and what PEFT has no word for under `xvlm2vec`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .activated import LoraShape, adapter_weights, put_adapter
from .adapters import ADAPTERS_INDEX, AdapterBase
from .base_digest import base_digest, same_base
from .loading import CheckpointError
from .lora_settings import OWN_SETTINGS
from .lora_weights import Adapter
from .model_parts import path_of_embeddings
from .rows import TextImageRow

BASE_LANGUAGE = "en"
PEFT_TYPE = "ACTIVATED_LORA"
"""A type that PEFT does not know, so that it refuses what it would put on all tokens."""
ADAPTER_FILE = "adapter_model.safetensors"
DEFAULT = "default"
"""Name of an adapter for all languages."""


class UnknownLanguageError(ValueError):
    """A model has no adapter for a language.

    Args:
        language: What was asked for.
        known: The languages that there are.
    """

    def __init__(self, language: str, known: Iterable[str]) -> None:
        listed = ", ".join(known)
        super().__init__(
            f"The model was never taught {language!r}. "
            + (f"It has adapters for {listed}" if listed else "It has no adapters")
            + f"; leave language out for the base, which speaks {BASE_LANGUAGE!r}."
        )


@dataclass
class LanguageAdapter:
    """An adapter that lies on a model.

    Attributes:
        config: What its `adapter_config.json` holds.
        languages: The languages that it was taught.
    """

    config: dict[str, Any]
    languages: list[str]

    def content(self) -> dict[str, Any]:
        """What is written of it."""
        own = {**self.config[OWN_SETTINGS], "languages": sorted(self.languages)}
        return {**self.config, OWN_SETTINGS: own}


def add_language_adapter(model: Any, name: str, config: Mapping[str, Any], shapes: Mapping[str, LoraShape]) -> None:
    """Puts a fresh adapter on an `XVLM2VecModel`, whose own weights are frozen; other adapters stay as they are.

    Args:
        model: The model.
        name: Of the adapter.
        config: What its `adapter_config.json` is to hold, without what this package adds.
        shapes: For the path of each linear layer what it gets.
    """
    for weight in _base_weights(model):
        weight.requires_grad_(False)
    embeddings = path_of_embeddings(model) if config.get("modules_to_save") else None
    digest = (
        next(iter(model.language_adapters.values())).config[OWN_SETTINGS]["base"] if model.language_adapters else None
    )
    own = {"activated": True, "base_language": BASE_LANGUAGE, "base": base_digest(model) if digest is None else digest}
    put_adapter(model, name, shapes, embeddings)
    model.language_adapters[name] = LanguageAdapter({**config, OWN_SETTINGS: own}, [])


@torch.no_grad()
def load_language_adapter(model: Any, adapter: Adapter, name: str = DEFAULT) -> None:
    """Puts a saved adapter on the base that it was trained on, with every key accounted for.

    Args:
        model: The base, an `XVLM2VecModel`, perhaps with other adapters.
        adapter: What was read.
        name: Of the adapter.

    Raises:
        CheckpointError: The adapter is to be merged, was trained on other weights, does not fit, or was taught a
            language for which the model has an adapter already.
    """
    own = adapter.config.get(OWN_SETTINGS) or {}
    if not own.get("activated"):
        raise CheckpointError(
            f"The adapter {adapter.source!r} acts on all tokens: it is merged into its base by "
            "XVLM2VecModel.from_pretrained and cannot lie beside it. Train one with --adapter activated."
        )
    twice = sorted(set(own["languages"]) & set(languages_of(model)))
    if twice or name in model.language_adapters:
        raise CheckpointError(
            f"The adapter {adapter.source!r} was taught {', '.join(twice or [name])!r}, for which this model has an "
            "adapter already: which of them is to speak would be a guess. Take one of them away."
        )
    if not same_base(model, own.get("base", {})):
        raise CheckpointError(
            f"The adapter {adapter.source!r} was trained on other weights than those of {adapter.base!r} (their "
            "digests differ): its vectors would be wrong. Load it on the base that it was trained on, at that revision."
        )
    placed, whole = adapter.place(model)
    starts = {lora.start for lora in placed.values()} - {"", "gaussian", "eva", "orthogonal", "mica"}
    embeddings = path_of_embeddings(model)
    strangers = [path for path in whole if path != f"{embeddings}.weight"]
    if starts or strangers:
        raise CheckpointError(
            f"The adapter {adapter.source!r} changes its base ({', '.join([*strangers, *starts])}), and so would move "
            "all vectors."
        )
    shapes = {path: LoraShape(len(lora.down), lora.scale, lora.magnitude is not None) for path, lora in placed.items()}
    learn = [(weight, weight.requires_grad) for weight in _base_weights(model)]
    add_language_adapter(model, name, {**adapter.config, OWN_SETTINGS: {}}, shapes)
    for path, lora in placed.items():
        change: Any = model.get_submodule(path).activated[name]
        change.lora_A.copy_(lora.down)
        change.lora_B.copy_(lora.up)
        if lora.magnitude is not None:
            change.lora_magnitude_vector.copy_(lora.magnitude)
    if whole:
        model.get_submodule(embeddings).modules_to_save[name].weight.copy_(whole[f"{embeddings}.weight"])
    for weight in adapter_weights(model, name).values():
        weight.requires_grad_(False)  # it has learned; another that is put on later may still have to
    # Frozen weights would move the base: in bfloat16, torch passes some batches through them in another order of sums.
    for weight, may_learn in learn:
        weight.requires_grad_(may_learn)
    place = {"base_model_name_or_path": adapter.base, "revision": adapter.base_revision}  # as it was found
    model.language_adapters[name] = LanguageAdapter({**adapter.config, **place}, list(own["languages"]))
    model.config.matryoshka_dims = own.get("matryoshka_dims") or model.config.matryoshka_dims


def _base_weights(model: Any) -> list[torch.nn.Parameter]:
    """A model's weights without those of its adapters."""
    beside = {id(weight) for name in model.language_adapters for weight in adapter_weights(model, name).values()}
    return [weight for weight in model.parameters() if id(weight) not in beside]


def languages_of(model: Any) -> list[str]:
    """The languages that a model has adapters for."""
    adapters: dict[str, LanguageAdapter] = getattr(model, "language_adapters", {})  # not of releases before these
    return sorted({language for adapter in adapters.values() for language in adapter.languages})


def adapter_for(model: Any, language: str | None) -> str | None:
    """The name of the adapter that speaks a language; `None` where the base does.

    Raises:
        UnknownLanguageError: None does. Regions and scripts count: `pt-BR` is not `pt`.
    """
    if language is None:
        return None
    for name, adapter in model.language_adapters.items():
        if _plain(language) in map(_plain, adapter.languages):
            return str(name)
    if _plain(language) == BASE_LANGUAGE and model.language_adapters:
        return None
    raise UnknownLanguageError(language, languages_of(model))


def is_in_language(prompt: str, language: str) -> bool:
    """Whether the instruction of a name is in a language, as `retrieval-de` is in German."""
    return _plain(prompt).endswith(f"-{_plain(language)}")


def _plain(code: str) -> str:
    """A code in the spelling in which two are compared."""
    return code.strip().replace("_", "-").casefold()


def save_language_adapters(model: Any, folder: str | os.PathLike[str], state: Mapping[str, Any] | None = None) -> None:
    """Writes a model's adapters as PEFT writes them: one into the folder, several into folders of their names below.

    Args:
        model: The `XVLM2VecModel`.
        folder: Where they go.
        state: The weights of the model by their names, where they are not in the model itself, as when it is sharded.
    """
    if list(model.language_adapters) != [DEFAULT]:
        write_index(folder, sorted(model.language_adapters))
    for name in model.language_adapters:
        write_adapter(model, name, adapter_folder(model, folder, name), state=state)


def write_index(folder: str | os.PathLike[str], names: Sequence[str], **more: Any) -> None:
    """Writes which adapters lie in folders of their names below a folder.

    Args:
        folder: The folder.
        names: Of the adapters.
        **more: What else is to be known: `base=HERE` where their base lies in the folder, too.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    index = json.dumps({"adapters": list(names), **more}, indent=2, ensure_ascii=False)
    Path(folder, ADAPTERS_INDEX).write_text(index + "\n", encoding="utf-8")


def write_adapter(
    model: Any, name: str, place: Path, base: AdapterBase | None = None, state: Mapping[str, Any] | None = None
) -> None:
    """Writes one of a model's adapters as PEFT writes one.

    Args:
        model: The `XVLM2VecModel`.
        name: Of the adapter.
        place: The folder.
        base: Where its base is, if not where the adapter found it.
        state: As for `save_language_adapters`.
    """
    place.mkdir(parents=True, exist_ok=True)
    weights = adapter_weights(model, name, state)
    tensors = {key: weight.detach().contiguous().cpu() for key, weight in weights.items()}
    save_file(tensors, place / ADAPTER_FILE, metadata={"format": "pt"})
    content = model.language_adapters[name].content()
    content[OWN_SETTINGS]["matryoshka_dims"] = model.config.matryoshka_dims
    if base is not None:
        content |= {"base_model_name_or_path": base.source, "revision": base.revision}
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
    (place / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


@torch.no_grad()
def restore_language_adapters(model: Any, folder: str | os.PathLike[str]) -> None:
    """Gives the adapters of a model the weights and languages that they had when they were saved.

    Args:
        model: The `XVLM2VecModel`, with adapters of the same make.
        folder: Where `save_language_adapters` wrote them.

    Raises:
        CheckpointError: The folder holds other adapters.
    """
    for name, adapter in model.language_adapters.items():
        place = adapter_folder(model, folder, name)
        stored, mine = load_file(place / ADAPTER_FILE), adapter_weights(model, name)
        if stored.keys() != mine.keys():
            strays = sorted(stored.keys() ^ mine.keys())
            raise CheckpointError(f"{place} holds another adapter than this model's: {', '.join(strays[:4])}.")
        for key, weight in mine.items():
            weight.copy_(stored[key])
        config = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
        adapter.languages = sorted({*adapter.languages, *config[OWN_SETTINGS]["languages"]})


def adapter_folder(model: Any, folder: str | os.PathLike[str], name: str) -> Path:
    """Where one of a model's adapters lies: one alone in the folder, several in folders of their names below."""
    return Path(folder) if list(model.language_adapters) == [DEFAULT] else Path(folder) / name


def adapters_for(model: Any, languages: str | Sequence[str | None] | None, rows: int) -> list[str | None]:
    """The adapter of each of some rows.

    Args:
        model: The model.
        languages: One for all rows, or one (or `None`) for each.
        rows: Number of rows.

    Raises:
        UnknownLanguageError: There is no adapter for a language.
        ValueError: There are more or fewer languages than rows.
    """
    if languages is None or isinstance(languages, str):
        return [adapter_for(model, languages)] * rows
    if len(languages) != rows:
        raise ValueError(f"There are {len(languages)} languages for {rows} rows: pass one, or one for each row.")
    result = {language: adapter_for(model, language) for language in dict.fromkeys(languages)}
    return [result[language] for language in languages]


def own_instruction(
    rows: list[TextImageRow],
    languages: str | Sequence[str | None] | None,
    instruction: str | None,
    in_language: bool | None,
    prompts: Mapping[str, str],
) -> list[TextImageRow]:
    """Rows that know whether their instruction is in the language of their text.

    Args:
        rows: The rows, in this order.
        languages: One for all rows, or one (or `None`) for each.
        instruction: As the caller named it.
        in_language: What the caller said.
        prompts: Instructions by name.

    Raises:
        ValueError: The caller says that all share it, but its name is that of one in a row's language.
    """
    per_row = [languages] * len(rows) if languages is None or isinstance(languages, str) else languages
    named = instruction in prompts
    ends = [named and language is not None and is_in_language(str(instruction), language) for language in per_row]
    if in_language is False and any(ends):
        language = per_row[ends.index(True)]
        raise ValueError(
            f"The instruction {instruction!r} is in the language {language!r}, and so it belongs to the adapter: leave "
            "instruction_in_language out, or pass an instruction that English rows have, too."
        )
    marks = ends if in_language is None else [in_language and language is not None for language in per_row]
    return [replace(row, own_instruction=True) if mark else row for row, mark in zip(rows, marks, strict=True)]
