"""Flags of the training commands, read from dataclasses and YAML files alike by trl's parser."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from trl import TrlParser

from . import console

# They change where and how a run reports, not what it computes: a resumed run may have others.
FREE = {
    "save_steps", "save_total_limit", "logging_steps", "logging_first_step", "report_to", "run_name", "disable_tqdm",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "max_tokens_per_forward",
    "mini_batch_size", "use_cpu", "log_level", "push_to_hub", "hub_token", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "activation_checkpointing", "activation_checkpointing_kwargs",
    "teacher_store", "image_cache_gb",
}  # fmt: skip
_UNKNOWN = "Some specified arguments are not used by the HfArgumentParser: "


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of description and example, and tells the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or action.option_strings[0].startswith("--no-")
        return action.help if says_nothing else super()._get_help_string(action)


@dataclasses.dataclass(frozen=True)
class TrainingForm:
    """What the parser of a training command needs.

    Attributes:
        command: Its name.
        description: What it does.
        example: One call.
        own: Dataclass with the command's own flags.
        settings: Dataclass with the settings of the training.
        left_out: Settings that the command sets itself.
        shown: Settings that `--help` explains; all if it is empty.
        see: Where the others are explained.
    """

    command: str
    description: str
    example: str
    own: type
    settings: type
    left_out: Collection[str]
    shown: Collection[str] = ()
    see: str = ""


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a command line and its YAML file say.

    Attributes:
        own: The command's own flags.
        settings: All settings of the training by name.
        given: Own flags and settings that differ from their defaults.
        named: Own flags and settings that were written down, even with the value of the default.
    """

    own: Any
    settings: dict[str, Any]
    given: dict[str, Any]
    named: frozenset[str]

    def identity(self, *but: str) -> dict[str, Any]:
        """What decides the outcome of the run: what was given, without names of folders and reports."""
        return {name: value for name, value in self.given.items() if name not in FREE and name not in but}


def parse(form: TrainingForm, arguments: Sequence[str]) -> Parsed:
    """Reads flags and, with `--config`, a YAML file; flags win. Wrong usage ends with exit code 2."""
    parser, flags = _parser(form)
    words = [word for argument in console.with_help(arguments) for word in _apart(argument)]
    try:
        own, settings = parser.parse_args_and_config(words)[:2]
    except yaml.YAMLError as error:
        parser.error(f"the file of --config is no valid YAML: {error}")
    except (ValueError, OSError, IndexError, TypeError) as error:
        parser.error(str(error).replace(_UNKNOWN, "there are no such flags: ") or "--config needs a file")
    given = {
        item.name: getattr(part, item.name)
        for part in (own, settings)
        for item in dataclasses.fields(part)
        if getattr(part, item.name) != _default(item)
    }
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(flags)}
    return Parsed(own, values, given, _named(words))


def flags_of(settings: type, left_out: Collection[str] = ()) -> type:
    """A dataclass with the same fields, types, defaults and explanations, and nothing that runs when it is made."""
    hints, explained = get_type_hints(settings), _explanations(settings)
    fields = []
    for item in dataclasses.fields(settings):
        if not item.init or item.name in left_out:
            continue
        metadata = {"help": explained.get(item.name, ""), **item.metadata}
        default: dict[str, Any] = {"metadata": metadata}
        if item.default is not dataclasses.MISSING:
            default["default"] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            default["default_factory"] = item.default_factory
        fields.append((item.name, hints[item.name], dataclasses.field(**default)))
    return dataclasses.make_dataclass(f"{settings.__name__}Flags", fields)


def _parser(form: TrainingForm) -> tuple[TrlParser, type]:
    flags = flags_of(form.settings, form.left_out)
    texts = console.texts(form.description, form.example) | {"formatter_class": _Formatter}
    required = [item for item in dataclasses.fields(form.own) if item.default is dataclasses.MISSING]
    usage = " ".join(f"--{item.name} {item.name.upper()}" for item in required)
    classes: Any = [form.own, flags]
    parser = TrlParser(
        classes,
        prog=f"xvlm2vec {form.command}",
        usage=f"xvlm2vec {form.command} {usage} [flags]",
        allow_abbrev=False,
        **texts,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these flags; those given here win")
    for action in parser._actions:  # both spellings are understood, the one with hyphens is shown
        action.option_strings = [name for name in action.option_strings if "_" not in name]
        action.metavar = action.metavar or ("VALUE" if action.option_strings and not action.choices else None)
    if form.shown:
        parser.epilog = f"More flags: {form.see}\n\n{parser.epilog}"
        known = {*form.shown, *(item.name for item in dataclasses.fields(form.own)), "config", "help"}
        for action in parser._actions:
            action.help = action.help if action.dest in known else argparse.SUPPRESS
    return parser, flags


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def _named(words: Sequence[str]) -> frozenset[str]:
    """The names of all flags among words that were parsed, and of those in the file of `--config`."""
    flags = {word.removeprefix("--").partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    if "--config" not in words:
        return frozenset(flags)
    file = yaml.safe_load(Path(words[words.index("--config") + 1]).read_text(encoding="utf-8"))
    return frozenset(flags | set(file or {}))


def _apart(argument: str) -> list[str]:
    """`--config=file` as the two words that trl looks for."""
    return ["--config", argument.removeprefix("--config=")] if argument.startswith("--config=") else [argument]


def _explanations(settings: type) -> dict[str, str]:
    """What the section `Args` of a Google docstring says of each field."""
    section = inspect.cleandoc(settings.__doc__ or "").partition("Args:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()).replace("`", "").replace("%", "%%") for name, text in entries}
