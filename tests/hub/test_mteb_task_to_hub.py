"""A benchmark's tasks for mteb, pushed to a Hub, from which mteb loads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loopback_hub import ORG, LoopbackHub
from PIL import Image

LOAD = """
import runpy, sys
task = runpy.run_path(sys.argv[1])["XTD10T2IRetrieval"]()
task.load_data()
part = task.dataset["de"]["test"]
print(part["queries"]["text"][0], part["corpus"][0]["image"].size, task.metadata.revision)
"""


@pytest.mark.slow
def test_what_is_pushed_is_named_by_its_commit(hub_site, loopback: LoopbackHub, tmp_path: Path) -> None:
    data, output = tmp_path / "xtd10", tmp_path / "out"
    (data / "images").mkdir(parents=True)
    for name, color in (("a.jpg", (250, 0, 0)), ("b.jpg", (0, 250, 0))):
        Image.new("RGB", (20, 10), color).save(data / "images" / name)
    captions = {"en": [["red"], ["green"]], "de": [["rot"], ["grün"]]}
    (data / "xtd.json").write_text(json.dumps({"images": ["a.jpg", "b.jpg"], "captions": captions}), encoding="utf-8")
    command = ["mteb-task", "xtd10", "--data", data, "--output", output, "--namespace", ORG, "--push"]
    done = hub_site.cli(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    repo = loopback.repo(f"{ORG}/XTD10T2IRetrieval", "dataset")
    path = output / "mteb" / "tasks" / "retrieval" / "multilingual" / "xtd10_t2i_retrieval.py"
    assert hub_site.python(LOAD, str(path)).splitlines()[-1] == f"rot (20, 10) {repo.head}"
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
