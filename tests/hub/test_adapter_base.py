"""The model below an adapter: the very commit that the adapter names, and never a stranger's of the same name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from test_release_to_hub import SIZES

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.cli import main
from xvlm2vec.flags.models import adapter_base
from xvlm2vec.quickstart.config import QuickstartConfig
from xvlm2vec.quickstart.run_folder import RunFolder

RELEASE = """
import json, sys
from xvlm2vec.commands.release import _parser
from xvlm2vec.flags.release import release_inputs
from xvlm2vec.flags.models import load_embedder

inputs = release_inputs(_parser().parse_args([sys.argv[1], "--to", "./out"]))
both = [load_embedder(sys.argv[1])[0], inputs.model.get_base_model()]
print(json.dumps([inputs.card.base_revision, *(model.encode(text=["ein Hund"]).tolist() for model in both)]))
"""


def push_base(loopback, repo_id: str, folder: Path) -> str:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    if ("model", repo_id) not in loopback.store.repos:
        loopback.create(repo_id)
    return loopback.store.push(loopback.repo(repo_id), files).oid


def save_adapter(adapted: PeftModel, folder: Path, base: str, revision: str | None = None) -> Path:
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    path = folder / "adapter_config.json"
    changes = {"base_model_name_or_path": base, "revision": revision, "auto_mapping": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")
    return folder


def test_an_adapter_is_put_on_the_commit_that_it_names(
    hub_site, loopback, adapted: PeftModel, model: XVLM2VecModel, processor: XVLM2VecProcessor, tmp_path: Path
) -> None:
    """The base moved on: its newest commit gives other vectors, and loads without a complaint."""
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    first = push_base(loopback, "acme/base", tmp_path / "base")
    moved_on = XVLM2VecModel.from_pretrained(tmp_path / "base")
    moved_on.backbone.text_model.norm.weight.data[::2] *= -1
    moved_on.save_pretrained(tmp_path / "base")
    assert push_base(loopback, "acme/base", tmp_path / "base") != first

    adapter = save_adapter(adapted, tmp_path / "adapter", "acme/base", first)
    revision, *vectors = json.loads(hub_site.python(RELEASE, adapter).splitlines()[-1])
    assert revision == first
    expected = adapted.get_base_model().encode(text=["ein Hund"], processor=processor)
    for found in vectors:
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture
def run(adapted: PeftModel, tmp_path: Path) -> Path:
    """The folder of a run with an adapter that names its base by a path that could be a Hub id, and no base."""
    folder = tmp_path / "run"
    RunFolder(QuickstartConfig(str(folder), languages=("de",), lora=True, sizes=SIZES))
    save_adapter(adapted, folder / "adapter", "run/teacher")
    for name in ("student", "teacher"):
        (folder / "scores" / name).mkdir(parents=True)
    return folder


def test_the_adapter_of_a_run_without_its_teacher_is_told(
    hub_site, loopback, run: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a stranger has a repository of that name."""
    push_base(loopback, "run/teacher", exported)
    before = len(loopback.log)
    adapter = hub_site.cli("release", run / "adapter", "--to", "./out")
    assert adapter.returncode == 1
    assert f"'{run / 'teacher'}', which cannot be loaded (there is no such folder)" in adapter.stderr
    assert not loopback.log[before:], "nothing was asked of the Hub"


def test_a_run_without_its_teacher_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", str(run), "--to", "./out"]) == 1
    told = capsys.readouterr().err
    assert "teacher is gone, the model below the adapter of this run: put it back" in told


def test_the_base_of_a_run_is_its_own_teacher(run: Path, exported: Path) -> None:
    shutil.copytree(exported, run / "teacher")
    assert adapter_base(str(run / "adapter")).source == str(run / "teacher")
