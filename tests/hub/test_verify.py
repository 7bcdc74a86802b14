"""Verification in fresh processes, and the sabotage that it must catch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.hub.export import export_adapter
from xvlm2vec.hub.golden import read_golden, write_golden
from xvlm2vec.hub.saved_weights import GoldenError
from xvlm2vec.hub.verify import Check, VerifyReport, compare, verify

OTHER_LAYOUT = """
FORMS = {"text": "{text}", "image": "{images}", "image+text": "{text}{images}"}
recipe_of = lambda family: Recipe(FORMS, image=family.image)
"""
LAST_COLUMN = """
def last_token_index(attention_mask):
    return torch.full((attention_mask.shape[0],), attention_mask.shape[1] - 1)
"""
IMPORTS_THE_PACKAGE = "\nimport xvlm2vec\n"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def edit_weights(folder: Path, name: str, change) -> None:
    """Changes the saved tensors whose names hold `name`."""
    hits = 0
    for shard in folder.glob("model-*.safetensors"):
        tensors = load_file(shard)
        for key in tensors:
            if name in key:
                tensors[key] = change(tensors[key])
                hits += 1
        save_file(tensors, shard, metadata={"format": "pt"})
    assert hits, f"no tensor is called {name}"


def test_compare_names_the_first_row_out_of_bounds(exported: Path) -> None:
    golden = read_golden(exported)
    same = compare(golden.vectors, golden, "automodel", "float32", "alone")
    assert same.ok
    assert same.max_deviation == 0
    moved = golden.vectors.clone()
    moved[3] += 0.01 * torch.randn(moved.shape[1], generator=torch.Generator().manual_seed(0))
    moved[5] *= -1
    check = compare(moved, golden)
    assert check.first_difference == golden.rows[3].name
    assert check.max_distance == pytest.approx(2)


def test_compare_sees_length_nan_and_shape(exported: Path) -> None:
    golden = read_golden(exported)
    assert not compare(golden.vectors * 2, golden).ok, "the same direction, but not normalised"
    holed = golden.vectors.clone()
    holed[1, 0] = float("nan")
    assert compare(holed, golden).first_difference == golden.rows[1].name
    assert "shape" in str(compare(golden.vectors[:, :8], golden).first_difference)


def test_bounds_follow_the_dtype(exported: Path) -> None:
    golden = read_golden(exported)
    noise = 2e-3 * torch.randn(golden.vectors.shape, generator=torch.Generator().manual_seed(0))
    assert not compare(golden.vectors + noise, golden, dtype="float32").ok
    assert compare(golden.vectors + noise, golden, dtype="bfloat16").ok


def test_unknown_doors_and_missing_folders_are_errors(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loader window .*automodel, sentence-transformers, peft"):
        verify(exported, loaders=("window",))
    with pytest.raises(ValueError, match="dtype int8"):
        verify(exported, dtypes=("int8",))
    with pytest.raises(ValueError, match="no revision 'main'"):
        verify(exported, revision="main")
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "absent")
    with pytest.raises(GoldenError, match="has no golden"):
        verify(tmp_path)


def test_an_empty_report_is_no_proof() -> None:
    assert not VerifyReport("x").ok


def test_a_model_that_half_precision_rounds_too_far_is_told_what_to_do() -> None:
    exact = Check("automodel", "float32", "alone", 1e-7, 1e-9)
    far = Check("automodel", "bfloat16", "alone", 2e-2, 2e-3, "image disc")
    assert (
        "this model rounds further than the bound (1-cos 2.0e-03, 1e-03 at most)"
        in VerifyReport("x", [exact, far]).table()
    )
    wrong = Check("automodel", "float32", "alone", 2e-2, 2e-3, "image disc")
    assert "rounds further" not in VerifyReport("x", [wrong, far]).table() + VerifyReport("x", [far]).table()


@pytest.fixture(scope="module")
def report(exported: Path) -> VerifyReport:
    return verify(exported)


@pytest.mark.slow
def test_both_doors_give_the_golden_vectors(report: VerifyReport) -> None:
    assert report.ok, report.table()
    found = {(check.loader, check.dtype, check.arrangement) for check in report.checks}
    everywhere = {"alone", "one batch", "reversed"}
    sides = {"padded left", "padded right"}
    for dtype in ("float32", "bfloat16"):
        assert {way for loader, kind, way in found if (loader, kind) == ("automodel", dtype)} == everywhere | sides
        assert {way for loader, kind, way in found if (loader, kind) == ("sentence-transformers", dtype)} == everywhere
    assert max(check.max_deviation for check in report.checks if check.dtype == "float32") < 1e-5
    assert all(check.max_deviation > 0 for check in report.checks if check.dtype == "bfloat16"), "truly half precision"


@pytest.mark.slow
def test_the_report_reads_well(report: VerifyReport) -> None:
    lines = report.table().splitlines()
    assert lines[0].split()[:3] == ["loader", "dtype", "arrangement"]
    assert len(lines) == 1 + len(report.checks) + 1
    assert lines[-1].endswith("gives its golden vectors.")
    assert report.ok


def test_one_door_in_a_fresh_process(exported: Path) -> None:
    report = verify(exported, loaders=("automodel",), dtypes=("float32",))
    assert report.ok, report.table()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["text_model.layers.1.mlp.down_proj.weight", "connector.modality_projection.proj.weight"],
    ids=["language model", "connector"],
)
def test_a_reinitialised_layer_is_caught(export_copy: Path, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    edit_weights(export_copy, name, lambda weight: torch.randn(weight.shape, generator=generator) * 0.02)
    report = verify(export_copy, loaders=("automodel",), dtypes=("float32",))
    assert not report.ok
    assert all(check.first_difference for check in report.checks)
    expected = "image disc" if "connector" in name else "text en"
    assert report.checks[0].first_difference == expected


@pytest.mark.slow
def test_one_changed_value_is_caught_even_where_vectors_hardly_move(export_copy: Path) -> None:
    def nudge(weight: torch.Tensor) -> torch.Tensor:
        weight.view(-1)[0] += 1e-4
        return weight

    edit_weights(export_copy, "text_model.embed_tokens.weight", nudge)
    report = verify(export_copy, loaders=("automodel",), dtypes=("float32",))
    assert all(check.ok for check in report.checks)
    assert report.problems == ["the weights are not those that the golden files were made from."]
    assert not report.ok


@pytest.mark.slow
def test_a_dropped_adapter_is_caught(export_copy: Path, adapted: PeftModel, processor, model: XVLM2VecModel) -> None:
    """The golden files of the adapted model beside the weights of its base, as when merging was forgotten."""
    write_golden(export_copy, adapted.get_base_model(), processor)
    report = verify(export_copy, loaders=("sentence-transformers",), dtypes=("float32",))
    assert not report.problems, "the weights are whole; only the vectors tell"
    assert all(check.first_difference == "text en" for check in report.checks)


@pytest.mark.slow
def test_an_adapter_over_its_base_is_checked_and_a_lost_half_is_caught(
    exported: Path, adapted: PeftModel, processor: XVLM2VecProcessor, tmp_path: Path
) -> None:
    adapter = export_adapter(adapted, tmp_path / "adapter", base=exported, processor=processor)
    good = verify(adapter)
    assert good.ok, good.table()
    assert {check.loader for check in good.checks} == {"peft"}
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "lora_B" not in key}, adapter / "adapter_model.safetensors"
    )
    bad = verify(adapter, dtypes=("float32",))
    assert bad.checks[0].first_difference == "text en"
    assert bad.problems == ["the weights are not those that the golden files were made from."]


@pytest.mark.slow
def test_another_prompt_layout_is_caught(export_copy: Path) -> None:
    append(export_copy / "processing_xvlm2vec.py", OTHER_LAYOUT)
    report = verify(export_copy, loaders=("automodel",), dtypes=("float32",))
    assert {check.first_difference for check in report.checks} == {"image and text en"}, report.table()


@pytest.mark.slow
def test_pooling_the_padding_is_caught_in_the_arrangements_that_pad(export_copy: Path) -> None:
    append(export_copy / "pooling.py", LAST_COLUMN)
    report = verify(export_copy, loaders=("automodel",), dtypes=("float32",))
    outcome = {check.arrangement: check.ok for check in report.checks}
    assert outcome == {
        "alone": True,
        "padded left": True,
        "one batch": False,
        "reversed": False,
        "padded right": False,
    }


@pytest.mark.slow
def test_a_changed_instruction_is_caught(export_copy: Path) -> None:
    path = export_copy / "config_sentence_transformers.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["prompts"]["query"] = "Retrieve: "
    path.write_text(json.dumps(content), encoding="utf-8")
    report = verify(export_copy, loaders=("sentence-transformers",), dtypes=("float32",))
    assert not report.ok
    assert "'query' is 'Retrieve: ', was 'Find the image: '" in report.problems[0]


@pytest.mark.slow
def test_code_that_needs_the_package_fails_and_its_output_is_shown(export_copy: Path) -> None:
    append(export_copy / "rows.py", IMPORTS_THE_PACKAGE)
    report = verify(export_copy, loaders=("automodel",), dtypes=("float32",))
    assert not report.ok
    assert not report.checks
    assert "Traceback" in report.problems[0]
    assert "xvlm2vec" in report.table()


@pytest.mark.slow
def test_the_code_of_a_release_gets_no_token_and_an_offline_client(
    export_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever verifies a model lends it nothing."""
    path = export_copy / "modeling_xvlm2vec.py"
    lines = [
        path.read_text(encoding="utf-8"),
        "import os, huggingface_hub as hub",
        "assert hub.get_token() is None and hub.constants.HF_HUB_OFFLINE",
        "assert 'hf_mine' not in os.environ.values()",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    report = verify(export_copy, loaders=("automodel",), dtypes=("float32",))
    assert report.ok, report.table()
