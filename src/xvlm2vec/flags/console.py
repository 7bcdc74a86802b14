"""What every command does before and around its work: parsers in one form, quiet libraries, one-line logs."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from xvlm2vec.common.languages import normal_code
from xvlm2vec.common.renamed import warn_renamed

WIDTH = 100


def set_up(quiet_libraries: bool = True) -> None:
    """Shows this package's logs as plain lines and keeps the libraries' own bars and notices away."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("xvlm2vec").setLevel(logging.INFO)
    logging.captureWarnings(True)
    if quiet_libraries:
        import datasets
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        datasets.disable_progress_bars()
        logging.getLogger("py.warnings").setLevel(logging.ERROR)


def parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """An argument parser in the form of all commands."""
    return argparse.ArgumentParser(prog=f"xvlm2vec {command}", allow_abbrev=False, **texts(description, example))


def texts(description: str, example: str) -> dict[str, Any]:
    """Description, example and formatter of a parser; empty lines in the description part its paragraphs."""
    paragraphs = [textwrap.fill(" ".join(part.split()), WIDTH) for part in description.split("\n\n")]
    return {
        "description": "\n\n".join(paragraphs),
        "epilog": "example:\n" + textwrap.indent(example, "  "),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def show(text: str) -> None:
    """Writes what a command was asked for to standard output; logs and bars go to standard error."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def names(text: str) -> tuple[str, ...]:
    """`"de,fr"` as a tuple: the type of flags that take a list."""
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise argparse.ArgumentTypeError("expected names with commas between them, such as de,fr")
    return parts


def language_codes(text: str) -> tuple[str, ...]:
    """`"de,pt_br"` as codes in normal form: the type of flags that take languages."""
    try:
        return tuple(dict.fromkeys(normal_code(code) for code in names(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """A whole number above zero: the type of flags that count something."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number above zero, not {text!r}")
    return int(text)


class _OldName(argparse.Action):
    """Stores a value under the flag's new name, and says what that is."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        warn_renamed(str(option), f"--{self.dest.replace('_', '-')}", stacklevel=3)
        setattr(namespace, self.dest, values)


def add_old_name(parser: argparse.ArgumentParser, old: str, new: str, **settings: Any) -> None:
    """Lets a parser take a flag that stores one value by its old name, too; `--help` does not show it."""
    dest = new.lstrip("-").replace("-", "_")
    parser.add_argument(old, dest=dest, action=_OldName, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **settings)


def with_help(arguments: Sequence[str]) -> list[str]:
    """The arguments, or `--help` where there are none."""
    return list(arguments) or ["--help"]


def add_encoder_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what every command that embeds with a finished model takes."""
    parser.add_argument("--dim", type=positive, metavar="N", help="cut vectors to N values")
    parser.add_argument("--max-tokens", type=positive, default=16_384, metavar="N", help="of one forward pass "
                        "of an XVLM2VecModel (default 16384)")  # fmt: skip
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="rows of one forward pass "
                        "of another model (default 32)")  # fmt: skip
    parser.add_argument("--trust-remote-code", action="store_true", help="run code from another model's repository")
