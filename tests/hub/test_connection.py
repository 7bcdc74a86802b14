"""A Hub that cannot be reached, or a connection that breaks: every command says so in a line, with exit code 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import _Cut

COMMANDS = """
import json, sys
from xvlm2vec.cli import main
print(json.dumps([main(command) for command in json.loads(sys.argv[1])]))
"""


def cut() -> None:
    raise _Cut


def outcomes(hub_site, commands: list[list[str]]) -> tuple[list[int], str]:
    """Exit codes of commands that run in one process, and what it wrote on standard error."""
    code = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    done = subprocess.run(code, env=hub_site.environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def write_adapter(folder: Path, base: str) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_connection_that_breaks_is_told_by_every_command(hub_site, loopback, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    loopback.create("acme/x", files={"golden.json": b"{}"})
    loopback.fail("GET", "acme", action=cut, times=10**6)
    loopback.fail("HEAD", "acme", action=cut, times=10**6)
    adapter = write_adapter(tmp_path / "adapter", "acme/x")
    commands = [
        ["verify", "acme/x"],
        ["demo", "acme/x"],
        ["release", str(adapter), "--to", "./out"],
        ["release", "acme/x", "--to", "./out"],
    ]
    codes, told = outcomes(hub_site, commands)
    assert codes == [1] * len(commands), told
    assert "Traceback" not in told
    assert "xvlm2vec verify: the connection to the Hub broke" in told
    assert "xvlm2vec demo: downloading acme/x: the connection broke" in told
    assert "xvlm2vec release: downloading acme/x: the connection broke" in told
    assert "xvlm2vec release: the connection to the Hub broke" in told
