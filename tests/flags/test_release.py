"""What a release is made of, from flags and from what a training left beside its model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from xvlm2vec.flags.release import (
    _model_and_adapter,
    base_card,
    card_scores,
    english_change_points,
    is_hub_id,
    is_quickstart,
    release_card,
)
from xvlm2vec.flags.training_notes import measured_emissions
from xvlm2vec.quickstart.run_folder import RunFolder


def results(p_at_1: float, **columns: object) -> SimpleNamespace:
    rows = [
        {"task": "c", "language": code, "dataset": "emoji", "style": "verbatim", "p_at_1": p_at_1, "n": 50,
         "ci95": [0.1, 0.9]} | columns
        for code in ("en", "de")
    ]  # fmt: skip
    return SimpleNamespace(rows=rows)


def flags(**changes: object) -> SimpleNamespace:
    names = ("adapter", "name", "license", "base_model", "results", "before", "benchmark_id")
    return SimpleNamespace(**{**dict.fromkeys(names), "description": "", "languages": (), "datasets": (), "limits": [],
                              "to": "./out", **changes})  # fmt: skip


@pytest.mark.parametrize(
    ("place", "on_hub"),
    [("me/model", True), ("./me/model", False), ("out", False), ("/a/b", False), ("a/b/c", False), ("~/b", False)],
)
def test_a_hub_id_is_told_from_a_folder(place: str, on_hub: bool) -> None:
    assert is_hub_id(place) is on_hub


def test_scores_name_what_varies() -> None:
    found = results(0.9)
    assert card_scores(found) == {"c": {key: {"p_at_1": 0.9, "n": 50, "ci95": [0.1, 0.9]} for key in ("en", "de")}}
    found.rows += results(0.8, style="translated").rows
    assert list(card_scores(found)) == ["c verbatim", "c translated"]


def test_english_change_points_needs_both_models() -> None:
    assert english_change_points({"student": results(0.9), "teacher": results(0.95)}) == {"c": -5.0}
    assert english_change_points({"student": results(0.9)}) == {}


def test_emissions_are_what_codecarbon_measured(tmp_path: Path) -> None:
    assert measured_emissions(tmp_path) == {}
    (tmp_path / "checkpoints").mkdir()
    head = "timestamp,emissions,country_name,cpu_model,gpu_model\n"
    rows = "1,0.001,Norway,Some CPU,\n2,0.0005,Norway,Some CPU,\n"
    (tmp_path / "checkpoints" / "emissions.csv").write_text(head + rows, encoding="utf-8")
    assert measured_emissions(tmp_path) == {
        "emissions": 1.5,
        "source": "codecarbon",
        "hardware_used": "Some CPU",
        "geographical_location": "Norway",
    }
    (tmp_path / "checkpoints" / "emissions.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no emissions file of CodeCarbon"):
        measured_emissions(tmp_path)


def test_an_adapter_alone_names_the_model_below(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder, name, content in (
        (base, "config.json", {"model_type": "xvlm2vec"}),
        (adapter, "adapter_config.json", {"base_model_name_or_path": str(base)}),
    ):
        folder.mkdir()
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    assert _model_and_adapter(str(adapter), None) == (str(base), str(adapter))
    assert _model_and_adapter(str(base), str(adapter)) == (str(base), str(adapter))
    assert _model_and_adapter(str(base), None) == (str(base), None)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"was trained on .*base, not on .*other; pass that model"):
        _model_and_adapter(str(tmp_path / "other"), str(adapter))


def test_the_card_takes_the_name_of_the_repository_and_what_the_training_wrote(tmp_path: Path) -> None:
    notes = {"loss": {"name": "SomeLoss", "citation": "@misc{x}"}, "settings": {"seed": 3}}
    (tmp_path / "distillation.json").write_text(json.dumps(notes), encoding="utf-8")
    given = {"datasets": ("me/pairs",), "limits": ["It reads no text in images."]}
    card = release_card(flags(model=str(tmp_path), to="me/found", **given), str(tmp_path), None)
    assert (card.name, card.method) == ("found", "self-knowledge distillation")
    assert {"datasets": card.datasets, "limits": card.limits} == given
    assert [(loss.name, loss.citation) for loss in card.losses] == [("SomeLoss", "@misc{x}")]
    assert card.hyperparameters == {"seed": 3}
    assert release_card(flags(model=str(tmp_path)), str(tmp_path), None).name == tmp_path.name
    (tmp_path / "distillation.json").write_text("{half", encoding="utf-8")
    with pytest.raises(ValueError, match="is no valid JSON"):
        release_card(flags(model=str(tmp_path)), str(tmp_path), None)


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        ([1], "a list instead of fields"),
        ({"loss": "x"}, "loss is a str instead of a dict"),
        ({"loss": {"name": "SomeLoss"}}, "loss.citation is not there, or is no text"),
        ({"settings": 3}, "settings is a int instead of a dict"),
        ({"start": ["a/b"]}, "start is a list instead of a str"),
    ],
)
def test_notes_of_a_wrong_type_are_named(tmp_path: Path, notes: object, told: str) -> None:
    (tmp_path / "distillation.json").write_text(json.dumps(notes), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"distillation\.json: {told}"):
        release_card(flags(model=str(tmp_path)), str(tmp_path), None)


def test_the_card_names_what_the_training_began_from(tmp_path: Path) -> None:
    notes = {"start": "someone/embedder", "versions": {"torch": "2.9.0"}}
    (tmp_path / "distillation.json").write_text(json.dumps(notes), encoding="utf-8")
    card = release_card(flags(model=str(tmp_path)), str(tmp_path), None)
    assert (card.base_model, card.base_model_relation) == ("someone/embedder", "finetune")
    assert card.versions == {"torch": "2.9.0"}
    assert release_card(flags(model=str(tmp_path), base_model="me/other"), str(tmp_path), None).base_model == "me/other"
    merged = release_card(flags(model=str(tmp_path)), "someone/base", str(tmp_path), "c" * 40)
    assert (merged.base_model, merged.adapter_base, merged.base_revision) == ("someone/base", "someone/base", "c" * 40)


def test_the_card_of_a_base_has_its_own_scores(tmp_path: Path) -> None:
    card = release_card(flags(model=str(tmp_path), license="mit", languages=("en", "de")), str(tmp_path), None)
    assert base_card(card).scores == {}
    object.__setattr__(card, "scores", {"student": {"c": {}}, "teacher": card_scores(results(0.5))})
    below = base_card(card)
    assert below.scores == {"student": card_scores(results(0.5))}
    assert (below.license, below.languages) == ("mit", ("en",))


def test_a_training_is_no_quickstart_and_a_damaged_state_is_told(tmp_path: Path) -> None:
    assert not is_quickstart(tmp_path)
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"settings": {"learning_rate": 1.0}, "stages": {}}), encoding="utf-8")
    assert not is_quickstart(tmp_path)
    state.write_text("{half", encoding="utf-8")
    with pytest.raises(ValueError, match="does not hold the settings of a run"):
        is_quickstart(tmp_path)
    state.write_text(json.dumps({"settings": {"sizes": {}}, "stages": {}}), encoding="utf-8")
    with pytest.raises(ValueError, match="does not hold the settings of a run"):
        RunFolder.open(tmp_path)
