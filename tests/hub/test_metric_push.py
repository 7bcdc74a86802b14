"""A metric is pushed as a Space and loaded from there by the `evaluate` library, each in a process of its own."""

from __future__ import annotations

import json

import pytest

PUSH = """
from xvlm2vec.eval.publish_metrics import push_metric_module
print(push_metric_module("hit_at_k", "{namespace}/hit_at_k"))
"""
LOAD = """
import json, sys, evaluate
module = evaluate.load("{namespace}/hit_at_k")
print(json.dumps(module.compute(predictions=[[0.9, 0.1], [0.5, 0.5]], references=[0, 1])))
assert "xvlm2vec" not in sys.modules
"""


@pytest.mark.slow
def test_a_pushed_metric_loads_from_the_hub(hub_site) -> None:
    pytest.importorskip("evaluate")
    url = hub_site.python(PUSH.format(namespace=hub_site.namespace), cache="author")
    assert url.splitlines()[-1].endswith(f"/spaces/{hub_site.namespace}/hit_at_k")
    shown = hub_site.python(LOAD.format(namespace=hub_site.namespace), cache="reader")
    assert json.loads(shown.splitlines()[-1]) == {"hit_at_k": 0.75, "n": 2, "tied": 1}
    again = hub_site.python(PUSH.format(namespace=hub_site.namespace), cache="author")
    assert again.splitlines()[-1] == url.splitlines()[-1]
