"""LoRA and DoRA adapters as PEFT stores them: every key put on its module, and merged into the weights below.

Adapters of published checkpoints were trained on the model classes of their time. Their module names are turned into
those of today's backbones, and every key must land on a module and every module that the adapter targets must be hit:
an adapter that is applied in part, or not at all, gives plausible vectors that are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .loading import CheckpointError
from .published_backbones import TODAY, PublishedBackbone, published_backbone

_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\."
    r"(?:(?P<matrix>lora_[AB])(?:\.default)?\.weight|(?P<vector>lora_magnitude_vector)(?:\.default)?(?:\.weight)?)"
)
_WHOLE_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.(?P<part>weight|bias)")


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
        base: Folder or Hub id of the model below it.
        base_revision: Revision of that on the Hub.
        config: The content of `adapter_config.json`.
        weights: The stored tensors by key.
    """

    source: str
    base: str
    base_revision: str | None
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


def _is_target(module: str, targets: str | Iterable[str]) -> bool:
    """Whether PEFT would adapt a module: a string is a pattern for the whole name, a list holds ends of names."""
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)
