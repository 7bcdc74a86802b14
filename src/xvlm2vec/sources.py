"""What the commands take for a model: a folder or Hub id of an embedder, an adapter, or a plain backbone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

Kind = Literal["xvlm2vec", "adapter", "sentence-transformers", "backbone"]
ADAPTER_CONFIG = "adapter_config.json"


def looks_like_path(source: str) -> bool:
    """Whether a name can only be meant as a path: Hub ids have at most one slash and begin with a letter or digit."""
    return os.path.exists(source) or source.startswith((".", "/", "~")) or source.count("/") > 1


def model_kind(source: str) -> Kind:
    """What lies in a folder or under a Hub id, from its small files.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no model.
    """
    config = read_json(source, "config.json")
    if config is not None and config.get("model_type") == "xvlm2vec":
        return "xvlm2vec"
    if read_json(source, "modules.json") is not None:
        return "sentence-transformers"
    if read_json(source, ADAPTER_CONFIG) is not None:
        return "adapter"
    if config is not None:
        return "backbone"
    raise FileNotFoundError(f"{source} holds no model: it has neither config.json, {ADAPTER_CONFIG} nor modules.json.")


def read_json(source: str, name: str) -> Any:
    """A JSON file of a folder or Hub id, or None if it has no such file.

    Raises:
        FileNotFoundError: There is no such folder or repository.
        OSError: The Hub cannot be reached, and the repository was not downloaded before.
        ValueError: The file is no JSON.
    """
    if looks_like_path(source):
        if not Path(source).is_dir():
            raise FileNotFoundError(f"there is no folder {source}.")
        path: str | None = str(Path(source, name)) if Path(source, name).is_file() else None
    else:
        path = _hub_file(source, name)
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error


def _hub_file(source: str, name: str) -> str | None:
    """A file of a Hub repository, downloaded if need be; None if the repository has no such file."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return hf_hub_download(source, name)
    except LocalEntryNotFoundError as error:
        if isinstance(try_to_load_from_cache(source, "config.json"), str):
            return None  # the repository was downloaded before, and this file was not part of it
        raise OSError(f"{source} is no folder here, and the Hub cannot be reached to look for it.") from error
    except EntryNotFoundError:
        return None
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(f"{source} is neither a folder here nor a repository on the Hub.") from error


def load_embedder(source: str, **options: Any) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
    """An `XVLM2VecModel` and its processor; an adapter is put on its base and merged.

    Args:
        source: Folder or Hub id.
        **options: Of `from_pretrained`, such as `dtype`.

    Raises:
        ValueError: It is another kind of model.
    """
    import xvlm2vec.modeling  # noqa: F401  (registers the Auto classes)
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

    kind = model_kind(source)
    if kind == "adapter":
        base = adapter_base(source)
        model, processor = load_embedder(base, **options)
        return put_adapter(model, source).merge_and_unload(), processor
    if kind != "xvlm2vec":
        raise ValueError(
            f"{source} is a {kind} model, and this needs an XVLM2VecModel; `xvlm2vec contrast --model {source}` wraps "
            "and trains one."
        )
    # An adapter remembers the path of its base, which must hold from any folder.
    place = str(Path(source).resolve()) if Path(source).is_dir() else source
    return XVLM2VecModel.from_pretrained(place, **options), XVLM2VecProcessor.from_pretrained(place)


def adapter_base(source: str) -> str:
    """The folder or id of the model below an adapter, as its configuration has it.

    Raises:
        ValueError: It names none.
    """
    base = (read_json(source, ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{source}/{ADAPTER_CONFIG} names no base_model_name_or_path; pass the model below it.")
    return str(base)


def put_adapter(model: XVLM2VecModel, source: str) -> Any:
    """A `PeftModel` with a saved adapter on its base."""
    from xvlm2vec.trainer.adapters import load_adapter

    if not Path(source).is_dir():
        from huggingface_hub import snapshot_download

        source = snapshot_download(source)
    return load_adapter(model, source)


def dataset_folder(source: str) -> Path:
    """A local folder, or the files of a data set on the Hub.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if Path(source).is_dir():
        return Path(source)
    if looks_like_path(source) or "/" not in source:
        raise FileNotFoundError(f"there is no folder {source}.")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, repo_type="dataset"))
