"""How much the rank of an item depends on the language of the text.

For each item of a parallel set, the spread over the languages of the rank of its right candidate, averaged over the
items. 0 means that every language finds an item at the same rank. The paper calls the metric MRV; its published code
averages the standard deviation, so both are returned.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from .metrics import mean_rank_variance

_CITATION = """
@inproceedings{nie-etal-2024-1tok,
  title = {Improving the Consistency in Cross-Lingual Cross-Modal Retrieval with 1-to-K Contrastive Learning},
  author = {Nie, Zhijie and Zhang, Richong and Feng, Zhangchi and Huang, Hailang and Liu, Xudong},
  booktitle = {Proceedings of the 30th ACM SIGKDD Conference on Knowledge Discovery and Data Mining},
  year = {2024},
}
"""
_INPUTS = """
Args:
    predictions (list of list of float): for each item its rank in every language, in the same order of languages; from
        0 or from 1 makes no difference.

Returns:
    mrv_std: mean over the items of the (population) standard deviation. mrv_var: of the variance. n: number of items.

Examples:
    >>> mrv = evaluate.load("mean_rank_variance")
    >>> mrv.compute(predictions=[[0, 2], [5, 5]])
    {'mrv_std': 0.5, 'mrv_var': 0.5, 'n': 2}
"""


class MeanRankVariance(evaluate.Metric):
    """Spread of an item's rank over languages."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64"))}),
        )

    def _compute(self, predictions: list[list[float]]) -> dict[str, Any]:
        lengths = {len(ranks) for ranks in predictions}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"every item needs one rank per language, found lists of {sorted(lengths)} ranks")
        return {**mean_rank_variance(np.transpose(predictions)), "n": len(predictions)}
