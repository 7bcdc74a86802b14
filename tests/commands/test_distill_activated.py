"""`xvlm2vec distill --adapter activated`, and what the other commands do with the adapter: the base never moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from PIL import Image

from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.modeling.language_adapters import languages_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.adapter_folders import AdapterFolderError, add_languages, remove_languages

TINY = TinyModelConfig(
    image_size=16, patch_size=4, hidden_size=32, vision_layers=1, text_layers=2, heads=2, intermediate_size=48,
    vocab_size=400,
)  # fmt: skip
TEXTS = [("a red dog", "ein roter Hund", "un cane rosso"), ("rain over the sea", "Regen am Meer", "pioggia sul mare")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a corpus and a trained adapter."""
    folder = tmp_path_factory.mktemp("run")
    made, processor = build_tiny_model(TINY, [text for texts in TEXTS for text in texts])
    made.save_pretrained(folder / "base")
    processor.save_pretrained(folder / "base")
    rows = [
        {
            "id": f"row-{number}",
            "image": Image.new("RGB", (16, 16), (20 * number, 90, 200 - 20 * number)) if number % 2 else None,
            "text_en": TEXTS[number % 2][0],
            "translations": [
                {"lang": "de", "text": TEXTS[number % 2][1]},
                {"lang": "it", "text": TEXTS[number % 2][2]},
            ],
            "source": "test",
        }
        for number in range(8)
    ]
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(str(folder / "data"))
    flags = ["--max-steps", 3, "--adapter", "activated", "--lora-rank", 2, "--lora-dora", "--lora-train-embeddings"]
    assert call(*settings(folder, folder / "taught", *flags)) == 0
    return folder


def call(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def settings(folder: Path, output: Path, *more: object) -> list[object]:
    quiet = ["--use-cpu", "--logging-steps", 1, "--save-steps", 1, "--learning-rate", "1e-2"]
    places = ["--model", folder / "base", "--data", folder / "data", "--output", output]
    return ["distill", *places, *quiet, "--per-device-train-batch-size", 4, *more]


def test_it_writes_an_adapter_that_lies_beside_its_base(folder: Path) -> None:
    assert not (folder / "taught" / "merged").exists()
    config = json.loads((folder / "taught" / "adapter" / "adapter_config.json").read_text())
    assert config["xvlm2vec"]["languages"] == ["de", "it"]
    assert config["base_model_name_or_path"] == str(folder / "base")
    loaded, base = (XVLM2VecModel.from_pretrained(folder / place) for place in ("taught/adapter", "base"))
    rows = {"text": ["a red dog", None, "rain"], "images": [None, Image.new("RGB", (16, 16)), None]}
    np.testing.assert_array_equal(loaded.encode(**rows), base.encode(**rows))
    assert np.abs(loaded.encode("ein roter Hund", language="de") - base.encode("ein roter Hund")).max() > 1e-4


def test_the_same_command_is_through(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--max-steps", 3, "--adapter", "activated", "--lora-rank", 2, "--lora-dora", "--lora-train-embeddings"]
    assert call(*settings(folder, folder / "taught", *flags)) == 0
    assert "stays as it is" in capsys.readouterr().out


def test_encode_is_told_the_language(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lines.txt").write_text("ein roter Hund\nRegen\n", encoding="utf-8")
    vectors = {}
    for name, model, more in (
        ("base", "base", []), ("silent", "taught/adapter", []), ("told", "taught/adapter", ["--language", "de"])
    ):  # fmt: skip
        output = tmp_path / f"{name}.npy"
        assert call("encode", folder / model, "--text", tmp_path / "lines.txt", "--output", output, *more) == 0
        vectors[name] = np.load(output)
    np.testing.assert_array_equal(vectors["silent"], vectors["base"])
    assert np.abs(vectors["told"] - vectors["base"]).max() > 1e-4
    line = ["--text", tmp_path / "lines.txt", "--output", tmp_path / "no.npy", "--language", "tr"]
    assert call("encode", folder / "taught/adapter", *line) != 0
    assert "de, it" in capsys.readouterr().err


def test_encode_finds_languages_only_where_it_is_told_to(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["a dog is running in the park", "ein Hund läuft durch den Park", "un cane corre nel parco", "the sea"]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    output = tmp_path / "found.npy"
    line = ["--text", tmp_path / "lines.txt", "--output", output, "--language", "auto"]
    with caplog.at_level("INFO", "xvlm2vec"):
        assert call("encode", folder / "taught/adapter", *line) == 0
    assert "Languages found: en in 2 rows, de in 1 rows, it in 1 rows" in caplog.text
    model = XVLM2VecModel.from_pretrained(folder / "taught/adapter")
    expected = model.encode(lines, language=[None, "de", "it", None])
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)


def test_encode_knows_an_instruction_in_the_language_by_its_name(folder: Path, tmp_path: Path) -> None:
    base = XVLM2VecModel.from_pretrained(folder / "base")
    processor = base.processor
    base.config.prompts = {"query-de": "Finde ein Bild: "}
    base.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    shutil.copytree(folder / "taught/adapter", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "base")
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "lines.txt").write_text("ein roter Hund\n", encoding="utf-8")
    line = ["--text", tmp_path / "lines.txt", "--output", tmp_path / "a.npy", "--language", "de"]
    assert call("encode", tmp_path / "adapter", *line, "--instruction", "query-de") == 0
    model = XVLM2VecModel.from_pretrained(tmp_path / "adapter")
    expected = model.encode("ein roter Hund", language="de", instruction="query-de")
    np.testing.assert_allclose(np.load(tmp_path / "a.npy")[0], expected, atol=1e-6)
    shared = model.encode("ein roter Hund", language="de", instruction="Finde ein Bild: ")
    assert np.abs(expected - shared).max() > 1e-5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--adapter", "activated", "--lora"], "--lora is --adapter lora"),
        (["--adapter", "activated", "--teacher", "copy"], "has no effect with --adapter activated"),
        (["--adapter", "activated", "--freeze-vision", "false"], "would move the vectors of images"),
        (["--adapter", "activated", "--teacher-model", "other"], "learns the vectors of its own base"),
        (["--lora-rank", 4], "without --lora or --adapter"),
    ],
)
def test_flags_that_do_not_go_together(
    folder: Path, tmp_path: Path, flags: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*settings(folder, tmp_path / "run", "--max-steps", 1, *flags)) != 0
    assert message in capsys.readouterr().err


def test_an_adapter_is_no_base(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--max-steps", 1, "--model", folder / "taught/adapter", "--adapter", "activated"]
    assert call(*settings(folder, tmp_path / "run", *flags)) != 0
    assert "pass the base as --model" in capsys.readouterr().err


def test_the_plan_tells_what_is_kept(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*settings(folder, tmp_path / "run", "--plan", "--adapter", "activated")) == 0
    told = capsys.readouterr().out
    assert "Only translations have gradients" in told
    assert "No teacher is stored" in told


@pytest.mark.slow
def test_lora_by_both_names_is_one_run(folder: Path, tmp_path: Path) -> None:
    assert call(*settings(folder, tmp_path / "run", "--max-steps", 1, "--adapter", "lora", "--lora-rank", 2)) == 0
    assert call(*settings(folder, tmp_path / "run", "--max-steps", 1, "--lora", "--lora-rank", 2)) == 0
    assert (tmp_path / "run" / "merged" / "model.safetensors").is_file()


def test_an_adapter_for_each_language_is_taken_away_by_itself(folder: Path, tmp_path: Path) -> None:
    flags = ["--max-steps", 2, "--adapter", "activated", "--adapter-per-language", "--lora-rank", 2]
    assert call(*settings(folder, tmp_path / "run", *flags)) == 0
    assert call(*settings(folder, tmp_path / "run", *flags)) == 0  # which loads what was trained
    model = XVLM2VecModel.from_pretrained(tmp_path / "run" / "adapter")
    assert {name: part.languages for name, part in model.language_adapters.items()} == {"de": ["de"], "it": ["it"]}
    one = XVLM2VecModel.from_pretrained(tmp_path / "run" / "adapter" / "de")
    together = model.encode(["ein roter Hund", "un cane rosso"], language=["de", "it"])
    np.testing.assert_allclose(together[0], one.encode("ein roter Hund", language="de"), atol=1e-6)
    assert model.remove_languages("it") == ["de"]
    (tmp_path / "lines.txt").write_text("ein roter Hund\n", encoding="utf-8")
    line = ["--text", tmp_path / "lines.txt", "--output", tmp_path / "told.npy", "--language", "de"]
    assert call("encode", tmp_path / "run" / "adapter", *line) == 0
    np.testing.assert_allclose(np.load(tmp_path / "told.npy")[0], together[0], atol=1e-6)


def test_evaluate_takes_the_language_of_each_task(folder: Path) -> None:
    from xvlm2vec.eval.encoders import ModelEncoder
    from xvlm2vec.eval.ranking import RankingTask, Row
    from xvlm2vec.eval.runner import evaluate

    model, base = (XVLM2VecModel.from_pretrained(folder / place) for place in ("taught/adapter", "base"))
    images = {"red": Image.new("RGB", (16, 16), (200, 20, 20)), "blue": Image.new("RGB", (16, 16), (20, 20, 200))}
    lists = {"candidates": [Row(None, "red"), Row(None, "blue")], "candidate_index": [[0, 1], [1, 0]]}
    tasks = [
        RankingTask("tiny", "tiny", "t2i", language, "plain", [Row(text), Row(text + "!")], images=images, **lists)
        for language, text in (("en", "a red dog"), ("de", "ein roter Hund"), ("fr", "un chien"))
    ]
    asked: list[str | None] = []

    class Watched(ModelEncoder):
        def encode_rows(self, rows, images):  # type: ignore[no-untyped-def]
            asked.extend(row.language for row in rows)
            return super().encode_rows(rows, images)

    evaluate(Watched(model), tasks, progress=False)
    assert [language for language in asked if language] == ["de", "de"]
    asked.clear()
    evaluate(Watched(base), tasks, progress=False)
    assert not any(asked)


def test_verify_proves_zero_drift_and_catches_another_base(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    assert call("verify", folder / "taught/adapter") == 0
    assert "Zero drift: with its adapters for de, it" in capsys.readouterr().out
    shutil.copytree(folder / "base", tmp_path / "base")
    shutil.copytree(folder / "taught/adapter", tmp_path / "adapter")
    weights = load_file(tmp_path / "base/model.safetensors")
    weights[min(weights)].view(-1)[0] += 1e-3
    save_file(weights, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../base"
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    assert call("verify", tmp_path / "adapter") != 0
    assert "trained on other weights" in capsys.readouterr().err


def test_an_adapter_that_acts_everywhere_is_caught(folder: Path) -> None:
    from xvlm2vec.hub.zero_drift import compare_with_base

    model, base = (XVLM2VecModel.from_pretrained(folder / place) for place in ("taught/adapter", "base"))
    layer = next(module for module in model.modules() if hasattr(module, "activated"))
    layer.register_forward_hook(lambda layer, inputs, output: output + 1e-4)
    found = compare_with_base(model, base, base.processor)
    assert not found.ok
    assert "text en" in found.moved


def corpus_in(folder: Path, place: Path, language: str) -> Path:
    """The rows of the corpus with one other language."""
    rows = load_from_disk(str(folder / "data"))
    said = rows.map(lambda row: {"translations": [{"lang": language, "text": row["translations"][0]["text"] + " x"}]})
    said.save_to_disk(str(place))
    return place


def test_a_language_comes_and_goes_and_the_others_stay_byte_for_byte(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--max-steps", 2, "--adapter", "activated", "--adapter-per-language", "--lora-rank", 2]
    run = tmp_path / "run"
    assert call(*settings(folder, run, *flags)) == 0
    before = {path: path.read_bytes() for name in ("de", "it") for path in (run / "adapter" / name).iterdir()}
    assert len(before) == 4

    turkish = [*flags, "--data", corpus_in(folder, tmp_path / "turkish", "tr")]
    assert call(*settings(folder, run, *turkish)) == 0
    assert "Adapters for tr were added" in capsys.readouterr().out
    assert call(*settings(folder, run, *turkish)) == 0  # which is through
    model = XVLM2VecModel.from_pretrained(run / "adapter")
    assert languages_of(model) == ["de", "it", "tr"]
    spoken = model.encode("ein roter Hund", language="de")
    alone = XVLM2VecModel.from_pretrained(run / "adapter" / "de").encode("ein roter Hund", language="de")
    np.testing.assert_array_equal(spoken, alone)

    capsys.readouterr()
    again = [*flags, "--data", corpus_in(folder, tmp_path / "italian", "IT")]
    assert call(*settings(folder, run, *again)) != 0
    assert "has an adapter for it already" in capsys.readouterr().err

    assert remove_languages(run / "adapter", "it") == ["de", "tr"]
    with pytest.raises(AdapterFolderError, match="de, tr"):
        remove_languages(run / "adapter", "it")
    assert not (run / "adapter" / "it").exists()
    assert add_languages(tmp_path / "copy", run / "adapter") == ["de", "tr"]
    for path, content in before.items():
        assert path.parent.name == "it" or path.read_bytes() == content
    assert languages_of(XVLM2VecModel.from_pretrained(run / "adapter")) == ["de", "tr"]


def test_adapters_on_other_weights_are_not_put_together(folder: Path, tmp_path: Path) -> None:
    for name, base in (("one", {"rounded": "a"}), ("two", {"rounded": "b"})):
        place = tmp_path / name / "adapter" / name
        place.mkdir(parents=True)
        content = {"base_model_name_or_path": "base", "xvlm2vec": {"languages": [name], "base": base}}
        (place / "adapter_config.json").write_text(json.dumps(content))
        (place.parent / "adapters.json").write_text(json.dumps({"adapters": [name]}))
    with pytest.raises(AdapterFolderError, match="trained on other weights"):
        add_languages(tmp_path / "one/adapter", tmp_path / "two/adapter")
    assert not (tmp_path / "one/adapter/two").exists()
