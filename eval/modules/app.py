"""The page of a metric on the Hub: its description, and a box for arguments as JSON."""

import json
from pathlib import Path

import evaluate
import gradio

_FOLDER = Path(__file__).parent
_METRIC = evaluate.load(str(next(path for path in _FOLDER.glob("*.py") if path.name not in {"app.py", "metrics.py"})))


def compute(arguments: str) -> dict:
    """Calls the metric with arguments written as a JSON object."""
    try:
        return _METRIC.compute(**json.loads(arguments))
    except (ValueError, TypeError) as error:
        raise gradio.Error(str(error)) from error


gradio.Interface(
    compute,
    gradio.Code(language="json", label='Arguments: {"predictions": [...], ...}'),
    gradio.JSON(label="Result"),
    title=_METRIC.name,
    description=_METRIC.inputs_description,
    article=(_FOLDER / "README.md").read_text(encoding="utf-8").split("---", 2)[-1],
).launch()
