"""Results that earlier versions wrote, read as what is written today."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

FORMAT = 2
"""Written into `results.json` as `format`; files of the first form have no such field."""

OLD_IMAGES = "pictures"
"""The folder, and the key, of the copies of images in the first form."""


def current_results(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Turns the content of a results file of the first form into that of `FORMAT`; any other stays as it is.

    The first form kept the cosine as `english_drift` (1 is best); now it is the mean of one minus the cosine.

    Args:
        content: What the file holds, checked; it is changed.
        path: The file, for the warning.
    """
    if content.get("format", 1) >= FORMAT:
        return content
    examples = content.get("examples", [])
    parts = [part for item in examples for part in (item["query"], item["gold"], *item["top"]) if OLD_IMAGES in part]
    measures = [row["alignment"] for row in content["rows"] if "english_drift" in row.get("alignment", {})]
    for part in parts:
        part["images"] = part.pop(OLD_IMAGES)
    for measure in measures:
        measure["english_drift"] = 1 - measure["english_drift"]
        if "english_drift_min" in measure:
            measure["english_drift_max"] = 1 - measure.pop("english_drift_min")
    if parts or measures:
        warnings.warn(
            f"{path} was written by an earlier version; it is read for one more release. Evaluate again, or load and "
            "save it with xvlm2vec.eval.results.Results.",
            DeprecationWarning,
            stacklevel=3,
        )
    return content
