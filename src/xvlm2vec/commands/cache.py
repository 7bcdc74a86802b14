"""`xvlm2vec cache`."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.files import readable_size
from xvlm2vec.common.user_cache import CacheEntry, cache_entries, cache_folder, is_unreadable, old_drafts, remove
from xvlm2vec.flags import console

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and lists or removes entries."""
    flags = _parser().parse_args(console.with_help(arguments))
    run: Callable[[argparse.Namespace], int] = flags.run
    return run(flags)


def list_entries(flags: argparse.Namespace) -> int:
    """Shows all entries, with their sizes and when they were last used."""
    entries = cache_entries(flags.folder)
    lines = [("KEY", "MODEL", "ROWS", "SIZE", "LAST USED"), *map(_line, entries)]
    if entries:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            console.show("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    console.show(f"{_count(entries)} in {flags.folder or cache_folder()}")
    return 0


def remove_entries(flags: argparse.Namespace) -> int:
    """Removes entries by key or by age."""
    if not flags.keys and flags.older_than is None:
        raise ValueError("say what to remove: keys, as `xvlm2vec cache ls` shows them, or --older-than 30d")
    entries = cache_entries(flags.folder)
    missing = [key for key in flags.keys if not any(_is_meant(entry, key) for entry in entries)]
    if missing:
        raise ValueError(f"there is no entry {missing[0]!r}; `xvlm2vec cache ls` shows all")
    chosen = [entry for entry in entries if not flags.keys or any(_is_meant(entry, key) for key in flags.keys)]
    if flags.older_than is not None:
        chosen = [entry for entry in chosen if time.time() - entry.used > flags.older_than]
    return _remove(chosen, [], flags)


def prune(flags: argparse.Namespace) -> int:
    """Removes what nothing can be read of."""
    entries = cache_entries(flags.folder)
    leftovers = [entry for entry in entries if is_unreadable(entry)]
    drafts = [path for entry in entries if entry not in leftovers for path in old_drafts(entry)]
    return _remove(leftovers, drafts, flags)


def _remove(entries: Sequence[CacheEntry], drafts: Sequence[Path], flags: argparse.Namespace) -> int:
    for line in [*(" ".join(_line(entry)) for entry in entries), *map(str, drafts)]:
        console.show(line)
    if not entries and not drafts:
        console.show("There is nothing to remove.")
        return 0
    what = f"{_count(entries)} and {len(drafts)} unfinished files" if drafts else _count(entries)
    if flags.dry_run:
        console.show(f"{what} would be removed.")
        return 0
    if not flags.yes and not _confirmed(f"Remove {what}? [y/N] "):
        console.show("Nothing was removed.")
        return 1
    for entry in entries:
        remove(entry)
    for path in drafts:
        path.unlink(missing_ok=True)
    console.show(f"Removed {what}.")
    return 0


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ValueError("nobody is there to ask; pass --yes to remove without a question")
    return input(question).strip().lower() in {"y", "yes"}


def _is_meant(entry: CacheEntry, key: str) -> bool:
    """Whether a key is that of an entry, or of a folder above it."""
    return entry.key == key or entry.key.startswith(key.rstrip("/") + "/")


def _line(entry: CacheEntry) -> tuple[str, ...]:
    rows = "" if entry.rows is None else str(entry.rows)
    return entry.key, entry.model or "-", rows or "-", readable_size(entry.num_bytes), _age(time.time() - entry.used)


def _count(entries: Sequence[CacheEntry]) -> str:
    noun = "entry" if len(entries) == 1 else "entries"
    return f"{len(entries)} {noun} of {readable_size(sum(entry.num_bytes for entry in entries))}"


def _age(seconds: float) -> str:
    for name, unit in (("day", UNITS["d"]), ("hour", UNITS["h"]), ("minute", UNITS["m"])):
        count = int(seconds // unit)
        if count:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def duration(text: str) -> int:
    """`30d` in seconds: the type of flags that take an age."""
    match = re.fullmatch(r"(\d+)([smhdwy])", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"expected a number and one of s, m, h, d, w, y, such as 30d, not {text!r}")
    return int(match[1]) * UNITS[match[2]]


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "cache",
        "Lists and removes what is kept in the user's cache (`~/.cache/xvlm2vec`, or XVLM2VEC_CACHE): the English "
        "vectors of teachers, which all runs share, and the image vectors of the demo. What is removed is computed "
        "anew when it is needed.",
        "xvlm2vec cache ls\nxvlm2vec cache rm --older-than 30d",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    ls = _add(actions, "ls", "list all entries", "xvlm2vec cache ls", list_entries)
    rm = _add(actions, "rm", "remove entries", "xvlm2vec cache rm teacher/0123456789abcdef", remove_entries)
    rm.add_argument("keys", nargs="*", metavar="KEY", help="as `ls` shows it, or the folder above, such as teacher")
    rm.add_argument(
        "--older-than", type=duration, metavar="AGE", help="only what was not used for so long, such as 30d"
    )
    leftovers = "remove stores without vectors and files that killed processes left unfinished"
    pruning = _add(actions, "prune", leftovers, "xvlm2vec cache prune --dry-run", prune)
    for action in (rm, pruning):
        action.add_argument("--yes", "-y", action="store_true", help="remove without a question")
        action.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    for action in (ls, rm, pruning):
        action.add_argument("--folder", type=Path, metavar="DIR", help="another folder of stores, such as that of "
                            "--teacher-store or of evaluate --store")  # fmt: skip
    return parser


def _add(
    actions: Any, name: str, text: str, example: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    sentence = f"{text[0].upper()}{text[1:]}."
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=text, allow_abbrev=False, **console.texts(sentence, example)
    )
    parser.set_defaults(run=run)
    return parser
