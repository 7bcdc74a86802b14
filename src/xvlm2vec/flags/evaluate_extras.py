"""What `xvlm2vec evaluate` measures beside the scores: its flags, and what they ask of the runner."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import console

if TYPE_CHECKING:
    from xvlm2vec.eval.encoders import Encoder
    from xvlm2vec.eval.runner import Extras

DRAWN, FAILURES, IMAGE_SIZE = 3, 3, 160


def add_extra_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for smaller vectors and for the drift of English."""
    parser.add_argument("--dims", type=whole_numbers, default=(), metavar="N,...", help="also score vectors cut to "
                        "these many values, such as 64,128, and report what each language loses")  # fmt: skip
    parser.add_argument("--precision", type=console.names, default=(), metavar="NAMES", help="also score quantised "
                        "vectors, of int8,binary, alone and with --dims")  # fmt: skip
    parser.add_argument("--drift-from", metavar="MODEL", help="another model, such as the teacher: report how far the "
                        "English vectors have moved from its own")  # fmt: skip


def whole_numbers(text: str) -> tuple[int, ...]:
    """`"64,128"` as numbers: the type of a flag that takes a list of them."""
    return tuple(dict.fromkeys(console.positive(name) for name in console.names(text)))


def runner_extras(flags: argparse.Namespace, drift_from: Encoder | None = None) -> Extras:
    """What the flags ask of the runner; examples come with small copies of their images, for the report.

    Raises:
        ValueError: A precision is unknown.
    """
    from xvlm2vec.eval.runner import Extras
    from xvlm2vec.eval.sizes import PRECISIONS

    unknown = [name for name in flags.precision if name not in PRECISIONS]
    if unknown:
        raise ValueError(f"unknown precision {', '.join(unknown)}; choose from {', '.join(PRECISIONS)}")
    return Extras(
        examples=DRAWN,
        failures=FAILURES,
        image_size=IMAGE_SIZE,
        dims=flags.dims,
        precisions=flags.precision,
        drift_from=drift_from,
    )
