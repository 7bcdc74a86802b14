"""What the settings of a LoRA adapter mean: which are computed, and which change no vector.

Any other setting is refused by its name where it is used; a contract test lists those and fails when PEFT adds one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .loading import CheckpointError

OWN_SETTINGS = "xvlm2vec"
"""Where an adapter's configuration holds what PEFT has no word for: see `language_adapters`."""
COMPUTED = {
    OWN_SETTINGS,
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_dora",
    "use_rslora",
}
"""Settings that decide what is merged."""
WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",  # of a start, as the next three: `init_lora_weights` says whether it counts
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "ensure_weight_tying",  # what is tied lands key by key, or is an error
    "fan_in_fan_out",  # PEFT takes it back for linear layers, and there are no others here
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
"""Settings that change no vector of a trained adapter."""

STARTS_BESIDE = ("gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights`, beside true and false, whose start leaves the weights of the base alone."""
STARTS_FROM_BASE = ("pissa", "olora")
"""Values whose start takes a part out of the base that can be computed again from the base alone."""
_REMEDY_OF_START = (
    "Its start took a part out of the weights of its base that cannot be computed again from the base. Where it was "
    "trained, save it with `path_initial_model_for_weight_conversion` of PEFT's `save_pretrained`, or merge it there "
    "(`merge_and_unload`) and load the result."
)


@dataclass(frozen=True)
class LoraSettings:
    """The content of an `adapter_config.json`, read as PEFT reads it.

    Modules are named by all the names that they may have had in training, the first that fits counts.
    """

    config: Mapping[str, Any]

    def check(self, source: str) -> None:
        """Raises a `CheckpointError` if an adapter, called `source` there, cannot be merged as PEFT would."""
        unknown = self.config.keys() - COMPUTED - WITHOUT_EFFECT
        used = [f"{key}={self.config[key]!r}" for key in sorted(unknown) if self.config[key]]
        used += [f"bias={self.config['bias']!r}"] * (self.config.get("bias", "none") != "none")
        kinds = ("LORA", "ACTIVATED_LORA") if self.is_activated else ("LORA",)
        used += [f"peft_type={self.config.get('peft_type')!r}"] * (self.config.get("peft_type", "LORA") not in kinds)
        if used:
            raise CheckpointError(
                f"The adapter {source!r} uses {', '.join(used)}, which is not supported. Merge it with PEFT into its "
                "base and load the result."
            )
        lacking = [key for key in ("r", "lora_alpha", "target_modules") if not self.config.get(key)]
        if lacking:
            raise CheckpointError(f"adapter_config.json of {source!r} lacks {', '.join(lacking)}.")
        start = self.config.get("init_lora_weights", True)
        if isinstance(start, str) and self.start not in (*STARTS_BESIDE, *STARTS_FROM_BASE):
            raise CheckpointError(f"The adapter {source!r} has init_lora_weights={start!r}. {_REMEDY_OF_START}")

    @property
    def start(self) -> str:
        """How the matrices were initialised, in lower case; empty for the usual way."""
        start = self.config.get("init_lora_weights", True)
        return start.lower() if isinstance(start, str) else ""

    @property
    def is_activated(self) -> bool:
        """Whether the adapter acts on texts in its languages only, and so is never merged."""
        return bool((self.config.get(OWN_SETTINGS) or {}).get("activated"))

    @property
    def parts(self) -> tuple[str, ...]:
        """What is stored of each module."""
        return ("lora_A", "lora_B", *(["lora_magnitude_vector"] if self.config.get("use_dora") else []))

    def rank(self, names: Iterable[str]) -> int:
        """The rank of a module."""
        return int(_by_pattern(self.config.get("rank_pattern"), names, self.config["r"]))

    def scale(self, names: Sequence[str]) -> float:
        """The factor of the low-rank product of a module."""
        rank = self.rank(names)
        alpha = _by_pattern(self.config.get("alpha_pattern"), names, self.config["lora_alpha"])
        return float(alpha / (rank**0.5 if self.config.get("use_rslora") else rank))

    def is_target(self, names: Iterable[str], is_linear: bool) -> bool:
        """Whether PEFT would adapt a module with one of these names; `"all-linear"` means all linear layers."""
        targets = self.config.get("target_modules") or ()
        return any(
            (is_linear if targets == "all-linear" else _matches(name, targets) and self._is_chosen_layer(name))
            and not _matches(name, self.config.get("exclude_modules") or ())
            and not any(re.match(rf"(^|.*\.){kept}($|\..*)", name) for kept in self.saved_whole)
            for name in names
        )

    @cached_property
    def saved_whole(self) -> tuple[str, ...]:
        """`modules_to_save`: ends of names of modules that were trained and saved whole."""
        return tuple(self.config.get("modules_to_save") or ())

    def is_saved_whole(self, names: Iterable[str]) -> bool:
        """Whether PEFT saves a module whole: the ends of names count, in the middle of a word, too."""
        return any(name.endswith(self.saved_whole) for name in names)

    def _is_chosen_layer(self, name: str) -> bool:
        """Whether a module lies in one of `layers_to_transform`, if that is set."""
        layers = self.config.get("layers_to_transform")
        if layers is None or layers == []:
            return True
        patterns = self.config.get("layers_pattern") or [r"[^.]*"]
        front = r"(?:^|.*?\.)" if self.config.get("layers_pattern") else r".*?\."
        patterns = [patterns] if isinstance(patterns, str) else patterns
        matches = (re.match(rf"{front}{pattern}\.(\d+)\.", name) for pattern in patterns)
        index = next((int(match[1]) for match in matches if match), None)
        return index in ([layers] if isinstance(layers, int) else layers)


def _by_pattern(patterns: Mapping[str, Any] | None, names: Iterable[str], default: Any) -> Any:
    """The value of the first pattern that fits the end of a name."""
    names = list(names)
    for pattern, value in (patterns or {}).items():
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
            return value
    return default


def _matches(name: str, targets: str | Iterable[str]) -> bool:
    """Whether a name is meant: a string is a pattern for the whole name, a list holds ends of names."""
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)
