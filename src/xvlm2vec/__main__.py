"""``python -m xvlm2vec`` runs the command line."""

import atexit
import os
import sys
import threading

from xvlm2vec.cli import main


def leave(code: int) -> None:
    """Ends the process; one of several on CPUs, if all went well, without torch's shutdown.

    A thread of gloo (torch 2.13) may abort it there, after everything is written, and the launcher would end with an
    error. Threads are waited for, and what asked to be called at the end is.
    """
    if code == 0 and _in_gloo_group():
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _in_gloo_group() -> bool:
    distributed = sys.modules.get("torch.distributed")  # commands without torch need not wait for it
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    return bool(distributed.get_backend() == "gloo")


if __name__ == "__main__":
    leave(main())
