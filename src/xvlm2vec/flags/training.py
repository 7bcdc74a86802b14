"""Flags of the training commands, read from dataclasses and YAML files alike by trl's parser."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import yaml
from trl import TrlParser

from xvlm2vec.trainer.precision import training_precision

from . import console
from .adapters import AdapterFlags

# They change where and how a run reports, not what it computes: a resumed run may have others.
FREE = {
    "save_steps", "save_total_limit", "logging_steps", "logging_first_step", "report_to", "run_name", "disable_tqdm",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "max_tokens_per_forward",
    "mini_batch_size", "use_cpu", "log_level", "push_to_hub", "hub_token", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "activation_checkpointing", "activation_checkpointing_kwargs",
    "teacher_store", "image_cache_gb", "keep_prefix",
}  # fmt: skip
PRECISION = {"bf16", "fp16", "use_cpu"}
# Where they are not given, the command chooses: given with the value of the default they still change a run.
AUTOMATIC = PRECISION | {"teacher", "eval_strategy"}
SHOWN = (
    "matryoshka_dims", "per_device_train_batch_size",
    "gradient_accumulation_steps", "num_train_epochs", "max_steps", "learning_rate",
    "muon_learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm",
    "activation_checkpointing", "bf16", "use_cpu", "eval_steps", "save_steps", "save_total_limit", "logging_steps",
    "report_to", "seed",
)  # fmt: skip
OF_ADAMW = (
    "optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon", "learning_rate_mapping",
)  # fmt: skip
NO_SCRIPT = "the command trains; --eval-data is measured on the way and at the end"
NO_LABELS = "pairs have no labels"
# Settings of `transformers.TrainingArguments` that neither stage heeds, and why.
REFUSED = {
    "output_dir": "the command makes its folders below --output",
    "remove_unused_columns": "rows keep all columns: texts and images are read when a batch is made",
    "resume_from_checkpoint": "the same command goes on from the newest complete checkpoint by itself",
    "local_rank": "accelerate launch tells each process its number",
    "do_train": NO_SCRIPT,
    "do_eval": NO_SCRIPT,
    "do_predict": NO_SCRIPT,
    "label_names": NO_LABELS,
    "label_smoothing_factor": NO_LABELS,
    "include_for_metrics": NO_LABELS,
    "average_tokens_across_devices": "losses are means over rows or pairs, not over tokens",
    "include_num_input_tokens_seen": "batches hold several inputs; distill logs tokens_per_second",
    "use_liger_kernel": "Liger has no kernels for embedders of this package",
    "liger_kernel_config": "Liger has no kernels for embedders of this package",
}
# What a refused setting is in truth, where that is not its default.
FIXED = {"remove_unused_columns": False, "prediction_loss_only": True, "ddp_broadcast_buffers": False}


@dataclasses.dataclass(frozen=True)
class TrainingForm:
    """What the parser of a training command needs.

    Attributes:
        command: Its name.
        description: What it does.
        example: One call.
        flags: Dataclass with the command's own flags.
        settings: Dataclass with the settings of the training.
        shown: Settings that `--help` explains beside `SHOWN`.
        see: Where the others are explained.
        refused: Settings that would have no effect beside those of `REFUSED`, with the reason.
        renamed: Brings old names of settings to those of today.
    """

    command: str
    description: str
    example: str
    flags: type
    settings: type
    shown: Collection[str]
    see: str
    refused: Mapping[str, str]
    renamed: Callable[[Mapping[str, Any]], dict[str, Any]] = dict


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a command line and its YAML file say.

    Attributes:
        flags: The command's own flags.
        adapter: Flags of the adapter.
        settings: Settings of the training that were given.
        given: All flags that were written down, also those with the value of their default.
        defaults: Of all flags.
    """

    flags: Any
    adapter: AdapterFlags
    settings: dict[str, Any]
    given: dict[str, Any]
    defaults: dict[str, Any]

    def identity(self, *but: str) -> dict[str, Any]:
        """What decides the outcome of the run, without names of folders and reports."""
        return {
            name: value
            for name, value in self.given.items()
            if name not in {*FREE, *but} and (name in AUTOMATIC or value != self.defaults.get(name, ...))
        }

    def automatic(self) -> dict[str, Any]:
        """Settings that follow from the machine and from held-out rows where they were not given."""
        chosen = {} if PRECISION & self.given.keys() else training_precision()
        if self.flags.eval_data and "eval_strategy" not in self.given:
            steps = self.given.get("eval_steps") or self.given.get("save_steps") or self.defaults["save_steps"]
            chosen |= {"eval_strategy": "steps", "eval_steps": steps}
        return chosen


def parse(form: TrainingForm, arguments: Sequence[str]) -> Parsed:
    """Reads flags and, with `--config`, a YAML file; flags win. Wrong usage ends with exit code 2."""
    parser = _Parser(form)
    words = [word for argument in console.with_help(arguments) for word in _words(argument)]
    if words[-1] == "--config":
        parser.error("--config needs a file")
    try:
        written: Any = parser.parse_args_and_config(words)
        given = form.renamed(written)
    except yaml.YAMLError as error:
        parser.error(f"the file of --config is no valid YAML: {error}")
    except (ValueError, OSError, TypeError) as error:
        parser.error(str(error))
    if "config" in given:
        parser.error("--config is given once, and not in a file")
    problem = _problem({**REFUSED, **form.refused}, given, parser.defaults)
    if problem:
        parser.error(problem)
    if given.get("adapter") == "lora":  # one and the same run
        given = {name: value for name, value in given.items() if name != "adapter"} | {"lora": True}
    values = {kind: {name: given[name] for name in _names(kind) if name in given}
              for kind in (form.flags, AdapterFlags, form.settings)}  # fmt: skip
    flags, adapter = form.flags(**values[form.flags]), AdapterFlags(**values[AdapterFlags])
    return Parsed(flags, adapter, values[form.settings], given, parser.defaults)


def _problem(refused: Mapping[str, str], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Names the first setting that would have no effect, and why; empty where all have one."""
    reasons = {
        name: refused[name] for name in refused if name in given and given[name] != FIXED.get(name, defaults.get(name))
    }
    if given.get("muon_learning_rate") is not None:
        reasons |= {name: "--muon-learning-rate brings an AdamW of its own" for name in OF_ADAMW if name in given}
    if not given.get("eval_data"):
        names = (name for name in given if name.startswith("eval_") and name != "eval_data")
        reasons |= {name: "it has no effect without --eval-data" for name in names if given[name] != "no"}
    return next((f"--{name.replace('_', '-')}: {reason}" for name, reason in reasons.items()), "")


class _Parser(TrlParser):
    """Takes both spellings of a flag, shows the one with hyphens, and returns only what was given.

    Attributes:
        defaults: The value of each flag that is not given.
    """

    def __init__(self, form: TrainingForm) -> None:
        self.defaults: dict[str, Any] = {}
        self._flags: dict[str, argparse.Action] = {}
        self._shown = {*form.shown, *SHOWN, *_names(form.flags), *_names(AdapterFlags), "config", "help"}
        required = [item.name for item in dataclasses.fields(form.flags) if item.default is dataclasses.MISSING]
        usage = " ".join(f"--{name} {name.upper()}" for name in required)
        texts = console.texts(form.description, form.example)
        texts["epilog"] = f"More flags: {form.see}\n\n{texts['epilog']}"
        kinds: Any = [form.flags, AdapterFlags, form.settings]
        super().__init__(
            kinds,
            prog=f"xvlm2vec {form.command}",
            usage=f"xvlm2vec {form.command} {usage} [flags]",
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            **texts,
        )
        self.add_argument("--config", metavar="FILE", help="YAML file with any of these flags; those given here win")

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Keeps the default apart and tells it in the help."""
        name = names[-1].removeprefix("--").replace("-", "_")
        hidden = settings.get("dest", name) not in self._shown
        text, default = str(settings.get("help", "")), settings.pop("default", argparse.SUPPRESS)
        if name in PRECISION:
            text += " (default: chosen for the machine)"
        elif default not in (None, argparse.SUPPRESS) and "dest" not in settings:
            text += f" (default: {getattr(default, 'value', default)})".replace("%", "%%")
        if not {"action", "choices"} & settings.keys():
            settings.setdefault("metavar", "VALUE")
        settings["help"] = argparse.SUPPRESS if hidden else text
        action = super().add_argument(*(spelling for spelling in names if "_" not in spelling), **settings)
        if settings.get("action") != "help":
            self._flags.setdefault(action.dest, action)
            if not action.required:
                self.defaults.setdefault(action.dest, None if default is argparse.SUPPRESS else default)
        return action

    def parse_args_into_dataclasses(  # type: ignore[override]
        self, args: Any = None, **kwargs: Any
    ) -> Any:
        """The values that were given, by name: what is made of them depends on the command."""
        return vars(self.parse_args(args))

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        """Reads the values of a YAML file as if they stood behind flags.

        Raises:
            ValueError: A value is none that the flag takes.
        """
        flags = self._flags
        values = {name: _value(flags[name], value) if name in flags else value for name, value in kwargs.items()}
        return super().set_defaults_with_config(**values)


def _value(flag: argparse.Action, value: Any) -> Any:
    """A value of a YAML file as the type of a flag has it: `no` may be meant as a word, and `1` as a fraction."""
    if value is None or isinstance(value, dict):
        return value
    choices = [str(choice) for choice in flag.choices or ()]
    kind: Callable[[str], Any] = flag.type if callable(flag.type) else str
    words = value if isinstance(value, list) else ["no" if value is False and "no" in choices else str(value)]
    try:
        values = [kind(str(word)) for word in words]
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"argument {flag.dest}: {value!r} is not valid: {error}") from error
    if choices and (strange := [word for word in words if str(word) not in choices]):
        raise ValueError(f"argument {flag.dest}: {strange[0]!r} is none of {', '.join(choices)}")
    return values if isinstance(value, list) or flag.nargs == "+" else values[0]


def _words(argument: str) -> list[str]:
    """An argument with its flag in hyphens, and `--config=file` as the two words that trl looks for."""
    flag, sign, value = argument.partition("=")
    if not flag.startswith("--"):
        return [argument]
    flag = flag.replace("_", "-")
    return [flag, value] if sign and flag == "--config" else [f"{flag}{sign}{value}"]


def _names(kind: type) -> list[str]:
    return [item.name for item in dataclasses.fields(kind) if item.init]
