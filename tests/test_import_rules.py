"""The arrows between the rooms, read from the syntax tree: nobody imports what the design does not allow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "xvlm2vec": ROOT / "src" / "xvlm2vec",
    "xvlm2vec.common": ROOT / "src" / "xvlm2vec" / "common",
    "xvlm2vec.modeling": ROOT / "modeling",
    "xvlm2vec.trainer": ROOT / "trainer",
    "xvlm2vec.corpus": ROOT / "corpus",
    "xvlm2vec.hub": ROOT / "hub",
    "xvlm2vec.eval": ROOT / "eval",
}
MAY_IMPORT = {
    "xvlm2vec.modeling": set(),
    "xvlm2vec.common": {"xvlm2vec.modeling"},
    **{
        f"xvlm2vec.{room}": {"xvlm2vec.common", "xvlm2vec.modeling", "xvlm2vec"}
        for room in ("trainer", "corpus", "hub", "eval")
    },
    "xvlm2vec": set(ROOMS),
}
SHIPPED_MAY_IMPORT = {"torch", "transformers", "numpy", "PIL", "safetensors", "huggingface_hub", "tqdm"}
STANDARD_LIBRARY = __import__("sys").stdlib_module_names


def python_files() -> list[tuple[str, Path]]:
    return [(room, path) for room, folder in ROOMS.items() for path in sorted(folder.glob("*.py"))]


def imported_modules(path: Path) -> list[tuple[int, str, int]]:
    """All imports of a file, also those inside functions: (line, module, relative level)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, node.module or "", node.level))
    return found


def room_of(module: str) -> str:
    """`xvlm2vec.eval.metrics` -> `xvlm2vec.eval`; modules of the door count as `xvlm2vec`."""
    head = ".".join(module.split(".")[:2])
    return head if head in ROOMS else "xvlm2vec"


@pytest.mark.parametrize(("room", "path"), python_files(), ids=lambda value: getattr(value, "name", value))
def test_arrows(room: str, path: Path) -> None:
    for line, module, level in imported_modules(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        assert level <= 1, f"{where}: relative import out of its room"
        assert module.split(".")[0] not in {"modeling", "trainer", "corpus", "hub", "eval"} or level, (
            f"{where}: room imported by its bare name"
        )
        if level or not module.startswith("xvlm2vec"):
            continue
        target = room_of(module)
        assert target == room or target in MAY_IMPORT[room], f"{where}: {room} may not import {target}"
        if target == "xvlm2vec" and room != "xvlm2vec":
            assert module == "xvlm2vec", f"{where}: rooms see only the version of the door, not {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "modeling").glob("*.py")), ids=lambda path: path.name)
def test_shipped_files_are_self_contained(path: Path) -> None:
    for line, module, level in imported_modules(path):
        top = module.split(".")[0]
        assert level == 1 or top in SHIPPED_MAY_IMPORT or top in STANDARD_LIBRARY, (
            f"{path.name}:{line}: {module} is not there when the file is loaded from the Hub"
        )
        if level:
            assert module, f"{path.name}:{line}: `from . import x` is not followed when code is shipped"
            assert "." not in module, f"{path.name}:{line}: shipped files lie in one flat folder"


def test_rooms_have_no_subfolders_with_code() -> None:
    """But for metrics that are published: each in a folder of its own, as `evaluate` wants them, and never imported."""
    published = ROOMS["xvlm2vec.eval"] / "modules"
    for folder in ROOMS.values():
        nested = [p for p in folder.glob("*/*.py") if folder.name != "xvlm2vec" and published not in p.parents]
        assert not nested, f"code in a sub-folder: {nested}"
