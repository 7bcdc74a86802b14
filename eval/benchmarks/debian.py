"""Data that Debian's packages hold: which command gets one, and what of it is unpacked. Nothing is downloaded here."""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xvlm2vec.common.captioned import gcompris, tuxpaint

_AR, _HEADER = b"!<arch>\n", 60  # bytes of a member's header


@dataclass(frozen=True)
class Package:
    """A package with a benchmark in it.

    Attributes:
        name: Its name.
        megabytes: Size of the download.
        wanted: Matches the paths of the files that are unpacked.
    """

    name: str
    megabytes: int
    wanted: re.Pattern[str]

    @property
    def command(self) -> str:
        """What gets the package into the current folder."""
        return f"apt-get download {self.name}"

    @property
    def page(self) -> str:
        """Where other systems get it."""
        return f"https://packages.debian.org/{self.name}"


PACKAGES: Mapping[str, Package] = {
    "tuxpaint": Package(
        tuxpaint.PACKAGE, 161, re.compile(r"usr/share/(tuxpaint/stamps/.*\.(png|svg|txt)|doc/[^/]+/copyright)")
    ),
    "gcompris": Package(
        gcompris.PACKAGE,
        44,
        re.compile(r"usr/share/(gcompris-qt/(rcc/(lang|explore_.*)\.rcc|translations/.*\.qm)|doc/[^/]+/copyright)"),
    ),
}


def package_data(benchmark: str, folder: str | Path, package: str | Path | None = None) -> Path:
    """The folder of a benchmark below another one, unpacked from its package there if that has not been done.

    Args:
        benchmark: One of `PACKAGES`.
        folder: Where the package lies, and where its files are put.
        package: The package's file (default: the one in the folder).

    Raises:
        FileNotFoundError: There is no package; says which command gets it.
        ValueError: It is none of Debian's, is damaged, or is another package.
    """
    folder, known = Path(folder), PACKAGES[benchmark]
    target = folder / benchmark
    if package is None and target.is_dir():
        return target
    found = sorted(folder.glob(f"{known.name}_*.deb")) if package is None else [Path(package)]
    if not found or not found[-1].is_file():
        missing = found[-1] if found else folder / f"{known.name}_*.deb"
        raise FileNotFoundError(
            f"there is no package {missing} ({known.megabytes} MB). Get it on Debian or Ubuntu by\n"
            f"  mkdir -p {folder} && cd {folder} && {known.command}\n"
            f"or elsewhere from {known.page}, and run the same command again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        count = _unpack(found[-1], Path(draft) / benchmark, known.wanted)
        if not count:
            raise ValueError(f"{found[-1]} has none of the files of {known.name}; is it another package?")
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(Path(draft) / benchmark, target)
    return target


def _unpack(package: Path, folder: Path, wanted: re.Pattern[str]) -> int:
    """Writes the files of a package whose paths match, and returns their number."""
    count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(_data(package)), mode="r:*") as archive:
            for member in archive:
                if member.isfile() and wanted.fullmatch(member.name.removeprefix("./")):
                    archive.extract(member, folder, filter="data")  # refuses paths that lead out of the folder
                    count += 1
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{package} is damaged ({error}); download it again") from error
    return count


def _data(package: Path) -> bytes:
    """The archive of a package's files: a `.deb` is an archive of ar with three members."""
    content = package.read_bytes()
    if not content.startswith(_AR):
        raise ValueError(f"{package} is no package of Debian's: it does not begin with {_AR!r}")
    place = len(_AR)
    while place + _HEADER <= len(content):
        header = content[place : place + _HEADER]
        name, digits = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
        if not digits.isdigit():
            break
        size = int(digits)
        if name.startswith("data.tar"):
            if name.endswith(".zst"):
                raise ValueError(
                    f"{package} is packed with zstd; unpack it by `dpkg-deb -x {package} FOLDER` and pass --data FOLDER"
                )
            return content[place + _HEADER : place + _HEADER + size]
        place += _HEADER + size + size % 2
    raise ValueError(f"{package} has no files in it; download it again")
