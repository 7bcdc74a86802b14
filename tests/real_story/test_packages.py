"""Packages are proven to be the known ones, and one sentence says what is missing."""

import hashlib

import pytest

from xvlm2vec.cli import main
from xvlm2vec.real_story.parts import Part, check_libraries, fetch_parts

CONTENT = b"a package"
PART = Part("stamps", "1-2", "stamps_1-2_all.deb", hashlib.sha256(CONTENT).hexdigest(), "apt-get", "https://a.page")


def test_a_file_that_is_there_is_taken_if_it_is_the_known_one(tmp_path):
    (tmp_path / PART.file).write_bytes(CONTENT)
    fetch_parts(tmp_path, [PART])
    (tmp_path / PART.file).write_bytes(CONTENT + b"!")
    with pytest.raises(ValueError, match=r"is not stamps 1-2 as it is known .*put the file from https://a\.page there"):
        fetch_parts(tmp_path, [PART])


def test_a_missing_client_says_where_the_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"comes by apt-get, which is not on this machine; get stamps_1-2_all"):
        fetch_parts(tmp_path, [PART])


def test_a_client_that_fails_is_quoted(tmp_path, monkeypatch):
    client = tmp_path / "apt-get"
    client.write_text("#!/bin/sh\necho E: Version 1-2 was not found >&2\nexit 100\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(OSError, match=r"apt-get did not get stamps 1-2 \(E: Version 1-2 was not found\); get"):
        fetch_parts(tmp_path / "packages", [PART])


def test_a_missing_library_names_what_installs_it():
    with pytest.raises(ImportError, match=r"needs no_such_library, .*run `make real-story`"):
        check_libraries({"numpy": "2.0", "no_such_library": "1"})
    with pytest.raises(ImportError, match=r"needs numpy 99 or newer"):
        check_libraries({"numpy": "99"})


def test_the_command_explains_itself(capsys):
    with pytest.raises(SystemExit):
        main(["real-story", "--help"])
    assert "make real-story" in " ".join(capsys.readouterr().out.split())
