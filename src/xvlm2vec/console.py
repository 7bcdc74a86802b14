"""What every command does before it works: quiet libraries, one-line logs."""

from __future__ import annotations

import argparse
import logging


def set_up(quiet_libraries: bool = True) -> None:
    """Shows this package's logs as plain lines and keeps the libraries' own bars and notices away."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("xvlm2vec").setLevel(logging.INFO)
    logging.captureWarnings(True)
    if quiet_libraries:
        import datasets
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        datasets.disable_progress_bars()
        logging.getLogger("py.warnings").setLevel(logging.ERROR)


def parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """An argument parser in the form of all commands."""
    return argparse.ArgumentParser(
        prog=f"xvlm2vec {command}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
