from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from peft import PeftModel

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.hub.card import CardError, ReleaseCard, eval_results, read_metadata, write_card, write_license_note
from xvlm2vec.hub.export import export_adapter, export_model

PLACEHOLDERS = ("more information", "todo", "none", "{{", "{%", "[]", "nan")

RUN_SNIPPETS = """
import importlib.abc, json, sys
class KeepOut(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] == "xvlm2vec":
            raise ModuleNotFoundError(fullname, name=fullname)
sys.meta_path.insert(0, KeepOut())
for snippet in json.load(open(sys.argv[1], encoding="utf-8")):
    scope = {}
    exec(compile(snippet, "snippet", "exec"), scope)
    print("shape", tuple(scope["embeddings"].shape))
"""


def snippets(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_template_is_part_of_the_package() -> None:
    template = resources.files("xvlm2vec.hub.front").joinpath("model_card.md").read_text(encoding="utf-8")
    assert template.startswith("---\n{{ card_data }}")


def test_a_full_card_says_everything(make_card, tmp_path: Path) -> None:
    card = make_card(adapter_id="someone/tiny-adapter", adapter_base="someone/tiny-teacher")
    path = write_card(tmp_path, card, prompts={"query": "Find | it: "}, image_size=(32, 32), dims=64)
    text = path.read_text(encoding="utf-8")
    for part in (
        "in 2 languages (en, de)",
        "`someone/tiny-teacher` by self-distillation",
        "| en | 91.0 (87.0 to 94.5) | 100.0 (100.0 to 100.0) |",
        "| de | 88.5 (84.0 to 92.5) |  |",
        "Text to image (n = 200)",
        "| de | 31.0 |",
        "English after distillation, compared with the teacher, in points of P@1: Text to image -1.0.",
        "@article{x, title={Distilling}}",
        "| learning_rate | 0.0005 |",
        r"| batch \| size | 64 |",
        r"Find \| it:",
        "- It reads no text in images.",
        "torch 2.13.0",
    ):
        assert part in text
    assert len(snippets(path)) == 5
    for snippet in snippets(path):
        compile(snippet, "snippet", "exec")
    assert "\n\n\n" not in text


def test_what_the_training_emitted_is_told_where_it_was_measured(make_card, tmp_path: Path) -> None:
    measured = {"emissions": 12.345, "source": "codecarbon", "hardware_used": "2 CPUs"}
    path = write_card(tmp_path, make_card(emissions=measured), weights="1,234 weights in float32 (0.0 MB)")
    text = path.read_text(encoding="utf-8")
    assert "12.3 g of CO2 equivalents on 2 CPUs, measured by codecarbon." in text
    assert "The model has 1,234 weights in float32 (0.0 MB)." in text
    assert read_metadata(path)["co2_eq_emissions"] == measured


def test_what_smaller_vectors_cost_is_told_where_it_was_measured(make_card, tmp_path: Path) -> None:
    size = {"dim": 64, "precision": "int8", "bytes": 64, "p_at_1": 0.832, "loss": 0.048, "worst_language": "ar",
            "worst_loss": 0.055}  # fmt: skip
    path = write_card(tmp_path, make_card(sizes=[size]))
    assert "| 64 | int8 | 64 | 83.2 | 4.8 | 5.5 (ar) |" in path.read_text(encoding="utf-8")
    assert "Smaller vectors" not in write_card(tmp_path, make_card()).read_text(encoding="utf-8")
    with pytest.raises(CardError, match="'sizes': entry 0 lacks bytes, loss"):
        make_card(sizes=[{name: size[name] for name in size if name not in {"bytes", "loss"}}])


def test_a_model_without_remote_code_is_pointed_to(make_card, tmp_path: Path) -> None:
    for on_hub, link in ((True, "[someone/tiny-native](https://huggingface.co/"), (False, "`someone/tiny-native`")):
        path = write_card(tmp_path, make_card(native_id="someone/tiny-native", on_hub=on_hub))
        text = path.read_text(encoding="utf-8")
        assert f"The same vectors without running code from this repository, from {link}" in text
        assert 'model = SentenceTransformer("someone/tiny-native")' in text


def test_the_metadata_is_what_the_hub_reads(make_card, tmp_path: Path) -> None:
    card = make_card()
    path = write_card(tmp_path, card)
    data = ModelCard.load(path).data
    assert data.language == ["en", "de"]
    assert data.base_model == "someone/tiny-teacher"
    assert data.base_model_relation == "finetune"
    assert data.license == "apache-2.0"
    assert data.datasets == ["someone/parallel"]
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "feature-extraction"
    assert "xvlm2vec" in data.tags
    found = {(r.dataset_config, r.dataset_split): r.metric_value for r in data.eval_results}
    assert found == {("t2i", "en"): 91.0, ("t2i", "de"): 88.5, ("c", "en"): 100.0}
    assert len(eval_results(card)) == 3
    assert read_metadata(path)["model-index"][0]["name"] == "tiny-xvlm2vec"


def test_many_instructions_are_folded(make_card, tmp_path: Path) -> None:
    few = write_card(tmp_path, make_card(), prompts={"query": "Find it: "}).read_text(encoding="utf-8")
    assert "<details>" not in few
    prompts = {f"t2i-{number}": "Find it: " for number in range(9)}
    many = write_card(tmp_path, make_card(), prompts=prompts).read_text(encoding="utf-8")
    folded = many[many.index("<details>") : many.index("</details>")]
    assert "<summary>The 9 named instructions</summary>\n\nTo use one" in folded
    assert "\n\n| name | instruction |\n" in folded, "a table needs an empty line before it"
    assert "| `t2i-8` | Find it:  |\n\n" in folded
    assert "\n\n\n" not in many


def test_data_that_are_not_on_the_hub_are_told_in_the_text_alone(make_card, tmp_path: Path) -> None:
    path = write_card(tmp_path, make_card(datasets=["someone/parallel", "Emoji of a font"]))
    assert "Data: someone/parallel, Emoji of a font." in path.read_text(encoding="utf-8")
    assert read_metadata(path)["datasets"] == ["someone/parallel"]


def test_a_card_without_data_leaves_the_fields_out(tmp_path: Path) -> None:
    path = write_card(tmp_path, ReleaseCard(name="bare"))
    text = path.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL).lower()
    assert not [word for word in PLACEHOLDERS if word in prose]
    for heading in ("## Scores", "## Training", "## Limits", "## Citation"):
        assert heading not in text
    assert set(read_metadata(path)) == {"library_name", "pipeline_tag", "tags"}
    assert len(snippets(path)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": "en"}, "'languages' with value 'en'"),
        ({"license": 3}, "'license' with value 3"),
        ({"hyperparameters": ["lr"]}, "'hyperparameters' expected a dict"),
        ({"name": ""}, "'name' is empty"),
        ({"emissions": {"emissions": "little"}}, "'emissions': 'little'"),
        ({"scores": {"student": {"c": {"de": {"p_at_1": 91.0}}}}}, r"task c, language de: p_at_1 is 91\.0"),
        ({"scores": {"student": {"c": {"de": {}}}}}, "p_at_1 is None"),
        ({"scores": {"student": {"c": [0.9]}}}, r"scores\['student'\]\['c'\]' expected a dict, got list"),
        ({"scores": {"student": {"c": {"de": {"p_at_1": 0.9, "ci95": [0.8]}}}}}, r"language de: ci95 is \[0\.8\]"),
        ({"scores": {"student": {"c": {"de": {"p_at_1": 0.9, "n": "50"}}}}}, "language de: n is '50'"),
        ({"languages": ["en", 3]}, "Invalid item at index 1 in list 'languages'"),
        ({"losses": ["SelfDistillationLoss"]}, "Invalid item at index 0 in list 'losses'"),
        ({"english_change_points": {"c": "-1"}}, r"'english_change_points\['c'\]' with value '-1'"),
    ],
)
def test_fields_of_the_wrong_type_are_named(make_card, changes: dict, message: str) -> None:
    with pytest.raises(CardError, match=message):
        make_card(**changes)


def test_the_license_note_tells_code_from_weights(make_card, tmp_path: Path) -> None:
    text = write_license_note(tmp_path, make_card()).read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Weights and all other files: apache-2.0." in text
    assert "someone/tiny-teacher" in text
    assert "Weights" not in write_license_note(tmp_path, ReleaseCard(name="x")).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_snippets_of_both_cards_run_without_the_package(
    adapted: PeftModel, model: XVLM2VecModel, processor: XVLM2VecProcessor, make_card, tmp_path: Path
) -> None:
    base = export_model(model, processor, tmp_path / "base")
    card = make_card(
        repo_id=str(tmp_path / "model"),
        adapter_id=str(tmp_path / "adapter"),
        adapter_base=str(base),
        base_revision=None,
    )
    folder = export_model(adapted, processor, tmp_path / "model", card=card)
    adapter = export_adapter(adapted, tmp_path / "adapter", base=base, card=card)
    found = snippets(folder / "README.md") + snippets(adapter / "README.md")
    assert len(found) == 6
    (tmp_path / "snippets.json").write_text(json.dumps(found), encoding="utf-8")
    (tmp_path / "run.py").write_text(RUN_SNIPPETS, encoding="utf-8")
    command = [sys.executable, "-I", str(tmp_path / "run.py"), str(tmp_path / "snippets.json")]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    shapes = [line for line in child.stdout.splitlines() if line.startswith("shape")]
    assert shapes == [f"shape ({rows}, 64)" for rows in (3, 2, 3, 3, 1, 2)]
