"""LoRA and DoRA adapters as PEFT stores them: every key put on its module, and merged into the weights below.

Adapters of published checkpoints were trained on the model classes of their time. Their module names are turned into
those of today's backbones, and every key must land on a module and every module that the adapter targets must be hit:
an adapter that is applied in part, or not at all, gives plausible vectors that are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from .loading import CheckpointError
from .lora_settings import LoraSettings
from .published_backbones import TODAY, PublishedBackbone, published_backbone

_PREFIX = "base_model.model."
_KEY = re.compile(
    r"(?P<module>.+)\."
    r"(?:(?P<matrix>lora_[AB])(?:\.default)?\.weight|(?P<vector>lora_magnitude_vector)(?:\.default)?(?:\.weight)?)"
)


@dataclass(frozen=True)
class LoraWeights:
    """The adapter of one linear module.

    Args:
        down: `(r, in)`, `lora_A`.
        up: `(out, r)`, `lora_B`.
        scale: Factor of their product.
        magnitude: `(out,)` for DoRA.
        start: `init_lora_weights` where that took a part out of the weight below.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None
    start: str = ""

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight `(out, in)` with the adapter in it, computed in float32, in the weight's dtype and place.

        LoRA adds `scale * up @ down`. DoRA (arXiv 2402.09353) then gives each output's row the stored length.
        """
        down, up = (part.to(weight.device, torch.float32) for part in (self.down, self.up))
        changed = self._below(weight).float() + self.scale * (up @ down)
        if self.magnitude is not None:
            lengths = self.magnitude.to(weight.device, torch.float32)
            changed = changed * (lengths / changed.norm(dim=1))[:, None]
        return changed.to(weight.dtype)

    def _below(self, weight: torch.Tensor) -> torch.Tensor:
        """What the adapter was trained on: PEFT takes the same part out of a weight each time that it loads one.

        PiSSA (arXiv 2404.02948) takes the largest singular values, OLoRA (arXiv 2406.01775) the first columns of a QR
        decomposition, times the scale. Rounded to the weight's dtype, as PEFT stores it.
        """
        rank, full = len(self.down), weight.float()
        if self.start == "pissa":
            left, values, right = torch.linalg.svd(full, full_matrices=False)
            return (full - (left[:, :rank] * values[:rank]) @ right[:rank]).to(weight.dtype)
        if self.start == "olora":
            columns, rows = torch.linalg.qr(full)
            return (full - self.scale * (columns[:, :rank] @ rows[:rank])).to(weight.dtype)
        return weight


@dataclass(frozen=True)
class Adapter:
    """A LoRA or DoRA adapter as it is stored.

    Args:
        source: The adapter's name in errors.
        base: Folder or Hub id of the model below it.
        base_revision: The base's revision on the Hub.
        config: The content of `adapter_config.json`.
        weights: The stored tensors by key.
    """

    source: str
    base: str
    base_revision: str | None
    config: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]

    @cached_property
    def settings(self) -> LoraSettings:
        """What its configuration says of its modules."""
        return LoraSettings(self.config)

    @torch.no_grad()
    def merge_into(self, model: nn.Module) -> None:
        """Changes the model's weights to those with the adapter; nothing is changed if the adapter does not fit.

        Raises:
            CheckpointError: As for `place`, or the adapter acts on texts in its languages only.
        """
        if self.settings.is_activated:
            raise CheckpointError(
                f"The adapter {self.source!r} acts on texts in its languages only; merged into its base it would move "
                "every vector. Load it with XVLM2VecModel.from_pretrained, which keeps it beside its base."
            )
        placed, whole = self.place(model)
        for name, lora in placed.items():
            weight: Any = model.get_submodule(name).weight
            weight.copy_(lora.merged(weight))
        state = model.state_dict()
        for name, value in whole.items():
            state[name].copy_(value)

    def state_dict_for(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The adapter as PEFT stores one of the model itself, for `peft.set_peft_model_state_dict`.

        Raises:
            CheckpointError: As for `place`.
        """
        placed, whole = self.place(model)
        state = {f"{_PREFIX}{name}": value for name, value in whole.items()}
        for name, lora in placed.items():
            prefix = f"{_PREFIX}{name}"
            state |= {f"{prefix}.lora_A.weight": lora.down, f"{prefix}.lora_B.weight": lora.up}
            if lora.magnitude is not None:
                state[f"{prefix}.lora_magnitude_vector"] = lora.magnitude
        return state

    def place(self, model: nn.Module) -> tuple[dict[str, LoraWeights], dict[str, torch.Tensor]]:
        """Low-rank weights by module, and weights that were saved whole by their names; every key accounted for.

        Args:
            model: A base model of a published architecture, or an `XVLM2VecModel`; without PEFT wrappers.

        Raises:
            CheckpointError: A key lands nowhere, a targeted module gets nothing or a part of what it needs, or shapes
                differ. The message lists them.
        """
        model_type = getattr(model.config, "model_type", "")
        layout = TODAY if model_type == "xvlm2vec" else published_backbone(model_type, self.base)
        modules = dict(model.named_modules())
        faults: dict[str, list[str]] = {"land on no module": [], "are of another shape": [], "are missing": []}
        parts: dict[str, dict[str, torch.Tensor]] = {}
        whole = self._whole(layout, modules, faults)
        for key in self.weights.keys() - whole.keys():
            value = self.weights[key]
            module, part = self._landing(key, layout, modules)
            if module is None:
                faults["land on no module"].append(key)
                continue
            shape = self._shape(modules[module], part, layout.old_names(module))
            if list(value.shape) != shape:
                faults["are of another shape"].append(f"{key} {list(value.shape)} for {shape}")
            parts.setdefault(module, {})[part] = value
        faults["are missing"] += self._absent(layout, modules, parts)
        self._raise_for(faults)
        placed = {module: self._weights_of(stored, layout.old_names(module)) for module, stored in parts.items()}
        return placed, {name: self.weights[key] for key, name in whole.items()}

    def _weights_of(self, parts: Mapping[str, torch.Tensor], names: list[str]) -> LoraWeights:
        settings = self.settings
        magnitude = parts.get("lora_magnitude_vector")
        return LoraWeights(parts["lora_A"], parts["lora_B"], settings.scale(names), magnitude, settings.start)

    def _absent(
        self, layout: PublishedBackbone, modules: Mapping[str, nn.Module], parts: Mapping[str, Mapping[str, Any]]
    ) -> list[str]:
        """What modules that the adapter targets, or that it has a part of, lack."""
        targets = {
            name
            for name, module in modules.items()
            if name and self.settings.is_target(layout.old_names(name), isinstance(module, nn.Linear))
        }
        return [
            f"{module}.{part}"
            for module in sorted({*targets, *parts})
            for part in self.settings.parts
            if part not in parts.get(module, {})
        ]

    def _whole(
        self, layout: PublishedBackbone, modules: Mapping[str, nn.Module], faults: Mapping[str, list[str]]
    ) -> dict[str, str]:
        """Keys of modules that were trained and saved whole (`modules_to_save`), with what they are in the model."""
        saved = [name for name in modules if name and self.settings.is_saved_whole(layout.old_names(name))]
        wanted = {
            f"{name}.{part}": value
            for name in saved
            for part, value in modules[name].state_dict().items()
            if not part.startswith("modules_to_save.")  # of an adapter that lies there already
        }
        places: dict[str, str] = {}
        for key, value in self.weights.items():
            name = next((name for name in layout.new_names(key.removeprefix(_PREFIX)) if name in wanted), None)
            if name is None:
                continue
            places[key] = name
            if value.shape != wanted[name].shape:
                shapes = f"{list(value.shape)} for {list(wanted[name].shape)}"
                faults["are of another shape"].append(f"{key} {shapes}")
        faults["are missing"].extend(sorted(wanted.keys() - places.values()))
        names = [old for name in saved for old in layout.old_names(name)]
        idle = [end for end in self.settings.saved_whole if not any(name.endswith(end) for name in names)]
        faults["are missing"].extend(f"{end} (of modules_to_save)" for end in idle)
        return places

    def _landing(self, key: str, layout: PublishedBackbone, modules: Mapping[str, nn.Module]) -> tuple[str | None, str]:
        """The linear module that a key belongs to, and the part of its adapter that it is."""
        match = _KEY.fullmatch(key.removeprefix(_PREFIX))
        if match is None or (match["vector"] and not self.config.get("use_dora")):
            return None, ""
        names = {name for name in layout.new_names(match["module"]) if isinstance(modules.get(name), nn.Linear)}
        return (names.pop() if len(names) == 1 else None), match["matrix"] or match["vector"]

    def _shape(self, module: nn.Module, part: str, names: list[str]) -> list[int]:
        weight: Any = module.weight
        out_size, in_size = weight.shape
        rank = self.settings.rank(names)
        return {"lora_A": [rank, in_size], "lora_B": [out_size, rank]}.get(part, [out_size])

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
