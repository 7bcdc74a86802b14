"""`xvlm2vec quickstart`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from xvlm2vec.flags import console
from xvlm2vec.quickstart.config import QuickstartConfig, languages_of
from xvlm2vec.quickstart.run_folder import RunFolder

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Parses the flags, runs what is left to do, and ends with the table."""
    parser = console.parser(
        "quickstart",
        "Teaches a tiny image and text embedder English, distils it into other languages, measures both, and "
        "releases the result. Interrupt it as you like: the same command goes on where it stopped.",
        "xvlm2vec quickstart --languages de,ja,ar --output runs/quickstart",
    )
    parser.add_argument("--output", required=True, help="folder of the run")
    parser.add_argument("--small", action="store_true", help="two minutes: 64 concepts, de and ja, control ko")
    parser.add_argument(
        "--languages", nargs="+", default=[], metavar="CODE", help="languages to teach, of de fr es it pt id tr ru fa "
        "ar zh ja ko; default: all but tr and ko, which are kept as controls",
    )  # fmt: skip
    parser.add_argument("--lora", action="store_true", help="train an adapter that acts on texts in the taught "
                        "languages only: images and English keep their vectors, bit for bit")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of world, weights and order (default 0)")
    flags = parser.parse_args(arguments)
    config = QuickstartConfig(flags.output, flags.small, languages_of(flags.languages), flags.lora, flags.seed)
    run = RunFolder(config)
    console.set_up()
    announce(run)
    from xvlm2vec.quickstart.report import outcome_table
    from xvlm2vec.quickstart.run import run_quickstart

    report = run_quickstart(run)

    logger.info("\nP@1 in %% before -> after distillation\n\n%s\n", outcome_table(run))
    logger.info("%.0f s in all, peak memory %d MB", sum(report["seconds"].values()), report["peak_rss_mb"])
    for name in ("report.html", "report.json", "release/model"):
        logger.info("  %s", run.path(name))
    return 0


def announce(run: RunFolder) -> None:
    """Says at once what will be done, how long it takes here, and how to stop and go on."""
    from xvlm2vec.quickstart.duration import expected_minutes

    taught = ", ".join(run.trained_languages)
    logger.info(
        "Makes a tiny image and text embedder in %s: teaches it English, distils it into %s, scores both, releases the "
        "student, proves that it loads, and writes report.html.",
        run.folder, taught,
    )  # fmt: skip
    done = len(run.state.seconds)
    if done:
        logger.info("%d of 7 stages are done; the rest follows.", done)
    else:
        logger.info("About %d minutes on this machine, up to 3 GB of memory.", expected_minutes(run.config))
    logger.info("Ctrl+C stops it whenever you like; the same command goes on where it stopped.\n")
