"""docs/upstream.md lists every private name of another library that the sources use, and its tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "upstream.md").read_text(encoding="utf-8")
SOURCES = [
    path for room in ("modeling", "trainer", "corpus", "hub", "eval", "src") for path in (ROOT / room).rglob("*.py")
]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_of(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Private attributes that a file reads, calls or sets, and private names that it defines."""
    used, defined = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            (defined if of_self and isinstance(node.ctx, ast.Store) else used).add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and is_private(node.name):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and is_private(node.id):
            defined.add(node.id)
    return used, defined


def test_every_private_name_in_use_is_listed() -> None:
    used: dict[str, Path] = {}
    defined: set[str] = {"_replace", "_exit"}  # promised in spite of their names: of named tuples, and `os._exit`
    for path in SOURCES:
        names, here = names_of(ast.parse(path.read_text(encoding="utf-8")))
        used |= dict.fromkeys(names, path)
        defined |= here
    missing = {name: str(path.relative_to(ROOT)) for name, path in used.items() if name not in defined}
    missing = {name: path for name, path in missing.items() if f"{name}`" not in TABLE}
    assert not missing, f"list these in docs/upstream.md, with a contract test: {missing}"


@pytest.mark.parametrize("test", sorted(set(re.findall(r"tests/upstream/test_\w+\.py", TABLE))))
def test_its_contract_tests_are_there(test: str) -> None:
    assert (ROOT / test).is_file()


@pytest.mark.parametrize(
    "place", sorted(set(re.findall(r"`((?:modeling|trainer|corpus|hub|eval|src)/[\w/]+\.py)`", TABLE)))
)
def test_its_places_are_there(place: str) -> None:
    assert (ROOT / place).is_file()
