"""What the card of the emoji world's benchmark says."""

from __future__ import annotations

from xvlm2vec.common.tasks import TASK_TITLES
from xvlm2vec.hub.dataset_export import BenchmarkCard, DataSource

SOURCES = (
    DataSource("Noto Color Emoji", "Apache-2.0 (images), OFL-1.1 (font)", "https://github.com/googlefonts/noto-emoji"),
    DataSource("Unicode CLDR short names", "Unicode-3.0", "https://cldr.unicode.org"),
    DataSource("emoji (Python package)", "BSD-3-Clause", "https://pypi.org/project/emoji/"),
)


def benchmark_card() -> BenchmarkCard:
    """What the benchmark's card says."""
    return BenchmarkCard(
        name="Emoji world benchmark",
        description=(
            "Five tasks on rendered emoji scenes in the row form of MMMEB, parallel in all languages; held-out pairs "
            "and unseen renderings. The configuration `withheld` has the concepts whose names were kept from "
            "distillation in some languages."
        ),
        license="apache-2.0",
        sources=SOURCES,
        task_titles=TASK_TITLES,
    )
