"""What is in a corpus, counted by hand and by the command."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xvlm2vec.cli import main
from xvlm2vec.corpus.schema import parallel_features


def translated(**texts):
    return [{"lang": code, "text": text} for code, text in texts.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stats")
    red, blue = (Image.new("RGB", (8, 4), color) for color in ("red", "blue"))
    rows = [
        ("0", red, "<image>\na red dog", translated(de="ein roter Hund", th="หมาแดง"), "a"),
        ("1", red, "a red dog", translated(de="ein roter Hund"), "a"),
        ("2", blue, "rain", translated(de=" ", th="ฝน"), "b"),
        ("3", None, "sea", [], "b"),
        ("4", {"bytes": b"no image", "path": "x.png"}, "sun", translated(**{"DE": "Sonne"}), "b"),
    ]
    columns = ("id", "image", "text_en", "translations", "source")
    corpus = Dataset.from_list([dict(zip(columns, row, strict=True)) for row in rows], features=parallel_features())
    corpus.save_to_disk(folder / "parallel")
    characters = {character: number for number, character in enumerate("?abcdefghijklmnopqrstuvwxyzHRS ")}
    inner = Tokenizer(models.WordPiece(
        {**characters, "dog": 90, "red": 91, "##r": 92}, unk_token="?", max_input_chars_per_word=3,
    ))  # fmt: skip
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?").save_pretrained(folder / "tokenizer")
    return folder


def test_counts_are_those_of_a_hand(folder, capsys):
    command = ["corpus", "stats", str(folder / "parallel"), "--json", str(folder / "stats.json")]
    command += ["--html", str(folder / "stats.html"), "--tokenizer", str(folder / "tokenizer")]
    assert main(command) == 0
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["rows"] == 5
    assert stats["english_texts"] == 4  # a mark is no text
    assert stats["images"] == {
        "rows": 4, "distinct": 3, "unreadable": 1, "formats": {"PNG": 3},
        "longer_side": {"p5": 8, "median": 8, "p95": 8},
    }  # fmt: skip
    assert stats["sources"] == {"b": 3, "a": 2}
    assert stats["translations_per_row"] == {"0": 1, "1": 3, "2": 1}
    assert list(stats["languages"]) == ["en", "de", "th"]
    assert stats["languages"]["en"]["coverage"] == 1.0
    german = stats["languages"]["de"]
    assert (german["texts"], german["with_image"], german["coverage"]) == (3, 3, 0.6)
    assert german["characters"] == 14 + 14 + 5
    assert german["characters_against_english"] == round(33 / 21, 4)
    assert german["characters_per_text"] == {"p5": 5, "median": 14, "p95": 14}
    assert german["tokens"] == 3 + 3 + 1
    assert german["tokens_against_english"] == 1.0  # three words, three words, one
    assert german["tokens_per_character_against_english"] == pytest.approx((7 / 33) / (7 / 21), abs=1e-3)
    out = capsys.readouterr().out
    assert "5 rows, 4 distinct English texts, 4 rows with an image (3 distinct)" in out
    page = (folder / "stats.html").read_text()
    assert page.count("<svg") == 6
    assert "Tokens per text" in page
    assert "http" not in page.replace("http-equiv", "")


def test_without_a_tokenizer_only_characters_are_counted(folder, capsys):
    assert main(["corpus", "stats", str(folder / "parallel"), "--json", str(folder / "plain.json")]) == 0
    stats = json.loads((folder / "plain.json").read_text())
    assert stats["tokenizer"] is None
    assert "tokens" not in stats["languages"]["de"]
    assert "tokens/character" not in capsys.readouterr().out
