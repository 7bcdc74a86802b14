"""What a mix keeps: tails whole, heads cut, and the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from datasets import Dataset
from PIL import Image

from xvlm2vec.cli import main
from xvlm2vec.corpus.mixing.concepts import Matcher, keep_probability, threshold
from xvlm2vec.corpus.mixing.mix import Mix, MixConfig, corpus_names
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import load_parallel


def corpus(rows, optional=()):
    columns = ("id", "text_en", "translations", "source")
    made = [{"image": None, **dict(zip(columns, row, strict=True))} for row in rows]
    return Dataset.from_list(made, features=parallel_features(optional))


def row(number, english, codes=("de",), source="a"):
    return str(number), english, [{"lang": code, "text": f"{code} {number}"} for code in codes], source


@pytest.fixture(scope="module")
def rows():
    """900 dogs, 90 cats, ten of each of three rarer things; a third also in Thai; and one of a source of its own."""
    words = ["dog"] * 900 + ["cat"] * 90 + [word for word in ("heron", "anvil", "okapi") for _ in range(10)]
    made = [row(n, f"a {word} is here", ("de", "th") if n % 3 == 0 else ("de",)) for n, word in enumerate(words)]
    return corpus([*made, row("lonely", "an okapi with a dog", (), "b")])


def languages(examples):
    return Counter(item["lang"] for example in examples for item in example["translations"])


def test_a_text_stays_if_any_of_its_concepts_is_drawn():
    counts = Counter(dog=1000, cat=100, okapi=5)
    assert keep_probability(["okapi", "dog"], counts, 50) == 1.0
    assert keep_probability(["dog"], counts, 50) == pytest.approx(0.05)
    assert keep_probability(["dog", "cat"], counts, 50) == pytest.approx(1 - 0.95 * 0.5)
    assert keep_probability([], counts, 50) == 1.0
    assert threshold(Counter(dog=900, cat=60, okapi=40), 0.06) == 60
    assert threshold(Counter(), 0.06) == 1


def test_concepts_are_words_and_phrases():
    assert Matcher().find("<image>\nA Dog and the dog's fire-truck.") == ["dog", "dog's", "fire-truck"]
    assert Matcher({"guide dog", "dog"}).find("The guide dog, a GUIDE DOG!") == ["guide dog", "dog"]


def test_heads_are_cut_and_tails_stay(rows):
    mix = Mix({"all": rows}, MixConfig(balance=True, per_concept=30))
    examples = list(mix.examples())
    found = Counter(example["text_en"].split()[1] for example in examples)
    assert [found[word] for word in ("heron", "anvil", "okapi")] == [10, 10, 11]
    assert 25 < found["dog"] < 100  # about 30 German ones and 30 Thai ones
    assert 25 < found["cat"] < 60
    assert languages(examples)["th"] > 40
    assert mix.report.thresholds == {"de": 30, "th": 30, "(none)": 30}
    assert next(iter(mix.report.most_cut)) == "dog"
    assert examples == list(Mix({"all": rows}, MixConfig(balance=True, per_concept=30)).examples())
    assert examples != list(Mix({"all": rows}, MixConfig(balance=True, per_concept=30, seed=1)).examples())


def test_languages_are_evened_out_and_nothing_grows(rows):
    counts = languages(Mix({"all": rows}, MixConfig(language_temperature=2)).examples())
    assert counts["th"] == 340
    assert counts["de"] == round(340 * (1020 / 340) ** 0.5)
    assert languages(Mix({"all": rows}, MixConfig(language_cap=100)).examples()) == {"de": 100, "th": 100}
    lonely = [example["id"] for example in Mix({"all": rows}, MixConfig(language_cap=1)).examples()]
    assert "lonely" in lonely  # it came without a translation
    assert len(lonely) <= 3


def test_sources_and_rows_are_cut_to_the_number(rows):
    more = corpus([row(number, "a boat", source="c") for number in range(40)], ["alignment"])
    mix = Mix({"x": rows, "y": more}, MixConfig(source_cap=20, rows=30))
    examples = list(mix.examples())
    assert len(examples) == mix.report.kept == 30
    assert max(Counter(example["source"] for example in examples).values()) <= 20
    assert {example["id"].split("/")[0] for example in examples} == {"x", "y"}
    assert all(set(item) == {"lang", "text", "alignment"} for example in examples for item in example["translations"])
    assert mix.report.rows == 1061


def test_names_of_corpora():
    assert corpus_names(["a/parallel", "b/parallel/", "org/a"]) == ["a-1", "b", "a-3"]


def test_the_command_writes_a_corpus_and_what_it_cut(tmp_path, capsys):
    image = Image.new("RGB", (4, 4), "red")
    rows = [{"id": str(number), "image": image if number == 7 else None, "text_en": "a dog",
             "translations": [{"lang": "de", "text": "ein Hund"}], "source": "s"} for number in range(8)]  # fmt: skip
    for name in ("one", "two"):
        Dataset.from_list(rows, features=parallel_features()).save_to_disk(tmp_path / name / "parallel")
    command = ["corpus", "mix", str(tmp_path / "one" / "parallel"), str(tmp_path / "two" / "parallel")]
    assert main([*command, "--rows", "12", "--output", str(tmp_path / "out")]) == 0
    assert "12 of 16 rows" in capsys.readouterr().out
    made = load_parallel(tmp_path / "out" / "parallel")
    assert len(set(made["id"])) == 12
    report = json.loads((tmp_path / "out" / "mix.json").read_text())
    assert report["languages"] == {"de": [16, 12]}
    assert report["settings"]["rows"] == 12
    assert main([*command, "--per-concept", "3", "--output", str(tmp_path / "no")]) == 1
    assert "belong to --balance" in capsys.readouterr().err
