"""The command line. Each command's modules are imported only when it runs, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from xvlm2vec import __version__

# Command -> (module with `main(arguments) -> int`, one line of help).
COMMANDS = {
    "quickstart": (
        "xvlm2vec.commands.quickstart",
        "the whole story on a laptop, in a quarter of an hour or two",
    ),
    "real-story": (
        "xvlm2vec.commands.real_story",
        "the same on weights and captions of others, first results in three hours",
    ),
    "corpus": (
        "xvlm2vec.commands.corpus",
        "make a corpus: the emoji world, or a CSV and a folder of images",
    ),
    "adopt": ("xvlm2vec.commands.adopt", "take over the embedder that you run, proven equal, to teach it languages"),
    "translate": ("xvlm2vec.commands.translate", "translate a corpus into languages that it lacks"),
    "mine": ("xvlm2vec.commands.mine", "find hard negatives for pairs, texts and images alike"),
    "contrast": ("xvlm2vec.commands.contrast", "train an embedder on pairs (the teacher)"),
    "distill": ("xvlm2vec.commands.distill", "make an embedder multilingual by self-distillation"),
    "encode": ("xvlm2vec.commands.encode", "embed texts and images into a file"),
    "data": ("xvlm2vec.commands.data", "unpack a benchmark of real images that needs no hub"),
    "evaluate": ("xvlm2vec.commands.evaluate", "score a model on a benchmark, per task and language"),
    "evaluate-texts": (
        "xvlm2vec.commands.evaluate_texts",
        "score models on similarity and retrieval of texts alone",
    ),
    "mteb-task": ("xvlm2vec.commands.mteb_task", "write a benchmark as a task of mteb's own repository"),
    "report": ("xvlm2vec.commands.report", "turn results into tables and pages"),
    "verify": ("xvlm2vec.commands.verify", "check that a model loads in every way and gives its golden vectors"),
    "release": ("xvlm2vec.commands.release", "publish a model with its card and proof, on the Hub or in a folder"),
    "cache": ("xvlm2vec.commands.cache", "list and remove what is kept in the user's cache"),
    "demo": ("xvlm2vec.commands.demo", "search a release's images in the browser, in any of its languages"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a script shows marks in its place
    parser = _parser()
    if not arguments or arguments[0] in {"-h", "--help", "--version"}:
        parser.parse_args(arguments or ["--help"])
        return 0
    if arguments[0] not in COMMANDS:
        parser.error(f"unknown command {arguments[0]!r}; there are {', '.join(COMMANDS)}")
    # How long a thread spins before it sleeps. Without a bound, a busy second process makes two cores many times
    # slower; without spinning, a step of the tiny model takes twice as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    command = importlib.import_module(COMMANDS[arguments[0]][0])
    try:
        return int(command.main(arguments[1:]))
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where it stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        told = _told(error)
        if told is None or os.environ.get("XVLM2VEC_TRACEBACK"):
            raise
        print(f"xvlm2vec {arguments[0]}: {told}", file=sys.stderr)
        print("(set XVLM2VEC_TRACEBACK=1 to see where it happened)", file=sys.stderr)
        return 1


def _told(error: Exception) -> str | None:
    """What to say of an error; `None` for a fault of this package."""
    if isinstance(error, ValueError | OSError | RuntimeError | ImportError):
        return str(error)
    if type(error).__module__.startswith(("httpx", "requests")):  # libraries let those of the Hub's client pass
        return f"the connection to the Hub broke ({error}); run the same command again."
    return None


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="xvlm2vec",
        description="Image and text search in every language.",
        epilog=f"commands:\n{listing}\n\nexample:\n  xvlm2vec quickstart --small --output runs/small\n"
        "\nEach command has --help with an example of its own.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="xvlm2vec COMMAND [flags]",
    )
    parser.add_argument("--version", action="version", version=f"xvlm2vec {__version__}")
    return parser
