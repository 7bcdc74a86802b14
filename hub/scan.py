"""What must never be pushed: secrets, pickles, links, names that lead out of a repository, files of a wrong size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from xvlm2vec.common.pickles import holds_pickle, is_named_pickle

from .staging import ExportError

WEIGHTS = (".safetensors", ".parquet")
SECRETS = {
    "a Hugging Face token": re.compile(rb"\b(?:hf|api_org)_[A-Za-z0-9]{16,}"),
    "an AWS access key": re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,})"),
    "a Slack token": re.compile(rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "an API key": re.compile(rb"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{32,}"),
    "a Google API key": re.compile(rb"\bAIza[A-Za-z0-9_-]{35}\b"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(rb"\b[a-z][a-z0-9+.-]*://[^/\s:@\"'<>{}]+:[^/\s:@\"'<>{}]+@"),
}
LARGEST_FILE = 50_000_000_000
"""Bytes that the Hub takes in one file."""
LARGEST_OTHER = 100_000_000
"""Bytes of a file that is no tensor or table; above that something went in by mistake."""
MOST_FILES = 10_000
_BLOCK = 1 << 22
_OVERLAP = 4_096
_ROWS = 1_000
_FIRST = 5


class ScanError(ExportError):
    """A folder holds something that must not be published; nothing was pushed."""


@dataclass(frozen=True)
class Content:
    """One file of a folder: its name in the repository, where it lies, and its bytes."""

    name: str
    path: Path
    size: int


def list_files(folder: Path) -> list[Content]:
    """All files below a folder, by name.

    Raises:
        ScanError: A link, a name that no repository may hold, or too many files.
    """
    contents = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ScanError(f"{name} is a link, which a repository cannot hold; put the file itself there.")
        if path.is_file():
            check_name(name)
            contents.append(Content(name, path, path.stat().st_size))
    if len(contents) > MOST_FILES:
        raise ScanError(
            f"{folder.name} holds {len(contents)} files, more than {MOST_FILES}; pack small files together."
        )
    return contents


def check_name(name: str) -> None:
    """Raises a `ScanError` for a file name that leads out of its repository, or into git's own files."""
    parts = PurePosixPath(name).parts
    leads_out = not parts or name.startswith("/") or "\\" in name or ".." in parts or re.match(r"[A-Za-z]:", name)
    if leads_out or ".git" in parts or not name.isprintable():
        raise ScanError(f"{name!r} is no name for a file of a repository: it may be written elsewhere.")


def scan_folder(folder: Path, private: Mapping[str, str] | None = None) -> list[Content]:
    """Checks a folder before it is pushed.

    Args:
        folder: What is to be pushed.
        private: Strings that must not be in any file, by what they are, such as `{"your token": ...}`.

    Returns:
        Its files.

    Raises:
        ScanError: Naming every file that must not leave, and why. Secrets themselves are not repeated.
    """
    contents = list_files(folder)
    patterns = SECRETS | {what: re.compile(re.escape(text.encode())) for what, text in (private or {}).items() if text}
    faults = [fault for content in contents for fault in _faults(content, patterns)]
    if faults:
        more = f" (and {len(faults) - _FIRST} more)" if len(faults) > _FIRST else ""
        raise ScanError(f"{folder.name} must not be published: {'; '.join(faults[:_FIRST])}{more}. Nothing was pushed.")
    return contents


def _faults(content: Content, patterns: Mapping[str, re.Pattern[bytes]]) -> Iterator[str]:
    suffix, is_named = content.path.suffix.lower(), is_named_pickle(content.path)
    if is_named:
        yield f"{content.name} may run code when it is loaded"
    limit = LARGEST_FILE if suffix in WEIGHTS else LARGEST_OTHER
    if content.size > limit:
        yield f"{content.name} has {content.size:,} bytes, more than {limit:,}"
    if content.size == 0 and suffix in WEIGHTS:
        yield f"{content.name} is empty"
    elif suffix == ".parquet":
        yield from (f"{content.name} holds {what}" for what in _find(_texts(content.path), patterns))
    elif suffix == ".safetensors":
        yield from (f"{content.name} holds {what}" for what in _find([_header(content.path)], patterns))
    else:
        if not is_named and holds_pickle(content.path):
            yield f"{content.name} is a pickle under another name, which may run code when it is loaded"
        yield from (f"{content.name} holds {what}" for what in _find(_blocks(content.path), patterns))


def _find(texts: Iterable[bytes], patterns: Mapping[str, re.Pattern[bytes]]) -> list[str]:
    """What is found in a text that comes in pieces."""
    names: dict[str, None] = {}
    for text in texts:
        names |= {what: None for what, pattern in patterns.items() if pattern.search(text)}
    return list(names)


def _blocks(path: Path) -> Iterator[bytes]:
    """A file in blocks that overlap by more than a secret's length."""
    with path.open("rb") as file:
        tail = b""
        while block := file.read(_BLOCK):
            yield tail + block
            tail = (tail + block)[-_OVERLAP:]


def _header(path: Path) -> bytes:
    """What a file of tensors says about them, which may be a text of any kind; the first eight bytes are its length."""
    with path.open("rb") as file:
        return file.read(min(int.from_bytes(file.read(8), "little"), _BLOCK))


def _texts(path: Path) -> Iterator[bytes]:
    """The texts of a table, a column of a group of rows at a time, and what is written about the columns."""
    try:
        with pq.ParquetFile(path) as file:
            yield (file.schema_arrow.to_string(truncate_metadata=False)).encode()
            leaves = [file.schema.column(number) for number in range(len(file.schema))]
            names = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
            for batch in file.iter_batches(_ROWS, columns=names) if names else ():
                yield from (_joined(column) for column in batch.columns)
    except pa.ArrowException as error:
        raise ScanError(f"{path.name} is no parquet file that can be read ({error}).") from error


def _joined(column: pa.Array) -> bytes:
    """All strings of a column, also those in lists and structures."""
    if pa.types.is_struct(column.type):
        return b"\n".join(_joined(field) for field in column.flatten())
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _joined(column.flatten())
    return "\n".join(text for text in column.to_pylist() if text).encode()
