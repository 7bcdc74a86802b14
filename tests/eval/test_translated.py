"""The same model on queries that were translated into English."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xvlm2vec.eval.benchmarks.reading import read_benchmark
from xvlm2vec.eval.encoders import as_encoder
from xvlm2vec.eval.runner import evaluate
from xvlm2vec.eval.spoken import tell_languages
from xvlm2vec.eval.translated import TranslatedQueries, queries_to_translate, translated_tasks
from xvlm2vec.flags.translators import with_translated_queries

ENGLISH = {"rot": "red", "grün": "lime", "blau": "blue", "赤": "red", "緑": "lime", "青": "blue"}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def entries(language: str, *words: str) -> list[dict[str, Any]]:
    return [{"language": language, "text": word, "english": ENGLISH[word]} for word in words]


def test_translated_queries_stand_beside_the_model_itself(
    published: Callable, color_model: Callable, tmp_path: Path
) -> None:
    tasks = read_benchmark("xtd10", published("xtd10"))
    assert queries_to_translate(tasks) == {"de": ["rot", "grün", "blau"], "ja": ["赤", "緑", "青"]}
    path = write(
        tmp_path / "de.jsonl", *entries("DE", "rot", "grün"), {"language": "de", "text": "blau", "english": None}
    )
    both = with_translated_queries(str(path), tasks, tmp_path)
    results = evaluate(as_encoder(color_model("en")), both, progress=False)
    rows = {(row["task"], row["language"], row["style"]): row for row in results.rows}
    assert [key for key in rows if key[2] != "verbatim"] == [("t2i", "de", "verbatim+translated")], "none of Japanese"
    itself, translated = rows["t2i", "de", "verbatim"], rows["t2i", "de", "verbatim+translated"]
    assert itself["p_at_1"] == pytest.approx(1 / 3)
    assert translated["p_at_1"] == pytest.approx((1 + 1 + 1 / 3) / 3), "what is not translated is asked as it is"
    assert translated["translation"] == {"by": "de.jsonl", "texts": 3, "untranslated": 1, "seconds": None}
    (task,) = (task for task in both if task.style == "verbatim+translated")
    assert str(task.queries[0].text).endswith(": red")
    assert str(task.queries[0].text).startswith("Find the picture"), "with the English instruction"
    assert str(task.queries[2].text).endswith(": blau")


def test_an_adapter_of_the_language_is_not_told_of_a_translated_query(published: Callable, tmp_path: Path) -> None:
    tasks = read_benchmark("xtd10", published("xtd10"), languages=["de"], tasks=["t2i"])
    path = write(tmp_path / "de.jsonl", *entries("de", "rot", "grün", "blau"))
    adapters = {"one": SimpleNamespace(languages=["de"])}
    encoder = SimpleNamespace(name="activated", model=SimpleNamespace(language_adapters=adapters))
    itself, translated = tell_languages(encoder, with_translated_queries(str(path), tasks, tmp_path))
    assert {row.language for row in itself.queries} == {"de"}
    assert {row.language for row in translated.queries} == {None}


def test_translations_are_kept_as_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "below" / "queries.jsonl"
    asked: list[str] = []

    def translate(texts: Any, language: str) -> Any:
        for number, text in enumerate(texts):
            asked.append(text)
            if len(asked) == 3:
                raise KeyboardInterrupt
            yield number, text.upper(), ""

    with pytest.raises(KeyboardInterrupt):
        TranslatedQueries(path).fill({"de": ["a", "b", "c", "d"]}, translate, batch=1)
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"language": "de", "te')  # an interruption left half a line
    queries = TranslatedQueries(path)
    queries.fill({"de": ["a", "b", "c", "d"]}, translate, batch=2)
    assert asked == ["a", "b", "c", "c", "d"]
    again = TranslatedQueries(path)
    assert [again.get("de", text).english for text in "abcd"] == ["A", "B", "C", "D"]
    assert all(entry.seconds is not None for entry in again.entries.values())


@pytest.mark.parametrize(
    "line", ['{"language": "de", "text": "a"}', "[]", '{"language": "de", "text": 1, "english": "a"}']
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "de.jsonl"
    path.write_text(f'{{"language": "de", "text": "a", "english": "b"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"de\.jsonl, line 2: not of the form .*english"):
        TranslatedQueries(path)


def test_what_cannot_be_translated(published: Callable, tmp_path: Path) -> None:
    tasks = read_benchmark("xtd10", published("xtd10"), languages=["de"])
    path = write(tmp_path / "ja.jsonl", *entries("ja", "赤"))
    with pytest.raises(ValueError, match=r"ja\.jsonl has no translation of any query \(de\)"):
        translated_tasks(tasks, TranslatedQueries(path), "ja")
    with pytest.raises(ValueError, match="no task asks in a text of another language than English"):
        with_translated_queries(str(path), [task for task in tasks if task.task == "i2t"], tmp_path)


@pytest.fixture
def translator(tmp_path: Path) -> Path:
    """A tiny T5 with MADLAD's names of languages that has learned three German words and their English by heart."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = ["<pad>", "</s>", "<unk>", "<2en>", "<2de>", *list(ENGLISH)[:3], "red", "lime", "blue"]
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_special_tokens": words[3:5]}
    sizes = {"d_model": 32, "d_ff": 64, "d_kv": 16, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    inputs = torch.tensor([[3, 5 + word, 1] for word in range(3)])
    labels = torch.tensor([[8 + word, 1] for word in range(3)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(vocab_size=len(words), pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **sizes)
        model = T5ForConditionalGeneration(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            model(input_ids=inputs, labels=labels).loss.backward()
            optimizer.step()
    model.eval().save_pretrained(tmp_path / "translator")
    PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(tmp_path / "translator")
    return tmp_path / "translator"


def test_a_translation_model_into_english(
    published: Callable, color_model: Callable, translator: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = read_benchmark("xtd10", published("xtd10"))
    both = with_translated_queries(str(translator), tasks, tmp_path / "out")
    assert f"{translator} has no name for ja: their queries are not translated" in caplog.text
    results = evaluate(as_encoder(color_model("en")), both, progress=False)
    (row,) = (row for row in results.rows if row["style"] == "verbatim+translated")
    assert row["translation"]["seconds"] > 0
    (path,) = (tmp_path / "out" / "translated-queries").glob("*.jsonl")
    written = path.read_bytes()
    assert [json.loads(line)["english"] for line in written.splitlines()] == ["red", "lime", "blue"]
    assert (row["language"], row["p_at_1"]) == ("de", 1.0)
    with_translated_queries(str(translator), tasks, tmp_path / "out")
    assert path.read_bytes() == written, "nothing was translated again"
