"""README, docs and the changelog name only what is there: files, links, modules, commands and flags."""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import shlex
import warnings
from pathlib import Path

import pytest

from xvlm2vec.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = ("modeling", "trainer", "corpus", "hub", "eval")
FOLDERS = (*ROOMS, "src", "docs", "tests", "benchmarks", "configs")
READ = ("read images", "read mmeb", "read tuxpaint", "read wit", "read xmmeb")
KINDS = {
    "corpus": ("csv", "jsonl", "check", "contamination", "emoji", "stats", "mix", "push", *READ),
    "cache": ("ls", "rm", "prune"),
}
OTHERS = {"--multi_gpu", "--num_processes", "--cpu", "--config_file", "--measure", "--queries"}
"""Flags of accelerate and of the scripts in benchmarks/."""


class Parsed(Exception):
    """Ends a command behind the parser of its flags."""


def unreleased() -> str:
    """What the changelog tells of the next version, by the names that things have now."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return text.partition("## [Unreleased]")[2].partition("\n## ")[0]


def page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code(text: str) -> list[str]:
    """What stands between backquotes in a line, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def blocks(text: str, languages: str) -> list[str]:
    return re.findall(rf"^```(?:{languages})\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def shown_commands(text: str) -> list[list[str]]:
    """The words behind `xvlm2vec` of each command in a block."""
    commands = []
    indented = "\n".join(re.findall(r"^    (xvlm2vec .*)", text, flags=re.MULTILINE))
    for block in [*blocks(text, "bash|sh|console|text"), indented]:
        for line in block.replace("\\\n", " ").splitlines():
            command = re.match(r"(?:\$ )?(?:[A-Z_0-9]+=\S+ )*(?:accelerate .* -m )?xvlm2vec ([a-z]+ .*)", line)
            if command:
                commands.append(shlex.split(command[1], comments=True))
    return commands


@functools.cache
def flags_of(*words: str) -> frozenset[str]:
    """The flags of a command, also those that `--help` does not show, without old names."""
    flags: set[str] = set()

    def keep(parser: argparse.ArgumentParser, *_: object) -> None:
        actions = parser._option_string_actions.items()
        flags.update(name for name, action in actions if type(action).__name__ != "_OldName")
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "format_help", keep)
        with pytest.raises(Parsed):
            main([*words, "--help"])
    return frozenset(flags)


def is_there(name: str, beside: Path) -> bool:
    """Whether a path of the docs is a file here: below the root, beside its page, or by its bare name."""
    places = [ROOT / name, beside / name, ROOT / "src" / name]
    places += [ROOT / name.removeprefix("xvlm2vec/")] if name.startswith("xvlm2vec/") else []
    if any(place.exists() for place in places):
        return True
    return "/" not in name and any(any((ROOT / folder).rglob(name)) for folder in FOLDERS)


def resolve(dotted: str) -> None:
    """Imports a module, or what is in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            place = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if not dotted.startswith(str(error.name)):
                raise
            continue
        for name in parts[end:]:
            place = getattr(place, name)
        return
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page(path)):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        place = path.parent / name if name else path
        assert place.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)", page(place), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_files_are_there(path: Path) -> None:
    text = unreleased() if path.name == "CHANGELOG.md" else page(path)
    for span in code(text):
        for name in re.findall(r"(?<![\w./*{<-])[\w][\w./-]*\.(?:py|md|yaml|json|svg|png)\b(?![\w/*-])", span):
            if name.endswith(".py") or ("/" in name and name.split("/")[0] in FOLDERS):
                assert is_there(name, path.parent), name


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_modules_can_be_imported(path: Path) -> None:
    text = unreleased() if path.name == "CHANGELOG.md" else page(path)
    names = [name for span in code(text) for name in re.findall(r"\bxvlm2vec(?:\.\w+)+", span)]
    for block in blocks(text, "python"):
        for module, imported in re.findall(r"^from (xvlm2vec[\w.]*) import (.*)", block, flags=re.MULTILINE):
            names += [f"{module}.{name.strip()}" for name in imported.split(",")]
    for name in names:
        resolve(name)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shown_commands_are_parsed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def only_parse(*arguments: object, **settings: object) -> None:
        parse_args(*arguments, **settings)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.chdir(ROOT)
    text = page(path)
    for words in shown_commands(text):
        assert words[0] in COMMANDS, words
        if "--config" in words and not (ROOT / words[words.index("--config") + 1]).is_file():
            written = blocks(text, "yaml")[0] if words[-1] == "teacher.yaml" else "model: m\ndata: d\noutput: o\n"
            (tmp_path / "settings.yaml").write_text(written, encoding="utf-8")
            words[words.index("--config") + 1] = str(tmp_path / "settings.yaml")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".* is now called")
            with pytest.raises(Parsed):
                main(words)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_flags_are_taken(path: Path) -> None:
    """A span that begins with a command names flags of that command; elsewhere some command has the flag."""
    for span in code(page(path)):
        flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span)) - OTHERS
        if not flags:
            continue
        words = span.removeprefix("xvlm2vec ").split()
        command = words[0] if words[0] in COMMANDS else None
        commands = [command] if command else list(COMMANDS)
        taken = [
            flags_of(name, *kind)
            for name in commands
            for kind in [(), *(tuple(k.split()) for k in KINDS.get(name, ()))]
        ]
        assert flags <= frozenset().union(*taken), span
