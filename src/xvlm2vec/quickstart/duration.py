"""How long a run will take on this machine, before it begins."""

from __future__ import annotations

from .config import QuickstartConfig

# Seconds of a whole run, and of `mlp_seconds`, on the idle machine of benchmarks/results/quickstart_busy.json.
REFERENCE_RUN, REFERENCE_WORK = 1_230, 0.0042
SMALL_SHARE = 1 / 12  # see docs/quickstart


def expected_minutes(config: QuickstartConfig) -> int:
    """Minutes of a whole run on two cores of this machine that nobody else uses much, measured by a moment of work."""
    from xvlm2vec.trainer.precision import has_fast_bf16, mlp_seconds

    work = min(mlp_seconds(has_fast_bf16()) for _ in range(7))
    seconds = REFERENCE_RUN * work / REFERENCE_WORK * (SMALL_SHARE if config.small else 1)
    return max(round(seconds / 60), 1)
