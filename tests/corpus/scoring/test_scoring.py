"""Translations beside their English texts: shares of shuffled pairs against a plain count, and real tiny models."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from xvlm2vec import cli
from xvlm2vec.corpus.checking.check import check_corpus
from xvlm2vec.corpus.checking.line_files import JsonlSource
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.scoring.scorer import Scorer
from xvlm2vec.corpus.scoring.shuffled import EnglishTexts, share_of, share_table

WORDS = ["cat", "dog", "house", "tree", "river", "boat", "bird", "snow", "bread", "moon", "road", "child"]


def vector(word: str) -> np.ndarray:
    return np.random.default_rng(WORDS.index(word)).standard_normal(32)


def embed(texts: Sequence[str], language: str) -> np.ndarray:
    """A bag of words over three languages: `de` turns letters round, `xx` is unknown to it."""
    known = {word: word for word in WORDS} | {word[::-1]: word for word in WORDS}
    rows = [[known[word] for word in text.split() if word in known] for text in texts]
    return np.array([np.sum([vector(word) for word in row], axis=0) if row else np.ones(32) for row in rows])


class Back:
    """Translates back from German, but for texts with a moon."""

    def translate(
        self, texts: Sequence[str], language: str, source: str = "en"
    ) -> Iterator[tuple[int, str | None, str]]:
        if source != "de":
            raise ValueError(f"no {source}")
        for number, text in enumerate(texts):
            yield (number, None, "no moon") if "noom" in text else (number, " ".join(w[::-1] for w in text.split()), "")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """200 German rows, of which each tenth has another row's translation, and 60 in a language that nobody knows."""
    draw = random.Random(3)
    english = sorted({" ".join(draw.sample(WORDS, 4)) for _ in range(260)})[:200]
    draw.shuffle(english)
    with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(english):
            said = english[number - 7] if number % 10 == 0 else text
            german = " ".join(word[::-1] for word in said.split())
            file.write(json.dumps({"id": str(number), "text_en": text, "text": german, "lang": "de"}) + "\n")
            if number < 60:
                other = " ".join(draw.sample(["qua", "zor", "vim", "tel", "nok", "gri", "pab"], 4)) + f" {'b' * number}"
                file.write(json.dumps({"id": f"x{number}", "text_en": text, "text": other, "lang": "ht"}) + "\n")
    return tmp_path / "rows.jsonl"


def test_shares_are_those_of_a_plain_count() -> None:
    english = [f"text {number}" for number in range(40)]
    draw = np.random.default_rng(0)
    sides = [draw.standard_normal((40, 6)).astype(np.float32) for _ in range(2)]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    texts = EnglishTexts()
    texts.add(english, sides[0])

    found = texts.compare(english, sides[1])

    margins, shuffled = np.empty(40), []
    for row, cosines in enumerate(sides[1] @ sides[0].T):
        others = np.delete(cosines, row)
        margins[row] = cosines[row] - np.sort(others)[-4:].mean()
        shuffled += [other - np.sort(np.delete(others, place))[-4:].mean() for place, other in enumerate(others)]
    assert np.allclose(found.margins, margins, atol=1e-5)
    table = share_table(found.counts)
    expected = [np.mean(np.array(shuffled) >= margin) for margin in margins]
    assert np.allclose([share_of(margin, table) for margin in margins], expected, atol=0.003)
    assert np.isclose(found.shuffled[3], np.delete(sides[1][3] @ sides[0].T, 3).mean(), atol=1e-5)


def test_wrong_translations_are_told_and_stay(rows: Path, tmp_path: Path) -> None:
    scorer = Scorer("bag of words", embed, Back())
    result = check_corpus(JsonlSource(rows), tmp_path / "out", scorer=scorer)

    report = json.loads((tmp_path / "out" / "bad-rows.json").read_text(encoding="utf-8"))
    told = {row["id"] for row in report["doubtful"] if row["kind"] == "meaning"}
    kept = {json.loads(line)["id"] for line in (tmp_path / "out" / "kept.jsonl").open(encoding="utf-8")}
    wrong = {str(number) for number in range(0, 200, 10)}
    kept_german = [name for name in kept if not name.startswith("x")]
    assert told <= kept, "nothing is dropped for its meaning"
    assert len(told & wrong & kept) >= 0.9 * len(wrong & kept) > 0
    assert len(told - wrong) <= 2
    scores = result.as_json()["scores"]
    assert (scores["languages"]["de"]["believed"], scores["languages"]["ht"]["believed"]) == (True, False)
    assert scores["languages"]["de"]["beats"] > 0.9 > 0.7 > scores["languages"]["ht"]["beats"]
    assert scores["languages"]["de"]["wrong"] == pytest.approx(len(wrong & kept) / len(kept_german), abs=0.06)
    assert scores["languages"]["de"]["right_suspected"] < 0.03
    assert scores["suspected"] == result.told["meaning"] == len(told)
    moons = sum("noom" in json.loads(line)["text"] for line in (tmp_path / "out" / "kept.jsonl").open(encoding="utf-8"))
    unknown = sum(name.startswith("x") for name in kept)
    assert scores["not_translated_back"] == {"de": moons, "ht": unknown}
    assert scores["not_translated_from"] == {"ht": "no ht"}
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").open(encoding="utf-8")]
    assert {line["id"] for line in lines} == kept
    assert all(line["back_share"] < 0.05 for line in lines if line["language"] == "de" and line["id"] not in wrong
               and "back" in line)  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "bag of words" in page
    assert "translated back" in page
    again = check_corpus(JsonlSource(rows), None, scorer=Scorer("bag of words", embed))
    assert again.scores is not None
    assert again.told["meaning"] == len(told), "what is translated back changes nothing else"


def test_two_rows_are_compared_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = [("cat", "tac"), ("dog", "god")]
    path.write_text("".join(json.dumps({"text_en": e, "text": t, "lang": "de"}) + "\n" for e, t in texts))
    result = check_corpus(JsonlSource(path), scorer=Scorer("m", embed))
    assert result.as_json()["scores"] == {"model": "m", "threshold": 0.05, "suspected": 0, "languages": {},
                                          "not_scored": {"de": 2}}  # fmt: skip


@pytest.mark.slow
def test_the_command_with_a_tiny_model(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The vectors are those that the model gives to the same texts, one by one."""
    model, processor = build_tiny_model(TinyModelConfig(vocab_size=600, text_layers=1, vision_layers=1), WORDS)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    counts = tmp_path / "counts.json"
    command = ["corpus", "check", str(rows), "--json", str(counts), "--output", str(tmp_path / "out")]

    assert cli.main([*command, "--back-translate", "m"]) == 1
    assert "--score-by compares: name a model there, too" in capsys.readouterr().err
    cli.main([*command, "--score-by", str(tmp_path / "model"), "--suspect", "0.1"])

    shown = capsys.readouterr().out
    assert f"scored by {tmp_path / 'model'}, suspected if more than 10% of shuffled pairs are as good" in shown
    assert json.loads(counts.read_text())["scores"]["languages"].keys() == {"de", "ht"}
    kept = [json.loads(line) for line in (tmp_path / "out" / "kept.jsonl").open(encoding="utf-8")]
    scores = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").open(encoding="utf-8")]
    by_id = {line["id"]: line["similarity"] for line in scores}
    for row in kept[:3]:
        one, other = (model.encode(text=[text])[0] for text in (row["text_en"], row["text"]))
        assert by_id[row["id"]] == pytest.approx(float(one @ other), abs=1e-4)
