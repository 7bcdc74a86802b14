"""Published VLM2Vec and xVLM2Vec checkpoints: finding them, and fitting adapters of an old module layout to a backbone.

The adapters were trained on the model classes of their time. Their module names are turned into those of today's
backbones, and every key must land on a module and every module that the adapter targets must be hit: an adapter that is
applied in part, or not at all, gives plausible vectors that are wrong.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig
from transformers.utils import cached_file, find_adapter_config_file

from .loading import CheckpointError, read_pickle, readable_files

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
_OWN_PLACE = ("revision", "subfolder")  # where an adapter lies, not where its base does
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\."
    r"(?:(?P<matrix>lora_[AB])(?:\.default)?\.weight|(?P<vector>lora_magnitude_vector)(?:\.default)?(?:\.weight)?)"
)
_WHOLE_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.(?P<part>weight|bias)")
_UNSUPPORTED = (
    "alpha_pattern",
    "exclude_modules",
    "fan_in_fan_out",
    "layer_replication",
    "layers_to_transform",
    "lora_bias",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
)
"""Settings of PEFT that no published checkpoint uses and that would change what is merged."""


@dataclass(frozen=True)
class PublishedBackbone:
    """What is known of the published checkpoints on one backbone.

    Args:
        layout: The entry in `families` where prompts are not written in the backbone's usual way.
        renamings: Beginnings of module names, of older transformers classes and of today's base model.
        image_settings: Settings of the processor that the checkpoints were trained with, whatever its files say.
    """

    layout: str | None
    renamings: tuple[tuple[str, str], ...]
    image_settings: dict[str, int] = field(default_factory=dict)

    def new_names(self, old: str) -> list[str]:
        """What a module of the adapter may be called in the backbone."""
        return [old, *(new + old.removeprefix(prefix) for prefix, new in self.renamings if old.startswith(prefix))]

    def old_names(self, new: str) -> list[str]:
        """What a module of the backbone may have been called when the adapter was trained."""
        return [new, *(old + new.removeprefix(prefix) for old, prefix in self.renamings if new.startswith(prefix))]


SQUARE = 1344
"""Pixels of the square into which the original code squeezes every image, in training and evaluation."""

PUBLISHED: dict[str, PublishedBackbone] = {
    "phi3_v": PublishedBackbone(None, (("model.", ""),), {"num_crops": 4, "square": SQUARE}),
    "llava_next": PublishedBackbone(
        None,
        (
            ("language_model.model.", "language_model."),
            ("vision_tower.vision_model.", "vision_tower."),
            ("model.", ""),
        ),
        {"square": SQUARE},
    ),
    "qwen2_vl": PublishedBackbone(
        "qwen2_vl-vlm2vec",
        (("model.layers.", "language_model.layers."), ("model.", "")),
        {"square": SQUARE},
    ),
}
"""By the backbone's `model_type`."""
TODAY = PublishedBackbone(None, ())
"""An adapter of this package, on a whole embedding model: names are today's."""


@dataclass(frozen=True)
class LoraWeights:
    """The adapter of one linear module.

    Args:
        down: `(r, in)`, `lora_A`.
        up: `(out, r)`, `lora_B`.
        magnitude: `(out,)` for DoRA.
    """

    down: torch.Tensor
    up: torch.Tensor
    magnitude: torch.Tensor | None = None

    def merged(self, weight: torch.Tensor, scale: float) -> torch.Tensor:
        """The weight `(out, in)` with the adapter in it, computed in float32, in the weight's dtype and place.

        LoRA adds `scale * up @ down`. DoRA (arXiv 2402.09353) then gives each output's row the stored length.
        """
        down, up = (part.to(weight.device, torch.float32) for part in (self.down, self.up))
        changed = weight.float() + scale * (up @ down)
        if self.magnitude is not None:
            lengths = self.magnitude.to(weight.device, torch.float32)
            changed = changed * (lengths / changed.norm(dim=1))[:, None]
        return changed.to(weight.dtype)


@dataclass(frozen=True)
class Adapter:
    """A LoRA or DoRA adapter as it is stored.

    Args:
        source: What errors call it.
        base: What errors call its base.
        config: The content of `adapter_config.json`.
        weights: The stored tensors by key.
    """

    source: str
    base: str
    config: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]

    @property
    def scale(self) -> float:
        """The factor of the low-rank product."""
        rank = self.config["r"]
        return float(self.config["lora_alpha"] / (rank**0.5 if self.config.get("use_rslora") else rank))

    def place(self, model: nn.Module) -> dict[str, LoraWeights]:
        """The adapter by the model's own module names.

        Args:
            model: A base model of a published architecture, or an `XVLM2VecModel`; without PEFT wrappers.

        Raises:
            CheckpointError: A key lands nowhere, a targeted module gets nothing or a part of what it needs, or shapes
                differ. The message lists them.
        """
        return self._land(model)[0]

    @torch.no_grad()
    def merge_into(self, model: nn.Module) -> None:
        """Changes the model's weights to those with the adapter; nothing is changed if the adapter does not fit.

        Raises:
            CheckpointError: As for `place`.
        """
        placed, whole = self._land(model)
        for name, lora in placed.items():
            weight: Any = model.get_submodule(name).weight
            weight.copy_(lora.merged(weight, self.scale))
        for name, value in whole.items():
            model.get_parameter(name).copy_(value)

    def state_dict_for(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The adapter as PEFT stores one of the model itself, for `peft.set_peft_model_state_dict`.

        Raises:
            CheckpointError: As for `place`.
        """
        placed, whole = self._land(model)
        state = {f"base_model.model.{name}": value for name, value in whole.items()}
        for name, lora in placed.items():
            prefix = f"base_model.model.{name}"
            state |= {f"{prefix}.lora_A.weight": lora.down, f"{prefix}.lora_B.weight": lora.up}
            if lora.magnitude is not None:
                state[f"{prefix}.lora_magnitude_vector"] = lora.magnitude
        return state

    def _land(self, model: nn.Module) -> tuple[dict[str, LoraWeights], dict[str, torch.Tensor]]:
        """Low-rank weights by module, and weights that were saved whole by parameter; every key accounted for."""
        model_type = getattr(model.config, "model_type", "")
        known = TODAY if model_type == "xvlm2vec" else published_backbone(model_type, self.base)
        modules = dict(model.named_modules())
        faults: dict[str, list[str]] = {"land on no module": [], "are of another shape": [], "are missing": []}
        found: dict[str, dict[str, torch.Tensor]] = {}
        whole = self._whole(known, modules, faults)
        for key in self.weights.keys() - whole.keys():
            value = self.weights[key]
            module, part = self._landing(key, known, modules)
            if module is None:
                faults["land on no module"].append(key)
            elif list(value.shape) != self._shape(modules[module], part):
                wanted = self._shape(modules[module], part)
                faults["are of another shape"].append(f"{key} {list(value.shape)} for {wanted}")
            if module is not None:
                found.setdefault(module, {})[part] = value
        faults["are missing"] += self._absent(known, modules, found)
        self._raise_for(faults)
        placed = {
            module: LoraWeights(parts["lora_A"], parts["lora_B"], parts.get("lora_magnitude_vector"))
            for module, parts in found.items()
        }
        return placed, {name: self.weights[key] for key, name in whole.items()}

    def _absent(
        self, known: PublishedBackbone, modules: Mapping[str, nn.Module], found: Mapping[str, Mapping[str, Any]]
    ) -> list[str]:
        """What modules that the adapter targets, or that it has a part of, lack."""
        wanted = ("lora_A", "lora_B", *(["lora_magnitude_vector"] if self.config.get("use_dora") else []))
        return [
            f"{module}.{part}"
            for module in sorted({*self._targets(known, modules), *found})
            for part in wanted
            if part not in found.get(module, {})
        ]

    def _whole(
        self, known: PublishedBackbone, modules: Mapping[str, nn.Module], faults: Mapping[str, list[str]]
    ) -> dict[str, str]:
        """Keys of modules that were trained and saved whole (`modules_to_save`), with the parameters they are."""
        kept = self.config.get("modules_to_save") or ()
        wanted = {
            f"{name}.{part}": parameter
            for name, module in modules.items()
            if kept and any(_is_target(old, kept) for old in known.old_names(name))
            for part, parameter in module.named_parameters()
        }
        found = {}
        for key, value in self.weights.items():
            match = _WHOLE_KEY.fullmatch(key)
            names = [f"{name}.{match['part']}" for name in known.new_names(match["module"])] if match else []
            name = next((name for name in names if name in wanted), None)
            if name is None:
                continue
            found[key] = name
            if value.shape != wanted[name].shape:
                shapes = f"{list(value.shape)} for {list(wanted[name].shape)}"
                faults["are of another shape"].append(f"{key} {shapes}")
        faults["are missing"].extend(sorted(wanted.keys() - found.values()))
        hit = {target for target in kept for name in wanted if _is_target(name.rpartition(".")[0], [target])}
        faults["are missing"].extend(f"{target} (of modules_to_save)" for target in kept if target not in hit)
        return found

    def _landing(self, key: str, known: PublishedBackbone, modules: Mapping[str, nn.Module]) -> tuple[str | None, str]:
        """The linear module that a key belongs to, and the part of its adapter that it is."""
        match = _KEY.fullmatch(key)
        if match is None or (match["vector"] and not self.config.get("use_dora")):
            return None, ""
        names = {name for name in known.new_names(match["module"]) if isinstance(modules.get(name), nn.Linear)}
        return (names.pop() if len(names) == 1 else None), match["matrix"] or match["vector"]

    def _shape(self, module: nn.Module, part: str) -> list[int]:
        weight: Any = module.weight
        out_size, in_size = weight.shape
        rank = self.config["r"]
        return {"lora_A": [rank, in_size], "lora_B": [out_size, rank]}.get(part, [out_size])

    def _targets(self, known: PublishedBackbone, modules: Mapping[str, nn.Module]) -> list[str]:
        """The backbone's modules that `target_modules` of the adapter mean."""
        targets = self.config.get("target_modules") or ()
        if targets == "all-linear":
            return [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        return [name for name in modules if name and any(_is_target(old, targets) for old in known.old_names(name))]

    def _raise_for(self, faults: Mapping[str, Iterable[str]], most: int = 8) -> None:
        listed = {kind: sorted(keys) for kind, keys in faults.items()}
        texts = [
            f"{len(keys)} keys {kind} ({', '.join(keys[:most])}{', ...' if len(keys) > most else ''})"
            for kind, keys in listed.items()
            if keys
        ]
        if texts:
            raise CheckpointError(
                f"The adapter {self.source!r} does not fit {self.base!r}: {'; '.join(texts)}. Vectors of a model with "
                "a part of its adapter would be wrong. Is it the right base, and the adapter complete?"
            )


@dataclass(frozen=True)
class Published:
    """A published checkpoint, found.

    Args:
        backbone: Folder or Hub id of the weights of the backbone.
        options: Arguments to load them with.
        adapter: What is to be merged into them.
        layout: How prompts are written, see `XVLM2VecConfig`.
        image_settings: What the processor must do to images, see `XVLM2VecConfig`.
        processor_options: Arguments to load the processor with, from the folder or id of the backbone.
    """

    backbone: str | os.PathLike[str]
    options: dict[str, Any]
    adapter: Adapter | None
    layout: str | None
    image_settings: dict[str, int]
    processor_options: dict[str, Any]


def find_published(
    source: str | os.PathLike[str], base: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> Published:
    """Finds out what a published checkpoint consists of, without loading the weights of its backbone.

    Args:
        source: Folder or Hub id.
        base: For an adapter, its base instead of the one that its configuration names.
        options: The arguments of `from_vlm2vec`.

    Raises:
        CheckpointError: It is no published checkpoint, or a part of it is missing.
    """
    adapter = read_adapter(source, base, {key: options[key] for key in _HUB_KEYS if options.get(key) is not None})
    if adapter is None and base is not None:
        raise CheckpointError(
            f"{os.fspath(source)!r} has no {ADAPTER_CONFIG}, so it is no adapter and needs no base={os.fspath(base)!r}."
        )
    backbone = source if adapter is None else adapter.base
    kept = {key: value for key, value in options.items() if adapter is None or key not in _OWN_PLACE}
    hub = {key: kept[key] for key in _HUB_KEYS if kept.get(key) is not None}
    try:
        config = AutoConfig.from_pretrained(backbone, trust_remote_code=kept.get("trust_remote_code"), **hub)
    except (OSError, ValueError) as error:
        if adapter is None:
            raise
        raise base_is_gone(adapter, os.fspath(backbone), kept.get("revision"), error) from error
    known = published_backbone(config.model_type, os.fspath(backbone))
    processor_options = {**hub, **known.image_settings}
    return Published(backbone, kept, adapter, known.layout, known.image_settings, processor_options)


def base_is_gone(adapter: Adapter, base: str, revision: str | None, reason: object) -> CheckpointError:
    """The error for an adapter whose base cannot be loaded."""
    name = f"{base!r}{f' at revision {revision}' if revision else ''}"
    return CheckpointError(
        f"The adapter {adapter.source!r} belongs on {name}, which cannot be loaded ({reason}). Pass `base` with the "
        "folder or id of that model."
    )


def published_backbone(model_type: str, source: str) -> PublishedBackbone:
    """What is known of the published checkpoints on a backbone.

    Raises:
        CheckpointError: There are none.
    """
    if model_type == "xvlm2vec":
        raise CheckpointError(f"{source!r} is an embedding model of this package already: use from_pretrained.")
    if model_type not in PUBLISHED:
        raise CheckpointError(
            f"{source!r} is a {model_type!r} model; VLM2Vec checkpoints are known on {', '.join(PUBLISHED)}. Use "
            "XVLM2VecModel.from_backbone for others."
        )
    return PUBLISHED[model_type]


def refuse_adapter(source: str | os.PathLike[str] | None, hub: Mapping[str, Any]) -> None:
    """Raises if transformers would put an adapter on the weights that it loads: it then checks neither.

    Args:
        source: Folder or Hub id of what should be a whole model; `None` where a caller has the weights in memory.
        hub: Arguments of the Hub client; others are ignored.

    Raises:
        CheckpointError: There is an `adapter_config.json`.
    """
    if source is None:
        return
    places = {key: hub[key] for key in _HUB_KEYS if hub.get(key) is not None}
    if find_adapter_config_file(os.fspath(source), **places) is None:
        return
    raise CheckpointError(
        f"{os.fspath(source)!r} has an {ADAPTER_CONFIG}. An adapter is loaded with XVLM2VecModel.from_vlm2vec where "
        "VLM2Vec or xVLM2Vec published it, and with XVLM2VecModel.from_pretrained where this package trained it; both "
        "check that all of it lands. If the folder holds a whole model, take that file away."
    )


def read_adapter(
    source: str | os.PathLike[str], base: str | os.PathLike[str] | None = None, hub: Mapping[str, Any] | None = None
) -> Adapter | None:
    """Reads the adapter of a folder or Hub id; `None` if there is no `adapter_config.json`.

    Args:
        source: Folder or Hub id.
        base: Its base instead of the one that its configuration names.
        hub: Arguments of the Hub client.

    Raises:
        CheckpointError: There are no weights, the file is broken, no base is named, or a setting is not supported.
    """
    found = _find(source, ADAPTER_CONFIG, hub)
    if found is None:
        return None
    name = os.fspath(source)
    config = json.loads(found.read_text(encoding="utf-8"))
    _check_settings(config, name)
    base = base or config.get("base_model_name_or_path")
    if not base:
        raise CheckpointError(f"{ADAPTER_CONFIG} of {name!r} names no base model: pass `base`.")
    weights = next((file for file in (_find(source, file, hub) for file in ADAPTER_WEIGHTS) if file is not None), None)
    if weights is None:
        raise CheckpointError(f"{name!r} has an {ADAPTER_CONFIG}, but neither {' nor '.join(ADAPTER_WEIGHTS)}.")
    with readable_files(source):
        return Adapter(name, os.fspath(base), config, _read_weights(weights))


def _find(source: str | os.PathLike[str], name: str, hub: Mapping[str, Any] | None) -> Path | None:
    found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **(hub or {}))
    return Path(found) if found else None


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    logger.warning("%s is a pickle file; it is read with weights_only=True.", file.name)
    return read_pickle(file)


def _check_settings(config: Mapping[str, Any], name: str) -> None:
    used = [f"{key}={config[key]!r}" for key in _UNSUPPORTED if config.get(key)]
    if config.get("bias", "none") != "none":
        used.append(f"bias={config['bias']!r}")
    if config.get("peft_type", "LORA") != "LORA":
        used.append(f"peft_type={config['peft_type']!r}")
    if used:
        raise CheckpointError(
            f"The adapter {name!r} uses {', '.join(used)}, which is not supported. Merge it with PEFT into its base "
            "and load the result."
        )
    lacking = [key for key in ("r", "lora_alpha", "target_modules") if not config.get(key)]
    if lacking:
        raise CheckpointError(f"{ADAPTER_CONFIG} of {name!r} lacks {', '.join(lacking)}.")


def _is_target(module: str, targets: str | Iterable[str]) -> bool:
    """Whether PEFT would adapt a module: a string is a pattern for the whole name, a list holds ends of names."""
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)
