"""Local texts through mteb's task classes: scores that are known otherwise, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

pytest.importorskip("mteb")

from xvlm2vec import XVLM2VecModel
from xvlm2vec.cli import main
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.eval.encoders import as_encoder
from xvlm2vec.eval.mteb.text_tasks import score_texts, text_tasks

PAIRS = [("a dog", "a dog", 5), ("a dog", "a dog and a cat", 3.5), ("a cat", "a house", 1), ("the tree", "a fish", 0)]
WORDS = ("dog", "cat", "house", "fish")


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Similarity in English, and German against English; a search whose second query has its text in second place."""
    folder = tmp_path / "data"
    rows = [f'"{first}","{second}",{score}' for first, second, score in PAIRS]
    write(folder / "sts" / "en.csv", "sentence1,sentence2,score", *rows)
    objects = [json.dumps({"sentence1": a, "sentence2": b, "score": c}) for a, b, c in PAIRS]
    write(folder / "sts" / "de+en.jsonl", *objects)
    texts = {"d1": "dog dog cat", "d2": "dog", "d3": "house", "d4": "fish"}
    write(folder / "find" / "en" / "corpus.jsonl", *(json.dumps({"_id": i, "text": t}) for i, t in texts.items()))
    queries = {"q1": "house", "q2": "dog", "q3": "nobody asks"}
    write(folder / "find" / "en" / "queries.jsonl", *(json.dumps({"_id": i, "text": t}) for i, t in queries.items()))
    qrels = ["q1\td3\t1", "q2\td1\t1", "q3\td4\t0"]
    write(folder / "find" / "en" / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", *qrels)
    return folder


def counts(texts: list[str | None], images: list) -> np.ndarray:
    """How often each word stands in a text."""
    return np.array([[str(text).split().count(word) + 1e-3 for word in WORDS] for text in texts])


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / norms


def test_scores_are_those_of_the_definitions(data: Path) -> None:
    rows = score_texts(as_encoder(counts, name="counts"), text_tasks(data))
    sides = [counts([pair[side] for pair in PAIRS], []) for side in (0, 1)]
    expected = spearmanr([score for *_, score in PAIRS], cosines(*sides))[0]
    assert [(row["task"], row["language"], row["n"]) for row in rows] == [
        ("find", "en", 2), ("sts", "de+en", 4), ("sts", "en", 4),
    ]  # fmt: skip
    assert [row["cosine_spearman"] for row in rows[1:]] == pytest.approx([expected, expected], abs=1e-5)
    # One right text comes first, the other second: 1 and 1 / log2(3).
    assert rows[0]["ndcg_at_10"] == pytest.approx((1 + 1 / np.log2(3)) / 2, abs=1e-5)
    assert (rows[0]["mrr_at_10"], rows[0]["recall_at_10"]) == (0.75, 1.0)


def test_two_models_side_by_side(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("before", "after")):
        config = TinyModelConfig(image_size=16, vision_layers=1, text_layers=1, vocab_size=300, seed=seed)
        model, processor = build_tiny_model(config, [text for pair in PAIRS for text in pair[:2]])
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    models = [str(tmp_path / name) for name in ("before", "after")]
    flags = ["--data", str(data), "--languages", "en", "--output", str(tmp_path / "out")]
    assert main(["evaluate-texts", *models, *flags]) == 0
    written = json.loads((tmp_path / "out" / "texts.json").read_text())["models"]
    shown = capsys.readouterr().out
    for found in written:
        model = XVLM2VecModel.from_pretrained(found["model"])
        sides = [model.encode(text=[pair[side] for pair in PAIRS]) for side in (0, 1)]
        expected = spearmanr([score for *_, score in PAIRS], cosines(*map(np.asarray, sides)))[0]
        (row,) = [row for row in found["rows"] if row["task"] == "sts"]
        assert row["cosine_spearman"] == pytest.approx(expected, abs=1e-5)
        assert f"{100 * expected:.1f}" in shown
    assert "difference" in shown
    assert "de+en" not in shown


def test_damaged_files_are_named(data: Path) -> None:
    qrels = data / "find" / "en" / "qrels" / "test.tsv"
    faults = {
        data / "sts" / "en.csv": [
            ("sentence1,sentence2,score\na,b,1\nc,,2", r"en\.csv, line 3: there is no text under 'sentence2'"),
            ("sentence1,sentence2,score\na,b,high", r"en\.csv, line 2: the score is 'high'"),
            ("sentence1,sentence2,score\na,b,1\nc,d,1", r"en\.csv has 2 pairs and 1 different scores"),
            ("a;b;c\n1;2;3", r"no text under 'sentence1'; the columns are a;b;c"),
        ],
        data / "find" / "en" / "corpus.jsonl": [
            ('{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}', r"line 2: the id 'd1' occurs twice"),
            ('{"_id": "d1", "text": "a"', r"corpus\.jsonl, line 1: no valid JSON"),
        ],
        qrels: [
            ("query-id\tcorpus-id\tscore\nq1\td9\t1", r"test\.tsv, line 2: there is no 'd9' in corpus\.jsonl"),
            ("query-id\tcorpus-id\tscore\nq1\td1\t0", r"has no query with a right text"),
        ],
    }
    for path, cases in faults.items():
        whole = path.read_text()
        for content, message in cases:
            path.write_text(content)
            with pytest.raises(ValueError, match=message):
                text_tasks(data)
        path.write_text(whole)
    with pytest.raises(ValueError, match=r"no task in .* has the language fr; there are en, de"):
        text_tasks(data, ["fr"])
    (data / "sts" / "klingon.csv").write_text((data / "sts" / "en.csv").read_text())
    with pytest.raises(ValueError, match=r"klingon\.csv: mteb knows no language 'klingon'"):
        text_tasks(data)
    (data / "sts" / "klingon.csv").unlink()
    qrels.unlink()
    with pytest.raises(FileNotFoundError, match=r"find/en lacks qrels/test\.tsv"):
        text_tasks(data)


def test_equal_vectors_have_no_correlation(data: Path) -> None:
    def constant(texts: list, images: list) -> np.ndarray:
        return np.ones((len(texts), 2))

    with pytest.raises(ValueError, match=r"sts, de\+en: the correlation of constant is undefined"):
        score_texts(as_encoder(constant, name="constant"), text_tasks(data, ["de+en"]))
