"""Adapters for single languages that lie side by side in a folder: some are added, some go, and no other is touched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.files import write_json
from xvlm2vec.common.languages import comparable_code
from xvlm2vec.modeling.adapters import ADAPTER_CONFIG, ADAPTERS_INDEX, AdapterBase
from xvlm2vec.modeling.lora_settings import OWN_SETTINGS


class AdapterFolderError(ValueError):
    """Adapters cannot be added to a folder, or taken out of it; nothing was changed."""


def languages_in(folder: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The languages of each adapter in a folder, by the adapter's name; empty where it holds no several ones.

    Raises:
        AdapterFolderError: An adapter that the folder names is not there.
    """
    return {name: _config(Path(folder), name)[OWN_SETTINGS]["languages"] for name in _names(Path(folder))}


def check_new(folder: str | os.PathLike[str], languages: Sequence[str]) -> None:
    """Raises where a folder has an adapter for one of these languages.

    Raises:
        AdapterFolderError: It has.
    """
    known = {comparable_code(code): code for codes in languages_in(folder).values() for code in codes}
    twice = [known[comparable_code(language)] for language in languages if comparable_code(language) in known]
    if twice:
        raise AdapterFolderError(
            f"{folder} has an adapter for {', '.join(twice)} already, and which of two is to speak would be a guess: "
            f'take it out (trainer.adapter_folders.remove_languages("{folder}", "{twice[0]}")), or pass another '
            "--output."
        )


def add_languages(folder: str | os.PathLike[str], source: str | os.PathLike[str]) -> list[str]:
    """Puts the adapters of a folder beside those of another, whose files stay as they are.

    Args:
        folder: Where they go.
        source: Where they lie; they are copied.

    Returns:
        The languages that were added.

    Raises:
        AdapterFolderError: A language is there already, or the adapters were trained on other weights.
    """
    target, added = Path(folder), languages_in(source)
    names = _names(target)
    check_new(target, [code for codes in added.values() for code in codes])
    settled = _config(target, names[0]) if names else None
    for name in added:
        digests = {_digest(config) for config in (settled or {}, _config(Path(source), name))} - {None}
        if len(digests) > 1:
            raise AdapterFolderError(
                f"The adapter {name!r} in {source} was trained on other weights than those in {folder} (their digests "
                "differ): train it on the same base."
            )
    for name in added:
        _copy(Path(source) / name, target / name, settled)
    write_json(target / ADAPTERS_INDEX, {**_index(target), "adapters": sorted({*names, *added})})
    return sorted(code for codes in added.values() for code in codes)


def remove_languages(folder: str | os.PathLike[str], *languages: str) -> list[str]:
    """Takes the adapters of languages out of a folder; files of other languages stay as they are.

    Args:
        folder: Where the adapters lie.
        *languages: What they speak.

    Returns:
        The languages that are left.

    Raises:
        AdapterFolderError: None speaks a language, or one of them speaks others, too.
    """
    target, known = Path(folder), languages_in(folder)
    going = []
    for language in languages:
        code = comparable_code(language)
        name = next((name for name, codes in known.items() if code in map(comparable_code, codes)), None)
        if name is None or len(known[name]) > 1:
            spoken = ", ".join(code for codes in known.values() for code in codes) or "none"
            raise AdapterFolderError(f"{folder} has no adapter for {language!r} alone; it has them for {spoken}.")
        going.append(name)
    # The index first: a reader never looks for what is gone.
    left = sorted(known.keys() - set(going))
    write_json(target / ADAPTERS_INDEX, {**_index(target), "adapters": left})
    for name in going:
        shutil.rmtree(target / name)
    return sorted(code for name in left for code in known[name])


def _copy(source: Path, target: Path, settled: dict[str, Any] | None) -> None:
    """Copies an adapter as a whole, onto the base of those that are there."""
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft)
    if settled is not None:
        place = AdapterBase(settled["base_model_name_or_path"], settled.get("revision"))
        config = json.loads((draft / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        write_json(
            draft / ADAPTER_CONFIG, config | {"base_model_name_or_path": place.source, "revision": place.revision}
        )
    shutil.rmtree(target, ignore_errors=True)  # of a copy that was cut off: the index does not name it
    os.replace(draft, target)


def _index(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTERS_INDEX
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def _names(folder: Path) -> list[str]:
    return list(_index(folder).get("adapters", []))


def _config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name / ADAPTER_CONFIG
    if not path.is_file():
        raise AdapterFolderError(f"{folder} names an adapter {name!r}, and {path} is not there.")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _digest(config: dict[str, Any]) -> str | None:
    """What names an adapter's base, in whatever number format it was loaded; `None` where that is not known."""
    rounded: str | None = (config.get(OWN_SETTINGS, {}).get("base") or {}).get("rounded")
    return rounded
