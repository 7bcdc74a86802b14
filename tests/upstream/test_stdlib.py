"""Private names of Python's standard library in use; see docs/upstream.md."""

from __future__ import annotations

import subprocess
import sys

ENDING = """
import atexit, sys, threading, time
from xvlm2vec import __main__ as entry

entry._in_gloo_group = lambda: True
threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
atexit.register(print, "at the end")
entry.leave(0)
"""


def test_a_process_of_a_gloo_group_waits_for_threads_and_runs_what_was_registered() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"threading._shutdown or atexit._run_exitfuncs has changed: {done.stderr}"
    assert done.stdout.split("\n")[:2] == ["thread", "at the end"], done.stdout
