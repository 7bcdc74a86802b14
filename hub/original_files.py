"""The files of somebody else's model folder: which are given back as they are, which stay behind, and why."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from safetensors.torch import save_file

from xvlm2vec.common.files import is_leftover, write_json
from xvlm2vec.common.pickles import holds_pickle, is_named_pickle
from xvlm2vec.modeling.loading import CheckpointError, read_pickle

from .golden import GOLDEN_JSON, GOLDEN_VECTORS
from .staging import MANIFEST, ExportError

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLE, _PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_SHARDS = re.compile(r"model-\d+-of-\d+\.safetensors")
_PICKLED_WEIGHTS = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")

_OLD_COPY = "another copy of the weights as they were before"
_TRAINING = "a state of the training that made the original"
_LEFT_FOLDERS = {
    ".git": "not part of the model",
    ".cache": "not part of the model",
    "__pycache__": "not part of the model",
    "onnx": _OLD_COPY,
    "openvino": _OLD_COPY,
    "coreml": _OLD_COPY,
}
_LEFT_FILES = (
    (re.compile(r"checkpoint-\d+/.*"), _TRAINING),
    (re.compile(r"(.*/)?(optimizer|scheduler|scaler|rng_state.*|training_args)\.(pt|pth|bin)"), _TRAINING),
    (re.compile(r"(.*/)?events\.out\.tfevents\..*"), _TRAINING),
    (re.compile(r".*\.mlpackage/.*"), _OLD_COPY),
    (re.compile(r"(.*/)?openvino_.*\.(xml|bin)"), _OLD_COPY),
    (re.compile(r"(.*/)?(consolidated.*|model\.[^/]+)\.safetensors"), _OLD_COPY),  # of Mistral; variants such as fp16
    (re.compile(r"(.*/)?model\.safetensors\.index\.[^/]+\.json"), _OLD_COPY),
    (re.compile(r".*\.(onnx|onnx_data|h5|msgpack|ot|gguf|mlmodel|tflite|pb|keras)", re.IGNORECASE), _OLD_COPY),
    (re.compile(f"{GOLDEN_JSON}|{GOLDEN_VECTORS}".replace(".", r"\.")), "vectors of the weights as they were before"),
    (re.compile(re.escape(MANIFEST)), "says what an earlier export wrote"),
)


def copy_original(source: Path, target: Path) -> dict[str, str]:
    """Copies a model's folder; links are followed to their files, and pickled weights become safetensors.

    Args:
        source: The folder: a plain one, or a snapshot in the cache of the Hub's client, whose files are links.
        target: Where the files go: an empty folder.

    Returns:
        The files that were not copied, by their paths in the folder, and why.

    Raises:
        ExportError: A link leads out of the folder.
        CheckpointError: A link leads nowhere, or a pickle is damaged or holds more than tensors.
    """
    left_out: dict[str, str] = {}
    for name, path in _files(source):
        reason = _reason_to_leave(name, path)
        if reason is not None:
            left_out[name] = reason
        elif _PICKLED_WEIGHTS.fullmatch(path.name):
            left_out[name] = _convert_pickle(name, path, target)
        elif path.name == _PICKLE_INDEX:
            left_out[name] = _convert_index(name, path, target)
        elif is_named_pickle(path) or holds_pickle(path):
            left_out[name] = "may run code when loaded"
        else:
            shutil.copyfile(path, _place(target, name))
    return left_out


def files_to_give_back(source: Path) -> Iterator[tuple[str, Path]]:
    """The files of a model's folder that have a place in what is given back: path in the folder, and where to read it.

    Raises:
        ExportError: A link leads out of the folder.
        CheckpointError: A link leads nowhere.
    """
    return ((name, path) for name, path in _files(source) if _reason_to_leave(name, path) is None)


def _files(source: Path) -> Iterator[tuple[str, Path]]:
    """The files of a folder in the order of their names: path in the folder, and where to read it."""
    roots = _allowed_roots(source)
    for folder, names, files in os.walk(source):
        names.sort()
        for name in sorted([*names, *files]):
            path = Path(folder, name)
            place = path.relative_to(source).as_posix()
            if path.is_symlink():
                _check_link(place, path, roots)
            if path.is_file():
                yield place, path


def _allowed_roots(source: Path) -> list[Path]:
    """The folder itself, and the Hub cache's store of files if the folder is one of its snapshots."""
    real = source.resolve()
    blobs = real.parent.parent / "blobs"
    return [real, blobs] if real.parent.name == "snapshots" and blobs.is_dir() else [real]


def _check_link(place: str, path: Path, roots: list[Path]) -> None:
    if not path.exists():
        raise CheckpointError(f"{path} is a link to a file that is not there. Copy or download the model again.")
    real = path.resolve()
    if path.is_dir() or not any(real.is_relative_to(root) for root in roots):
        raise ExportError(f"{place} of the original is a link to {real}; put the files themselves into its folder.")


def _reason_to_leave(name: str, path: Path) -> str | None:
    """Why a file has no place in what is given back; `None` if it has one."""
    parts = PurePosixPath(name).parts
    for part in parts[:-1]:
        if part in _LEFT_FOLDERS:
            return _LEFT_FOLDERS[part]
    if any(map(is_leftover, parts)):
        return "left behind by a system or a tool"
    if _is_passed_over(path):
        return _OLD_COPY
    return next((reason for pattern, reason in _LEFT_FILES if pattern.fullmatch(name)), None)


def _is_passed_over(path: Path) -> bool:
    """Whether the libraries read other weights in the same folder: a whole file before shards, pickles last."""
    if path.name == SAFE_INDEX or _SHARDS.fullmatch(path.name):
        earlier = [SAFE]
    elif path.name == _PICKLE:
        earlier = [SAFE, SAFE_INDEX]
    elif path.name == _PICKLE_INDEX or _PICKLED_WEIGHTS.fullmatch(path.name):
        earlier = [SAFE, SAFE_INDEX, _PICKLE]
    else:
        return False
    return any(path.with_name(name).is_file() for name in earlier)


def _convert_pickle(name: str, path: Path, target: Path) -> str:
    content = read_pickle(path)
    strange = [key for key, value in content.items() if not hasattr(value, "untyped_storage")]
    if strange:
        raise CheckpointError(f"{path} holds more than tensors ({strange[0]!r}, ...).")
    new = _safe_name(name)
    # Tied weights share their memory, which safetensors refuses.
    tensors = {key: value.clone().contiguous() for key, value in content.items()}
    save_file(tensors, _place(target, new), {"format": "pt"})
    return f"may run code when loaded; its tensors are in {new}"


def _convert_index(name: str, path: Path, target: Path) -> str:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        index["weight_map"] = {key: _safe_name(shard) for key, shard in index["weight_map"].items()}
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is no index of weights: {error}") from error
    new = _safe_name(name)
    write_json(_place(target, new), index)
    return f"is {new} now, as the pickles that it names are"


def _safe_name(name: str) -> str:
    """`x/pytorch_model-00001-of-00002.bin` -> `x/model-00001-of-00002.safetensors`; the index likewise."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.replace("pytorch_model", "model", 1).replace(".bin", ".safetensors", 1)


def _place(target: Path, name: str) -> Path:
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
