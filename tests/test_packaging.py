"""What `pip install .` installs: a wheel and a source archive with every room, its data, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("modeling", "trainer", "corpus", "hub", "eval")
DATA = (
    "xvlm2vec/py.typed",
    "xvlm2vec/hub/front/model_card.md",
    "xvlm2vec/hub/space_app.css",
    "xvlm2vec/hub/templates/benchmark.md",
    "xvlm2vec/hub/templates/corpus.md",
    "xvlm2vec/hub/templates/license.txt",
    "xvlm2vec/hub/templates/native.md",
    "xvlm2vec/hub/templates/space.md",
    "xvlm2vec/corpus/emoji/data/emoji.parquet",
    "xvlm2vec/corpus/emoji/data/emoji_instructions.json",
    "xvlm2vec/corpus/emoji/data/list_patterns.json",
    "xvlm2vec/corpus/emoji/data/more_list_patterns.json",
    "xvlm2vec/corpus/emoji/data/more_names.parquet",
    "xvlm2vec/corpus/emoji/data/twitter.parquet",
    "xvlm2vec/corpus/emoji/data/LICENSES.md",
    "xvlm2vec/corpus/checking/page.html",
    "xvlm2vec/corpus/statistics/page.html",
    "xvlm2vec/eval/report/report.html",
    "xvlm2vec/eval/modules/hit_at_k/hit_at_k.py",
    "xvlm2vec/eval/modules/requirements.txt",
    "xvlm2vec/eval/benchmarks/templates_mmmeb.json",
)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, built from the source archive as an installer would, and the source archive."""
    source, output = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("dist")
    unwanted = shutil.ignore_patterns(".git", ".venv", "build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=unwanted, symlinks=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(output.glob("*.whl")), next(output.glob("*.tar.gz"))


@pytest.mark.slow
def test_the_wheel_holds_every_room_and_its_data(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        names = set(wheel.namelist())
        card = wheel.read("xvlm2vec/hub/front/model_card.md")
    assert card == (ROOT / "model_card.md").read_bytes()
    for room in ROOMS:
        modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*.py")]
        assert not [name for name in modules if f"xvlm2vec/{name}" not in names]
    doors = [path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "xvlm2vec").rglob("*.py")]
    assert not [name for name in doors if name not in names]
    assert not [name for name in DATA if name not in names]
    tops = {name.split("/")[0] for name in names}
    assert tops == {"xvlm2vec", next(name for name in tops if name.endswith(".dist-info"))}
    assert not [name for name in names if "test" in name.lower() or name.endswith(".pyc")]


@pytest.mark.slow
def test_the_source_archive_builds_the_same_wheel(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "modeling/modeling_xvlm2vec.py", "model_card.md"} <= names


def read_pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line and line[0] != "#")


def read_requirements(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    further = [text for name in extras for text in project["optional-dependencies"][name]]
    return [Requirement(text) for text in [*project["dependencies"], *further]]


def test_every_pinned_version_satisfies_its_bound() -> None:
    """`constraints.txt` pins each dependency of `pyproject.toml` to a version that the bounds admit."""
    pins = read_pins("constraints.txt")
    for requirement in read_requirements("eval", "demo", "world"):
        name = requirement.name.lower().replace("_", "-")
        assert name in pins, f"{name} is not pinned"
        assert requirement.specifier.contains(pins[name]), f"{name} {pins[name]} does not satisfy {requirement}"


def test_the_lowest_pins_are_the_lower_bounds() -> None:
    """What `make doors-lowest` installs is what `pyproject.toml` promises to be enough."""
    pins = read_pins("constraints-lowest.txt")
    for requirement in read_requirements():
        lowest = [Version(bound.version) for bound in requirement.specifier if bound.operator == ">="]
        assert [Version(pins[requirement.name.lower()])] == lowest, requirement
