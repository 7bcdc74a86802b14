"""Writes a model or an adapter as a folder that a stranger can load."""

from __future__ import annotations

import ast
import copy
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from xvlm2vec.common.files import write_json
from xvlm2vec.common.pickles import is_named_pickle
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .card import ReleaseCard, write_card, write_license_note, write_scores
from .golden import ROWS, golden_vectors, image_size, write_golden
from .saved_weights import tensor_places
from .staging import ExportError, staged_folder
from .verify import COSINE_BOUNDS

TESTED_LIBRARIES = ("torch", "transformers", "sentence-transformers", "peft", "huggingface-hub", "pillow", "numpy")
AUTO_MAP = {
    "AutoConfig": "configuration_xvlm2vec.XVLM2VecConfig",
    "AutoModel": "modeling_xvlm2vec.XVLM2VecModel",
}
PROCESSOR_AUTO_MAP = {"AutoProcessor": "processing_xvlm2vec.XVLM2VecProcessor"}
ADAPTER_TRACES = ("lora_", ".base_layer.", "base_model.model.", "modules_to_save", "original_module")
PACKAGE = "xvlm2vec"


def export_model(
    model: Any,
    processor: XVLM2VecProcessor,
    folder: str | os.PathLike[str],
    *,
    card: ReleaseCard | None = None,
    max_shard_size: int | str = "5GB",
) -> Path:
    """Writes a model with all that its users need: weights, code, processor, sentence-transformers and golden files.

    The folder appears whole or not at all. An adapter is merged into a copy; `model` stays as it is.

    Args:
        model: An `XVLM2VecModel`, or a `PeftModel` around one.
        processor: Its processor.
        folder: Where to write: missing, empty, or an earlier export, which is replaced.
        card: What to say in `README.md`; without it the card holds what the model itself tells.
        max_shard_size: Largest weights file, as transformers takes it.

    Raises:
        ExportError: Not such a model, a foreign folder, an adapter that does not merge, or an export that would not
            load without this package.
        GoldenError: The model gives values that are not finite.
    """
    if getattr(model, "language_adapters", None):
        raise ExportError(
            "the model has activated adapters beside it, which export_activated writes with their base; to merge one, "
            "use merge_language first."
        )
    merged = merge_adapter(model, processor) if isinstance(model, PeftModel) else model
    _check_model(merged)
    card = card or ReleaseCard(name=Path(folder).name)
    with staged_folder(folder, "model") as staging:
        merged.save_pretrained(staging, max_shard_size=max_shard_size)
        processor.save_pretrained(staging)
        complete_config(staging / "config.json")
        check_weights(staging)
        golden = write_golden(staging, merged, processor)
        write_card(
            staging,
            card,
            prompts=golden.prompts,
            image_size=golden.image_size,
            dims=golden.vectors.shape[1],
            weights=describe_weights(merged),
        )
        write_scores(staging, card)
        write_license_note(staging, card)
        check_self_contained(staging)
    return Path(folder)


def merge_adapter(model: PeftModel, processor: XVLM2VecProcessor) -> PreTrainedModel:
    """Merges the active adapter into a copy of the model, and checks that its vectors stay the same.

    Raises:
        ExportError: The merged copy gives other vectors.
    """
    merged = copy.deepcopy(model).merge_and_unload(safe_merge=True)
    size = image_size(processor)
    before = golden_vectors(model.get_base_model(), processor, size).double()
    after = golden_vectors(merged, processor, size).double()
    distance = 1 - torch.nn.functional.cosine_similarity(before, after, dim=-1)
    bound = COSINE_BOUNDS.get(str(merged.dtype).removeprefix("torch."), COSINE_BOUNDS["bfloat16"])
    if not bool((distance < bound).all()):
        worst = int(distance.nan_to_num(nan=float("inf")).argmax())
        raise ExportError(
            f"merging the adapter changes vectors: row {ROWS[worst].name!r} by 1-cos {float(distance[worst]):.1e}, "
            f"where {bound:.0e} is allowed. Merge in float32, or use an adapter type that merges."
        )
    return merged


def export_adapter(
    model: PeftModel,
    folder: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str],
    base_revision: str | None = None,
    card: ReleaseCard | None = None,
    processor: XVLM2VecProcessor | None = None,
) -> Path:
    """Writes the adapter alone into a folder, and proves by loading it again that it is complete.

    Args:
        model: A `PeftModel` around an `XVLM2VecModel`.
        folder: Where to write, as for `export_model`.
        base: Folder or Hub id of the model below the adapter; written down as it is.
        base_revision: Its revision on the Hub.
        card: What to say in `README.md`.
        processor: The model's processor; with it golden files are written, too, by which `verify` checks the adapter.

    Raises:
        ExportError: Trained weights would be left behind, or do not come back when loaded.
    """
    if not isinstance(model, PeftModel):
        raise ExportError(f"a {type(model).__name__} holds no adapter; pass the PeftModel, or use export_model.")
    expected = _adapter_state(model)
    _check_nothing_left_behind(model)
    card = card or ReleaseCard(name=Path(folder).name)
    with staged_folder(folder, "adapter") as staging:
        model.save_pretrained(
            str(staging), selected_adapters=["default"], save_embedding_layers=False, safe_serialization=True
        )
        path = staging / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | {
            "base_model_name_or_path": os.fspath(base),
            "revision": base_revision,
            "task_type": "FEATURE_EXTRACTION",
            "auto_mapping": None,
        }
        write_json(path, config)
        _compare_states("the written file", load_file(staging / "adapter_model.safetensors"), expected)
        reloaded = PeftModel.from_pretrained(copy.deepcopy(model).unload(), staging)
        _compare_states("the adapter, loaded again,", _adapter_state(reloaded), expected)
        golden = write_golden(staging, model.get_base_model(), processor) if processor is not None else None
        write_card(
            staging,
            card,
            image_size=golden.image_size if golden else None,
            adapter_base=os.fspath(base),
            base_revision=base_revision,
        )
        write_license_note(staging, card)
        check_no_pickles(staging)
    return Path(folder)


def describe_weights(model: PreTrainedModel) -> str:
    """How many weights a model has, in which precision, and how much room they take."""
    count = model.num_parameters()
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return f"{count:,} weights in {str(model.dtype).removeprefix('torch.')} ({size / 1e6:,.1f} MB)"


def tested_versions() -> dict[str, str]:
    """The range of each library that this package is tested with, such as `{"transformers": ">=5.23,<6"}`."""
    requirements = [Requirement(line) for line in importlib.metadata.requires(PACKAGE) or []]
    return {
        requirement.name: ",".join(sorted(str(requirement.specifier).split(","), reverse=True))
        for requirement in requirements
        if requirement.name in TESTED_LIBRARIES and requirement.marker is None
    }


def check_weights(folder: Path) -> None:
    """Raises an `ExportError` if a saved tensor belongs to an adapter rather than to the model."""
    strays = [key for key in tensor_places(folder) if any(trace in key for trace in ADAPTER_TRACES)]
    if strays:
        raise ExportError(
            f"{len(strays)} weights belong to an adapter ({strays[0]}, ...): pass the PeftModel itself, so that it is "
            "merged, or call merge_and_unload first."
        )


def check_self_contained(folder: Path) -> None:
    """Raises if an exported model would not load where this package is not installed.

    Raises:
        ExportError: An import of the package or of a file that is not there, a wrong `auto_map`, or a pickle.
    """
    check_no_pickles(folder)
    faults = [fault for path in sorted(folder.glob("*.py")) for fault in _import_faults(path)]
    for name, expected in (("config.json", AUTO_MAP), ("processor_config.json", PROCESSOR_AUTO_MAP)):
        auto_map = json.loads((folder / name).read_text(encoding="utf-8")).get("auto_map") or {}
        faults += [
            f"{name} maps {key} to {auto_map.get(key)!r}" for key in expected if auto_map.get(key) != expected[key]
        ]
        homes = sorted({str(target).partition(".")[0] for target in auto_map.values() if isinstance(target, str)})
        absent = [home for home in homes if not (folder / f"{home}.py").is_file()]
        faults += [f"{name} names {home}.py, which is not there" for home in absent]
    if faults:
        raise ExportError("the export would not load without this package: " + "; ".join(faults) + ".")


def check_no_pickles(folder: Path) -> None:
    """Raises an `ExportError` that names the files which could run code when they are loaded."""
    pickles = sorted(path.name for path in folder.rglob("*") if is_named_pickle(path))
    if pickles:
        raise ExportError(f"{', '.join(pickles)} may run code when loaded and must not be released.")


def _check_model(model: Any) -> None:
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type != "xvlm2vec":
        raise ExportError(
            f"a {type(model).__name__} (model_type {model_type!r}) is no XVLM2VecModel; wrap it with "
            "XVLM2VecModel.from_backbone first."
        )


def complete_config(path: Path) -> None:
    """Adds the tested versions, and takes out where the backbone lay on the machine that made the export."""
    config = json.loads(path.read_text(encoding="utf-8"))
    _drop_key(config, "_name_or_path")
    config["tested_versions"] = tested_versions()
    write_json(path, config)


def _drop_key(content: Any, key: str) -> None:
    if isinstance(content, dict):
        content.pop(key, None)
        for value in content.values():
            _drop_key(value, key)


def _import_faults(path: Path) -> list[str]:
    faults = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports = [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports = [(node.module or "", node.level)]
        else:
            continue
        for module, level in imports:
            if level == 0 and module.partition(".")[0] == PACKAGE:
                faults.append(f"{path.name} imports {module}")
            elif level > 1 or (level == 1 and not (path.parent / f"{module}.py").is_file()):
                faults.append(f"{path.name} imports {'.' * level}{module}, which is not there")
    return faults


def _adapter_state(model: PeftModel) -> dict[str, torch.Tensor]:
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def _check_nothing_left_behind(model: PeftModel) -> None:
    """A weight that was trained without being part of the adapter would silently be lost."""
    if list(model.peft_config) != ["default"]:
        raise ExportError(
            f"the model holds the adapters {', '.join(model.peft_config)}; a release takes one, called 'default'."
        )
    saved = {tensor.data_ptr() for tensor in _adapter_state(model).values()}
    lost = [name for name, value in model.named_parameters() if value.requires_grad and value.data_ptr() not in saved]
    if lost:
        raise ExportError(
            f"{len(lost)} trained weights are no part of the adapter ({lost[0]}, ...) and would be lost: name them in "
            "`modules_to_save`, or release the merged model only."
        )


def _compare_states(what: str, actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    missing, extra = sorted(expected.keys() - actual.keys()), sorted(actual.keys() - expected.keys())
    shared = sorted(expected.keys() & actual.keys())
    changed = [key for key in shared if not torch.equal(actual[key].cpu(), expected[key].cpu())]
    groups = {"missing": missing, "unexpected": extra, "changed": changed}
    faults = [f"{len(keys)} {kind} ({keys[0]}, ...)" for kind, keys in groups.items() if keys]
    if faults:
        raise ExportError(f"{what} does not hold what was trained: keys {'; '.join(faults)}.")
