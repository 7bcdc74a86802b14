"""A release as a whole, and what happens when a part of it fails."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import pytest
import torch
from datasets import Dataset, DatasetDict, load_dataset
from peft import PeftModel

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.hub import release
from xvlm2vec.hub.dataset_export import BenchmarkCard
from xvlm2vec.hub.golden import read_golden, write_golden
from xvlm2vec.hub.native import NativeError
from xvlm2vec.hub.release import (
    BaseInputs,
    BenchmarkInputs,
    ReleaseInputs,
    name_for_folder,
    release_to_folder,
    show_proof,
    snippet_path,
)
from xvlm2vec.hub.staging import ExportError
from xvlm2vec.hub.verify import VerifyError


@pytest.fixture
def benchmark() -> BenchmarkInputs:
    rows = Dataset.from_dict({"text": ["ein Hund"], "images": [["a.png", "b.png"]]})
    return BenchmarkInputs({"t2i": DatasetDict({"de": rows})}, None, BenchmarkCard("Tiny"))


@pytest.mark.slow
def test_a_release_has_all_parts_and_is_verified(
    adapted: PeftModel, exported: Path, processor: XVLM2VecProcessor, benchmark, make_card, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "release" / "base")
    card = make_card(adapter_base="../base")
    run = ReleaseInputs(adapted, processor, card, adapter=adapted, benchmark=benchmark, dtypes=("float32",))
    done = release_to_folder(run, tmp_path / "release")
    assert done.report.ok
    assert read_golden(done.folders["model"]).made_with["dtypes"] == ["float32"]  # which `verify` keeps to
    assert "proven in float32 alone" in (done.folders["model"] / "README.md").read_text(encoding="utf-8")
    assert re.search(
        r"^adapter: 5 comparisons through peft, largest 1-cos \S+ in float32$", show_proof(done), re.MULTILINE
    )
    assert sorted(path.name for path in (tmp_path / "release").iterdir()) == ["adapter", "base", "benchmark", "model"]
    assert (done.folders["model"], done.folders["adapter"]) == (
        tmp_path / "release" / "model",
        tmp_path / "release" / "adapter",
    )
    assert (
        json.loads((done.folders["adapter"] / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "../base"
    )
    rows = load_dataset(str(done.folders["benchmark"]), "t2i", split="de", cache_dir=str(tmp_path / "cache"))
    assert rows["text"][:] == ["ein Hund"]


@pytest.mark.slow
def test_a_release_that_fails_verification_keeps_the_earlier_one(
    model: XVLM2VecModel, processor: XVLM2VecProcessor, make_card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The golden vectors of the export are turned round, as if the saved weights gave others."""
    folder = tmp_path / "release"
    earlier = release.export_model(model, processor, folder / "model", card=make_card())
    before = {path.name: path.read_bytes() for path in earlier.iterdir()}

    export_well = release.export_model

    def export_badly(*args, **kwargs) -> Path:
        written = export_well(*args, **kwargs)
        flipped = XVLM2VecModel.from_pretrained(written)
        with torch.no_grad():
            flipped.backbone.text_model.norm.weight.mul_(-1)
        write_golden(written, flipped, processor)
        return written

    monkeypatch.setattr(release, "export_model", export_badly)
    with pytest.raises(VerifyError, match="DOES NOT") as caught:
        release_to_folder(ReleaseInputs(model, processor, make_card()), folder, dtypes=("float32",))
    assert caught.value.report.checks[0].first_difference == "text en"
    assert {path.name: path.read_bytes() for path in earlier.iterdir()} == before
    assert read_golden(folder / "model.unverified"), "the failed export stays to be looked at"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("out", "./out"), ("./out/", "./out"), ("../out", "../out"), ("/a/out", "/a/out"),
        (PureWindowsPath("runs\\new"), "./runs/new"), (PureWindowsPath("C:\\Users\\new"), "C:/Users/new"),
    ],
)  # fmt: skip
def test_snippets_name_folders_with_slashes(folder: str | PureWindowsPath, name: str) -> None:
    """In a string of Python, the backslashes of `C:\\Users\\new` begin escapes."""
    assert snippet_path(folder) == name


def test_cards_name_the_folders_of_a_release(adapted: PeftModel, model, processor, benchmark, make_card) -> None:
    base = BaseInputs(model, make_card(name="base"))
    run = ReleaseInputs(adapted, processor, make_card(), adapter=adapted, base=base, benchmark=benchmark, native=True)
    named = name_for_folder(run, "out")
    card = named.card
    assert (card.repo_id, card.adapter_id, card.native_id) == ("./out/model", "./out/adapter", "./out/native")
    assert card.adapter_base == str(Path("out/base").resolve())
    assert (named.base.card.repo_id, named.benchmark.card.repo_id) == ("./out/base", "./out/benchmark")
    assert not card.on_hub
    assert name_for_folder(run, "/srv/out/").card.repo_id == "/srv/out/model"


def test_a_part_that_cannot_be_written_leaves_the_earlier_release_as_it_was(
    model: XVLM2VecModel, processor: XVLM2VecProcessor, benchmark, make_card, exported: Path, tmp_path: Path
) -> None:
    """The benchmark, which comes last, has a name that nothing can load."""
    folder = tmp_path / "release"
    shutil.copytree(exported, folder / "model")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    bad = replace(benchmark, tasks={"no name": benchmark.tasks["t2i"]})
    run = ReleaseInputs(model, processor, make_card(name="other"), benchmark=bad)
    with pytest.raises(ExportError, match="is no name for a split"):
        release_to_folder(run, folder, dtypes=("float32",))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_needs_its_code_is_refused_before_anything_is_written(
    model: XVLM2VecModel, processor: XVLM2VecProcessor, make_card, tmp_path: Path
) -> None:
    strange = copy.deepcopy(model)
    strange.config.layout = "vlm2vec"
    with pytest.raises(NativeError, match="release it without --native"):
        release_to_folder(ReleaseInputs(strange, processor, make_card(), native=True), tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_an_adapter_needs_its_base(adapted: PeftModel, processor, make_card, tmp_path: Path) -> None:
    run = ReleaseInputs(adapted, processor, make_card(), adapter=adapted)
    with pytest.raises(ExportError, match="adapter_base"):
        release_to_folder(run, tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_a_foreign_part_stops_the_release_before_anything_is_written(
    model: XVLM2VecModel, processor: XVLM2VecProcessor, make_card, tmp_path: Path
) -> None:
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "mine.txt").write_text("x")
    with pytest.raises(ExportError, match="benchmark is not empty"):
        release_to_folder(ReleaseInputs(model, processor, make_card()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark"]
