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
    "teacher_store", "image_cache_gb",
}  # fmt: skip
PRECISION = {"bf16", "fp16", "use_cpu"}
# Where they are not given, the command chooses: given with the value of the default they still change a run.
AUTOMATIC = PRECISION | {"teacher", "eval_strategy"}
SHOWN = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "learning_rate",
    "muon_learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm",
    "activation_checkpointing", "bf16", "use_cpu", "eval_steps", "save_steps", "save_total_limit", "logging_steps",
    "report_to", "seed",
)  # fmt: skip
OF_ADAMW = ("optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon")
BY_COMMAND = "the command makes this folder below --output"


@dataclasses.dataclass(frozen=True)
class TrainingForm:
    """What the parser of a training command needs.

    Attributes:
        command: Its name.
        description: What it does.
        example: One call.
        own: Dataclass with the command's own flags.
        settings: Dataclass with the settings of the training.
        shown: Settings that `--help` explains beside `SHOWN`.
        see: Where the others are explained.
        refused: Settings that would have no effect, with the reason.
        renamed: Brings old names of settings to those of today.
    """

    command: str
    description: str
    example: str
    own: type
    settings: type
    shown: Collection[str]
    see: str
    refused: Mapping[str, str]
    renamed: Callable[[Mapping[str, Any]], dict[str, Any]] = dict


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a command line and its YAML file say.

    Attributes:
        own: The command's own flags.
        adapter: Flags of the adapter.
        settings: Settings of the training that were given.
        given: All flags that were written down, also those with the value of their default.
        defaults: Of all flags.
    """

    own: Any
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
        if self.own.eval_data and "eval_strategy" not in self.given:
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
        given = form.renamed(parser.parse_args_and_config(words))
    except yaml.YAMLError as error:
        parser.error(f"the file of --config is no valid YAML: {error}")
    except (ValueError, OSError, TypeError) as error:
        parser.error(str(error))
    for name in given.keys() & form.refused.keys():
        parser.error(f"--{name.replace('_', '-')}: {form.refused[name]}")
    if given.get("muon_learning_rate") is not None and (strays := [name for name in OF_ADAMW if name in given]):
        parser.error(f"--{strays[0].replace('_', '-')} has no effect: --muon-learning-rate brings its own AdamW")
    if not given.get("eval_data") and (strays := [name for name in given if name.startswith("eval_")]):
        parser.error(f"--{strays[0].replace('_', '-')} has no effect without --eval-data")
    settings = {name: value for name, value in given.items() if name in _names(form.settings)}
    own, adapter = (kind(**{name: given[name] for name in _names(kind) if name in given})
                    for kind in (form.own, AdapterFlags))  # fmt: skip
    return Parsed(own, adapter, settings, given, parser.defaults)


class _Parser(TrlParser):
    """Takes both spellings of a flag, shows the one with hyphens, and returns only what was given.

    Attributes:
        defaults: The value of each flag that is not given.
    """

    def __init__(self, form: TrainingForm) -> None:
        self.defaults: dict[str, Any] = {}
        self._flags: dict[str, argparse.Action] = {}
        self._shown = {*form.shown, *SHOWN, *_names(form.own), *_names(AdapterFlags), "config", "help"}
        required = [item.name for item in dataclasses.fields(form.own) if item.default is dataclasses.MISSING]
        usage = " ".join(f"--{name} {name.upper()}" for name in required)
        texts = console.texts(form.description, form.example)
        texts["epilog"] = f"More flags: {form.see}\n\n{texts['epilog']}"
        kinds: Any = [form.own, AdapterFlags, form.settings]
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
        if default is not argparse.SUPPRESS:
            self.defaults.setdefault(action.dest, default)
            self._flags.setdefault(action.dest, action)
        elif action.required:
            self._flags[action.dest] = action
        return action

    def parse_args_into_dataclasses(self, args: Any = None, **kwargs: Any) -> Any:
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
