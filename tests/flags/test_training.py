"""Flags of the training commands: each setting arrives or is refused with a reason, in words and in YAML."""

from __future__ import annotations

import dataclasses
import warnings
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from xvlm2vec.commands import contrast, distill
from xvlm2vec.flags import training
from xvlm2vec.flags.training import parse

COMMANDS = {"contrast": contrast, "distill": distill}
# What a setting needs beside it, and values that no type tells.
BESIDE = {
    "language_temperature": ["--translations-per-row", "2"],
    "dataloader_prefetch_factor": ["--dataloader-num-workers", "1"],
    "load_best_model_at_end": ["--eval-data", "e"],
    "greater_is_better": ["--metric-for-best-model", "loss"],
    "torch_compile": ["--sharing", "off"],
    "torch_compile_backend": ["--sharing", "off"],
    "torch_compile_mode": ["--sharing", "off"],
}
VALUES = {
    "adam_beta1": "0.5", "adam_beta2": "0.5", "teacher": "copy", "sharing": "off", "debug": "underflow_overflow",
    "log_level": "info", "log_level_replica": "info", "accelerator_config": '{"split_batches": true}',
    "length_column_name": "size", "optim_args": "a=1", "ddp_backend": "gloo", "language_weight": "0.25",
    "language_temperature": "2.0", "report_to": "tensorboard", "learning_rate_mapping": '{"a": 0.5}',
    "lr_scheduler_kwargs": '{"a": 1}', "save_steps": "7", "eval_steps": "7", "logging_steps": "7",
    "dataloader_multiprocessing_context": "spawn", "torch_compile_backend": "inductor", "torch_compile_mode": "default",
    "activation_checkpointing_kwargs": '{"use_reentrant": false}',
    "gradient_checkpointing_kwargs": '{"use_reentrant": false}', "optim": "sgd",
    "loss": "self-distillation:2.0", "matryoshka_dims": "8", "translations_per_row": "2",
}  # fmt: skip


def fields_of(command: str) -> list[str]:
    return [item.name for item in dataclasses.fields(COMMANDS[command].FORM.settings) if item.init]


def arguments(command: str, words: list[str]) -> tuple[Any, Any]:
    parsed = parse(COMMANDS[command].FORM, ["--model", "m", "--data", "d", "--output", "o", *words])
    return COMMANDS[command].training_arguments(parsed, "o"), parsed


def another_value(command: str, name: str) -> str:
    """A value for the command line that is not the default."""
    if name in VALUES:
        return VALUES[name]
    settings = COMMANDS[command].FORM.settings
    item, hint = settings.__dataclass_fields__[name], get_type_hints(settings)[name]
    kinds = {hint, *get_args(hint)}
    default = item.default if item.default is not dataclasses.MISSING else item.default_factory()
    choices = [getattr(choice, "value", choice) for choice in item.metadata.get("choices", ())]
    choices += [choice.value for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for choice in kind]
    if choices:
        return next(choice for choice in choices if choice not in {"no", getattr(default, "value", default)})
    if bool in kinds:
        return str(not default).lower()
    if int in kinds or float in kinds:
        return str((default or 0) + 3)
    return "word"


@pytest.mark.parametrize(("command", "name"), [(key, name) for key in COMMANDS for name in fields_of(key)])
def test_a_setting_arrives_or_is_refused(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    value = another_value(command, name)
    words = [f"--{name.replace('_', '-')}={value}", *(BESIDE.get(name, []) if command == "distill" else [])]
    if name in {"load_best_model_at_end", "dataloader_prefetch_factor", "greater_is_better"} and command == "contrast":
        words += BESIDE[name]
    if name.startswith("eval_"):
        words += ["--eval-data", "e"]
    if name != "use_cpu":
        words += ["--use-cpu"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            args, parsed = arguments(command, words)
        except (SystemExit, ValueError, ImportError, RuntimeError, NotImplementedError) as error:
            told = capsys.readouterr().err.partition("error: ")[2] or str(error)
        else:
            told = ""
    if told:
        assert len(told.split()) > 3
        return
    if name not in parsed.given:  # an old name
        (name,) = COMMANDS[command].FORM.renamed({name: False if name == "shuffle" else value})
        value = str(parsed.given[name])
    arrived = getattr(args, name)
    arrived = getattr(arrived, "value", arrived)
    if isinstance(arrived, list) and len(arrived) == 1:
        arrived = getattr(arrived[0], "value", arrived[0])
    if isinstance(arrived, dict) or dataclasses.is_dataclass(arrived):
        assert value.strip("{}").split(":")[0].strip('"') in str(arrived)
    else:
        assert str(arrived).lower() in {value.lower(), str(parsed.given[name]).lower()}


def yaml_file(path: Path, **values: Any) -> list[str]:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return ["--config", str(path)]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("in_yaml", [False, True], ids=["flags", "yaml"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"bf16": True, "eval_strategy": "steps"}),
        ({"bf16": False}, {"bf16": False, "eval_strategy": "steps"}),
        ({"fp16": False}, {"bf16": False}),
        ({"use_cpu": False}, {"bf16": False, "use_cpu": False}),
        ({"eval_strategy": "no"}, {"bf16": True, "eval_strategy": "no"}),
    ],
)
def test_what_was_written_down_is_not_overruled(
    command: str,
    in_yaml: bool,
    given: dict[str, Any],
    expected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "training_precision", lambda: {"bf16": True, "use_cpu": True})
    if in_yaml:
        values = {name: False if value == "no" else value for name, value in given.items()}  # YAML reads `no` so
        words = yaml_file(tmp_path / "run.yaml", **values, eval_data="e")
    else:
        words = ["--eval-data", "e", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]
    args, parsed = arguments(command, words)
    assert {name: getattr(getattr(args, name), "value", getattr(args, name)) for name in expected} == expected
    assert parsed.given.keys() >= given.keys()
    other, _ = arguments(command, ["--eval-data", "e", "--learning-rate", "1"])
    assert other.bf16


def test_a_flag_wins_over_the_file_also_with_its_default(tmp_path: Path) -> None:
    words = yaml_file(tmp_path / "run.yaml", bf16=True, num_train_epochs=2, learning_rate="1e-3", seed=7)
    args, parsed = arguments("distill", [*words, "--bf16", "false", "--num_train_epochs=3", "--seed", "42"])
    assert (args.bf16, args.num_train_epochs, args.learning_rate, args.seed) == (False, 3.0, 1e-3, 42)
    assert parsed.identity("output") == {"model": "m", "data": "d", "bf16": False, "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "float64"}, "argument dtype: 'float64' is none of auto, float32, bfloat16"),
        ({"learning_rate": "fast"}, "argument learning_rate: 'fast' is not valid"),
        ({"per_device_train_batch_size": 3.5}, "argument per_device_train_batch_size: 3.5 is not valid"),
        ({"no_such_key": 1}, "no_such_key"),
        ({"output_dir": "x"}, "--output-dir: the command makes its folders below --output"),
        ({"eval_steps": 5}, "--eval-steps: it has no effect without --eval-data"),
        ({"muon_learning_rate": 1e-3, "adam_beta2": 0.999}, "--adam-beta2: --muon-learning-rate brings"),
    ],
)
def test_values_of_a_file_are_checked_as_flags_are(
    values: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        arguments("distill", yaml_file(tmp_path / "run.yaml", **values))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_may_hold_lists_mappings_and_what_changes_nothing(tmp_path: Path) -> None:
    values = {"report_to": ["tensorboard"], "lr_scheduler_kwargs": {"min_lr": 0.1}, "eval_steps": None,
              "remove_unused_columns": False, "logging_steps": 5}  # fmt: skip
    args, _ = arguments("distill", [*yaml_file(tmp_path / "run.yaml", **values), "--eval-data", "e"])
    assert (args.report_to, args.lr_scheduler_kwargs, args.logging_steps) == (["tensorboard"], {"min_lr": 0.1}, 5)


def test_keep_best_has_its_metric() -> None:
    _, parsed = arguments("distill", ["--eval-data", "e", "--keep-best", "--metric-for-best-model", "loss"])
    with pytest.raises(ValueError, match="leave metric_for_best_model out"):
        distill._check(parsed)


def test_old_names_of_contrast_are_read_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="is deprecated; use"):
        args, parsed = arguments("contrast", ["--batch_size", "8", "--epochs", "2", "--no-shuffle"])
    assert (args.per_device_train_batch_size, args.num_train_epochs) == (8, 2)
    assert parsed.identity("output", "model", "data") == {
        "per_device_train_batch_size": 8, "num_train_epochs": 2.0, "train_sampling_strategy": "sequential",
    }  # fmt: skip
