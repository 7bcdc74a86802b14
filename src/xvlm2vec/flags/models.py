"""What the commands take for a model: a folder or Hub id of an embedder, an adapter, or a plain backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xvlm2vec.common.adoption.kinds import TWO_TOWERS
from xvlm2vec.common.run_state import STATE_FILE
from xvlm2vec.modeling.hub_ids import is_path

if TYPE_CHECKING:
    from xvlm2vec.modeling.adapters import AdapterBase
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

Kind = Literal["xvlm2vec", "adapter", "sentence-transformers", "backbone"]
ADAPTER_CONFIG, ADAPTERS_INDEX = "adapter_config.json", "adapters.json"
TEACHER = "teacher"
"""The folder of a quickstart run that holds the model below its adapter."""


def model_kind(source: str, revision: str | None = None) -> Kind:
    """What lies in a folder or under a Hub id at a revision, from its small files.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no model.
    """
    config = read_json(source, "config.json", revision)
    is_ours = config is not None and config.get("model_type") == "xvlm2vec"
    if is_ours or read_json(source, ADAPTERS_INDEX, revision) is not None:
        return "xvlm2vec"
    if read_json(source, "modules.json", revision) is not None:
        return "sentence-transformers"
    if read_json(source, ADAPTER_CONFIG, revision) is not None:
        return "adapter"
    if config is not None:
        return "backbone"
    raise FileNotFoundError(f"{source} holds no model: it has neither config.json, {ADAPTER_CONFIG} nor modules.json.")


def has_two_towers(source: str, revision: str | None = None) -> bool:
    """Whether a plain model of transformers has one tower for texts and one for images."""
    return (read_json(source, "config.json", revision) or {}).get("model_type") in TWO_TOWERS


def read_json(source: str, name: str, revision: str | None = None) -> Any:
    """A JSON file of a folder or Hub id at a revision, or None if it has no such file.

    Raises:
        FileNotFoundError: There is no such folder or repository.
        OSError: The Hub cannot be reached, and the repository was not downloaded before.
        ValueError: The file is no JSON.
    """
    from xvlm2vec.modeling import hub_files

    return hub_files.read_json(source, name, {"revision": revision}) or None


def load_embedder(
    source: str, revision: str | None = None, trust_remote_code: bool = False, **options: Any
) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
    """An `XVLM2VecModel` and its processor.

    An adapter is put on its base, at the revision that it names, and merged, or put beside it if it is activated. An
    embedder of sentence-transformers or of two towers is taken over as it is, and proven.

    Args:
        source: Folder or Hub id.
        revision: Branch, tag or commit of a Hub id.
        trust_remote_code: Whether code in the folder of an embedder of sentence-transformers may be run.
        **options: Options of `from_pretrained`, such as `dtype`.

    Raises:
        ValueError: It is another kind of model.
        FileNotFoundError: There is no such model, or that below the adapter is gone.
    """
    import xvlm2vec.modeling  # noqa: F401  (registers the Auto classes)
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

    kind = model_kind(source, revision)
    if kind == "adapter":
        base = adapter_base(source, revision)
        model, processor = load_embedder(base.source, base.revision, **options)
        if is_activated(source, revision):
            return put_beside(model, source, base, revision), processor
        return put_adapter(model, source, revision).merge_and_unload(), processor
    if kind == "sentence-transformers" or (kind == "backbone" and has_two_towers(source, revision)):
        from .adoption import adopt_model

        adopted = adopt_model(source, revision, trust_remote_code, **options)
        return adopted.model, adopted.processor
    if kind != "xvlm2vec":
        raise ValueError(
            f"{source} is a {kind} model, and this needs an XVLM2VecModel; `xvlm2vec contrast --model {source}` wraps "
            "and trains one."
        )
    if Path(source).is_dir():  # an adapter remembers the path of its base, which must be right from any folder
        folder = str(Path(source).resolve())
        return XVLM2VecModel.from_pretrained(folder, **options), XVLM2VecProcessor.from_pretrained(folder)
    at = {"revision": revision} if revision else {}
    return XVLM2VecModel.from_pretrained(source, **at, **options), XVLM2VecProcessor.from_pretrained(source, **at)


def adapter_base(source: str, revision: str | None = None) -> AdapterBase:
    """The model below an adapter, as its configuration has it; for the adapter of a quickstart run, the run's teacher.

    Raises:
        ValueError: It names none.
        FileNotFoundError: It names a folder that is gone, or the adapter's run has lost its teacher.
    """
    from xvlm2vec.modeling import adapters

    run = Path(source).resolve().parent
    if not Path(source).is_dir() or not is_quickstart(run):
        return adapters.adapter_base(source, {"revision": revision})
    teacher = run / TEACHER  # the path in the adapter's configuration was that before the run was moved
    if not teacher.is_dir():
        raise adapters.MissingBaseError(source, str(teacher), None, "there is no such folder")
    return adapters.AdapterBase(str(teacher))


def is_quickstart(folder: Path) -> bool:
    """Whether a folder is that of a quickstart run; a training keeps its state in a file of the same name.

    Raises:
        ValueError: That file is damaged.
    """
    path = folder / STATE_FILE
    try:
        return path.is_file() and "sizes" in json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold the settings of a run ({error}).") from error


def is_activated(source: str, revision: str | None = None) -> bool:
    """Whether an adapter acts on texts in its languages only."""
    from xvlm2vec.modeling.lora_settings import LoraSettings

    return LoraSettings(read_json(source, ADAPTER_CONFIG, revision) or {}).is_activated


def holds_activated(source: str, revision: str | None = None) -> bool:
    """Whether a folder or Hub id holds activated adapters: one, several, or these beside their base."""
    return is_activated(source, revision) or bool(read_json(source, ADAPTERS_INDEX, revision))


def base_below(model: XVLM2VecModel) -> AdapterBase:
    """Where the base lies of a model with activated adapters beside it."""
    from xvlm2vec.modeling.adapters import AdapterBase

    config = next(iter(model.language_adapters.values())).config
    return AdapterBase(config["base_model_name_or_path"], config.get("revision"))


def load_below(base: AdapterBase) -> XVLM2VecModel:
    """The base of activated adapters by itself, also where these lie beside it."""
    from xvlm2vec.modeling.adapters import holds_base
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

    at = {"revision": base.revision} if base.revision else {}
    if holds_base(base.source, at):
        return XVLM2VecModel.base_of(base.source, **at)
    return load_embedder(base.source, base.revision)[0]


def put_beside(model: XVLM2VecModel, source: str, base: AdapterBase, revision: str | None = None) -> XVLM2VecModel:
    """A base with a saved adapter beside it, which acts on texts in its languages only.

    Raises:
        CheckpointError: It belongs to another base, or lacks a weight.
    """
    from xvlm2vec.modeling.adapters import read_adapter
    from xvlm2vec.modeling.language_adapters import load_language_adapter

    adapter = read_adapter(source, base.source, {"revision": revision})
    if adapter is not None:
        load_language_adapter(model, adapter)
    return model


def put_adapter(model: XVLM2VecModel, source: str, revision: str | None = None) -> Any:
    """A `PeftModel` with a saved adapter on its base.

    Raises:
        HubError: The adapter cannot be downloaded.
    """
    from xvlm2vec.trainer.adapters import load_adapter

    if not Path(source).is_dir():
        source = str(snapshot(source, revision=revision))
    return load_adapter(model, source)


def dataset_folder(source: str) -> Path:
    """A local folder, or the files of a data set on the Hub.

    Raises:
        FileNotFoundError: There is no such folder.
        HubError: It cannot be downloaded.
    """
    if Path(source).is_dir():
        return Path(source)
    if is_path(source) or "/" not in source:
        raise FileNotFoundError(f"there is no folder {source}.")
    return snapshot(source, repo_type="dataset")


def snapshot(source: str, **options: Any) -> Path:
    """The files of a repository on the Hub.

    Raises:
        HubError: The connection broke, or the Hub refused.
    """
    from huggingface_hub import snapshot_download

    from xvlm2vec.hub.connection import hub_errors

    with hub_errors(f"downloading {source}"):
        return Path(snapshot_download(source, **options))
