"""The keys of `results.json` that several rooms read."""

from collections.abc import Mapping
from types import MappingProxyType

TASK_KEYS = ("benchmark", "dataset", "task", "language", "style")
"""What a row of results is about."""

METRICS: Mapping[str, str] = MappingProxyType(
    {"p_at_1": "P@1", "r_at_5": "R@5", "r_at_10": "R@10", "ndcg_at_10": "nDCG@10", "mrr": "MRR"}
)
"""Scores of a row, as fractions, and what people call them."""

CELL_KEYS = ("p_at_1", "n", "ci95")
"""What a table of scores shows of a row: precision at 1, number of queries, 95% interval."""
