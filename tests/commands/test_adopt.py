"""`xvlm2vec adopt`, and the commands that take the same models."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer

sys.path.insert(0, str(Path(__file__).parents[1] / "adoption"))
from saved_forms import build_st

from xvlm2vec.cli import main
from xvlm2vec.common.adoption.recipe_files import read_recipe, shipped_recipes
from xvlm2vec.common.adoption.sources import AdoptionError
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a saved embedder of sentence-transformers."""
    return cache(lambda name: str(build_st(name, tmp_path_factory.mktemp("saved") / name)))


def test_prints_the_recipe_and_the_proof(source: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adopt", source("gemma3-dense")]) == 0
    shown = capsys.readouterr().out
    assert "the mean of all states, then dense, then dense, then length 1; 32 values" in shown
    assert r"image          <bos><start_of_turn>user\n" in shown
    assert "taken where no other is named" in shown
    assert "Proven: " in shown


def test_output_is_a_model(source: Callable[[str], str], tmp_path: Path) -> None:
    assert main(["adopt", source("minilm"), "--output", str(tmp_path / "out")]) == 0
    own = SentenceTransformer(source("minilm"))
    texts = ["ein Haus", "a house"]
    assert np.allclose(XVLM2VecModel.from_pretrained(tmp_path / "out").encode(texts), own.encode(texts), atol=1e-6)


def test_a_recipe_is_written_and_read(source: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    assert main(["adopt", source("llava"), "--save-recipe", str(path)]) == 0
    assert main(["adopt", source("llava"), "--recipe", str(path)]) == 0


def test_a_wrong_recipe_names_row_and_token(
    source: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    main(["adopt", source("llava"), "--save-recipe", str(path)])
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["writing"]["forms"]["text"] = "USER: {text} ASSISTANT:"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["adopt", source("llava"), "--recipe", str(path), "--output", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "the row 'text 0' becomes other tokens than in its own SentenceTransformer, from token" in told
    assert not (tmp_path / "out").exists()


def test_a_wrong_pooling_names_the_row(
    source: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    main(["adopt", source("minilm"), "--save-recipe", str(path)])
    content = yaml.safe_load(path.read_text(encoding="utf-8")) | {"pooling": "cls"}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["adopt", source("minilm"), "--recipe", str(path)]) == 1
    assert "the row 'text 0' alone has another vector" in capsys.readouterr().err


def test_refusals_are_one_sentence(source: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adopt", source("no-modules")]) == 1
    assert "has no modules.json" in capsys.readouterr().err


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_read_and_say_what_they_rest_on(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.notes[0].startswith(f"the recipe {name} rests on: ")
    assert "text" in recipe.writing.forms


def test_qwen3_vl_embedding_has_its_system_turn() -> None:
    from xvlm2vec.modeling.rows import TextImageRow

    writing = read_recipe("qwen3-vl-embedding").writing
    front, behind = "<|im_start|>system\n", "<|im_end|>\n<|im_start|>assistant\n"
    default = f"{front}Represent the user's input.<|im_end|>\n<|im_start|>user\nhi{behind}"
    assert writing.render(TextImageRow("hi")).string == default
    told = writing.render(TextImageRow("hi", (), " Find the image ")).string
    assert told == f"{front}Find the image.<|im_end|>\n<|im_start|>user\nhi{behind}"
    assert "user\nNULL<|im_end|>" in writing.render(TextImageRow("")).string
    image = writing.render(TextImageRow("hi", (None,), "Look!")).string
    assert f"{front}Look!<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>hi" in image


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "is no YAML"),
        ("pooling: mean", "needs `writing`"),
        ("writing: {forms: {text: '{text}'}}\npolling: mean", "'polling'"),
        ("writing: {forms: {text: '{tekst}'}}", r"lacks \{text\}"),
        ("writing: {forms: {both: '{text}'}}", "no form 'both'"),
        ("writing: {forms: {text: '{text}'}}\npooling: first", "'first' is unknown"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(AdoptionError, match=message):
        read_recipe(str(path))


def test_no_such_recipe_lists_those_that_there_are() -> None:
    with pytest.raises(FileNotFoundError, match="qwen3-vl-embedding"):
        read_recipe("qwen9")


class TestOtherCommands:
    def test_verify_compares_with_its_own_encode(
        self, source: Callable[[str], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["verify", source("clip")]) == 0
        assert "Proven: " in capsys.readouterr().out

    def test_encode_pads_siglip_as_in_training(self, source: Callable[[str], str], tmp_path: Path) -> None:
        texts = tmp_path / "texts.txt"
        texts.write_text("ein Haus\na much longer text that makes a batch wider than it was before\n", encoding="utf-8")
        assert main(["encode", source("siglip"), "--text", str(texts), "--output", str(tmp_path / "v.npy")]) == 0
        texts.write_text("ein Haus\n", encoding="utf-8")
        assert main(["encode", source("siglip"), "--text", str(texts), "--output", str(tmp_path / "w.npy")]) == 0
        assert np.allclose(np.load(tmp_path / "v.npy")[0], np.load(tmp_path / "w.npy")[0], atol=1e-5)

    def test_an_instruction_goes_where_the_template_has_it(self, source: Callable[[str], str], tmp_path: Path) -> None:
        assert main(["adopt", source("llava"), "--output", str(tmp_path / "out")]) == 0
        texts = tmp_path / "texts.txt"
        texts.write_text("ein Haus\n", encoding="utf-8")
        flags = ["--text", str(texts), "--instruction", "Find it"]
        for number, model in enumerate((str(tmp_path / "out"), source("llava"))):
            assert main(["encode", model, *flags, "--output", str(tmp_path / f"{number}.npy")]) == 0
        own = SentenceTransformer(source("llava")).encode(["ein Haus"], prompt="Find it")
        for number in range(2):
            assert np.allclose(np.load(tmp_path / f"{number}.npy"), own, atol=1e-5)

    def test_distill_with_an_adapter_stands_on_a_folder(self, source: Callable[[str], str], tmp_path: Path) -> None:
        from datasets import Dataset

        from xvlm2vec.corpus.schema import parallel_features

        row = {"image": None, "translations": [{"lang": "de", "text": "ein Haus"}], "source": "test"}
        rows = [{"id": str(number), "text_en": f"a house {number}", **row} for number in range(4)]
        Dataset.from_list(rows, features=parallel_features()).save_to_disk(tmp_path / "data")
        flags = [
            "--lora",
            "--max-steps",
            "1",
            "--use-cpu",
            "--report-to",
            "none",
            "--teacher-store",
            str(tmp_path / "t"),
        ]
        out = tmp_path / "run"
        command = [
            "distill",
            "--model",
            source("minilm"),
            "--data",
            str(tmp_path / "data"),
            "--output",
            str(out),
            *flags,
        ]
        assert main(command) == 0
        named = json.loads((out / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
        assert named["base_model_name_or_path"] == str((out / "base").resolve())
        assert not list((out / "base").glob("*.safetensors"))
        merged = XVLM2VecModel.from_pretrained(out / "merged").encode(["ein Haus"])
        assert np.allclose(XVLM2VecModel.from_pretrained(out / "adapter").encode(["ein Haus"]), merged, atol=1e-6)
