"""The arrows between the rooms, read from the syntax tree: nobody imports what the design does not allow."""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOOR = ROOT / "src" / "xvlm2vec"
ROOMS = {
    "xvlm2vec": DOOR,
    "xvlm2vec.common": DOOR / "common",
    **{f"xvlm2vec.{room}": ROOT / room for room in ("modeling", "trainer", "corpus", "hub", "eval")},
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
# Metrics that are published: each in a folder of its own, as `evaluate` wants them, and never imported.
PUBLISHED = ROOT / "eval" / "modules"
# The Space's app is one file on the Hub.
MAY_BE_LONG = {ROOT / "hub" / "space_app.py"}
SHIPPED_MAY_IMPORT = {"torch", "transformers", "numpy", "PIL", "safetensors", "huggingface_hub", "tqdm"}


def room_of(module: str) -> str:
    """`xvlm2vec.eval.metrics` -> `xvlm2vec.eval`; modules of the door and its folders count as `xvlm2vec`."""
    head = ".".join(module.split(".")[:2])
    return head if head in ROOMS else "xvlm2vec"


def module_of(path: Path) -> str:
    """`trainer/losses/base.py` -> `xvlm2vec.trainer.losses.base`; a folder's `__init__` is the folder."""
    below = path.relative_to(DOOR.parent if DOOR in path.parents else ROOT).with_suffix("").parts
    below = below if DOOR in path.parents else ("xvlm2vec", *below)
    return ".".join(below[:-1] if below[-1] == "__init__" else below)


FILES = {
    module_of(path): path
    for folder in ROOMS.values()
    for path in sorted(folder.rglob("*.py"))
    if PUBLISHED not in path.parents
}


def imports_of(name: str, files: dict[str, Path] = FILES) -> list[tuple[int, str, int]]:
    """All imports of a module, those inside functions and those for types, too: (line, absolute module, level)."""
    path = files[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imports = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports += [(node.lineno, alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(part for part in (package if node.level else "", node.module) if part)
            modules = {f"{base}.{alias.name}" for alias in node.names} & files.keys()
            rest = len(modules) < len(node.names)
            imports += [(node.lineno, module, node.level) for module in sorted(modules) + [base] * rest]
    return imports


@pytest.mark.parametrize("name", FILES)
def test_arrows(name: str) -> None:
    room, package = room_of(name), name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for line, module, level in imports_of(name):
        where = f"{FILES[name].relative_to(ROOT)}:{line}"
        assert level <= 1, f"{where}: relative import out of its folder"
        if not module.startswith("xvlm2vec"):
            continue
        target = room_of(module)
        assert target == room or target in MAY_IMPORT[room], f"{where}: {room} may not import {target}"
        if target == "xvlm2vec" and room != "xvlm2vec":
            assert module == "xvlm2vec", f"{where}: rooms see only the version of the door, not {module}"
        if package != "xvlm2vec":  # the door names its folders whole
            below = module.startswith(package + ".")
            assert bool(level) == below, f"{where}: siblings are imported by `from .x`, all else by its whole name"


@pytest.mark.parametrize("name", FILES)
def test_libraries_are_imported_by_their_own_name(name: str) -> None:
    """No file imports a room by its bare name, and a folder named like a library (mteb, emoji) never stands for it."""
    rooms = {"modeling", "trainer", "corpus", "hub", "eval"}
    for line, module, level in imports_of(name):
        where = f"{FILES[name].relative_to(ROOT)}:{line}"
        assert level or module.split(".")[0] not in rooms, f"{where}: room imported by its bare name"


PACKING = {"pack_forward", "packs", "prefix_states", "sharing_check", "state_forks", "token_groups", "tree_attention"}


@pytest.mark.parametrize("name", FILES)
def test_packing_is_imported_from_its_one_surface(name: str) -> None:
    """The parts of packing see each other; all else sees `xvlm2vec.modeling.packing`, where the walk is explained."""
    room, _, part = name.rpartition(".")
    if room == "xvlm2vec.modeling" and part in {*PACKING, "packing"}:
        return
    for line, module, _ in imports_of(name):
        where = f"{FILES[name].relative_to(ROOT)}:{line}"
        hidden = module.startswith("xvlm2vec.modeling.") and module.rpartition(".")[2] in PACKING
        assert not hidden, f"{where}: import from xvlm2vec.modeling.packing, not from {module}"


def find_circle(files: dict[str, Path]) -> list[str]:
    """The modules of a circle of imports; type-only ones and those inside functions count."""
    arrows: dict[str, set[str]] = {}
    for name in files:
        targets = {module for _, module, _ in imports_of(name, files) if module in files}
        arrows[name] = targets - {name}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_of_imports() -> None:
    # The door's public names are loaded from every room, whose files read its version: that is no circle of modules.
    files = {name: path for name, path in FILES.items() if name != "xvlm2vec"}
    assert not find_circle(files), " -> ".join(find_circle(files))


def test_a_circle_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import B\n")
    (tmp_path / "b.py").write_text("def f():\n    from .a import A\n    return A\n")
    assert set(find_circle({"x.a": tmp_path / "a.py", "x.b": tmp_path / "b.py"})) == {"x.a", "x.b"}


@pytest.mark.parametrize("name", FILES)
def test_modules_stay_short(name: str) -> None:
    length = len(FILES[name].read_text(encoding="utf-8").splitlines())
    assert length <= 400 or FILES[name] in MAY_BE_LONG, f"{FILES[name].relative_to(ROOT)} has {length} lines"


@pytest.mark.parametrize("path", sorted((ROOT / "modeling").glob("*.py")), ids=lambda path: path.name)
def test_shipped_files_are_self_contained(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        level = getattr(node, "level", 0)
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            where, top = f"{path.name}:{node.lineno}", module.split(".")[0]
            assert level == 1 or top in SHIPPED_MAY_IMPORT or top in sys.stdlib_module_names, (
                f"{where}: {module} is not there when the file is loaded from the Hub"
            )
            if level:
                assert module, f"{where}: `from . import x` is not followed when code is shipped"
                assert "." not in module, f"{where}: shipped files lie in one flat folder"


def test_modeling_is_flat() -> None:
    assert not list((ROOT / "modeling").glob("*/*.py")), "the Hub ships the files of modeling in one folder"


def test_every_folder_is_listed_for_installation() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {name for name, path in FILES.items() if path.name == "__init__.py"}
    assert folders == set(settings["packages"]) - {"xvlm2vec.hub.front"}  # holds the model card alone


POSIX_ONLY = {"crypt", "fcntl", "grp", "nis", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty"}
POSIX_ONLY_OF_OS = {"fork", "getuid", "killpg", "mkfifo", "sched_getaffinity", "statvfs", "symlink", "wait"}


@pytest.mark.parametrize("name", FILES)
def test_every_module_imports_on_windows(name: str) -> None:
    """What Windows lacks is imported only inside functions, which ask for the platform first, and nothing is linked."""
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    where = FILES[name].relative_to(ROOT)
    for node in tree.body:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not POSIX_ONLY & {module.split(".")[0] for module in modules}, f"{where}:{node.lineno}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in POSIX_ONLY_OF_OS, f"{where}:{node.lineno}: Windows has no os.{node.attr}"


def test_the_repository_has_no_links() -> None:
    """Git on Windows writes a link as a small text file that holds its target."""
    import subprocess

    listing = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [line for line in listing.splitlines() if line.startswith("120000")]
