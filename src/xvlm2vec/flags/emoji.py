"""What the card of the emoji world's benchmark says."""

from __future__ import annotations

from xvlm2vec.common.tasks import TASK_TITLES
from xvlm2vec.hub.dataset_export import BenchmarkCard, DataSource

SOURCES = (
    DataSource("Noto Color Emoji", "Apache-2.0 (images), OFL-1.1 (font)", "https://github.com/googlefonts/noto-emoji"),
    DataSource("Unicode CLDR short names", "Unicode-3.0", "https://cldr.unicode.org"),
    DataSource("emoji (Python package)", "BSD-3-Clause", "https://pypi.org/project/emoji/"),
)


TWITTER_SOURCE = DataSource("Twemoji (fork, 16.0.1)", "CC-BY-4.0", "https://github.com/jdecked/twemoji")


def benchmark_card(style: str = "noto") -> BenchmarkCard:
    """What the benchmark's card says; the style is that of the drawings."""
    drawn = style == "noto"
    return BenchmarkCard(
        name="Emoji world benchmark",
        description=(
            "Five tasks on rendered emoji scenes in the row form of MMMEB, parallel in all languages; held-out pairs "
            "and unseen renderings. The configuration `withheld` has the concepts whose names were kept from "
            "distillation in some languages."
        ),
        license="apache-2.0" if drawn else "cc-by-4.0",
        sources=SOURCES if drawn else (TWITTER_SOURCE, *SOURCES[1:]),
        task_titles=TASK_TITLES,
    )
