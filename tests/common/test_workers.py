"""Two processes, and a local cluster of two workers of which one is killed: the same results, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from xvlm2vec import cli
from xvlm2vec.common.workers import Cluster, Here, Processes, WorkerError, Workers
from xvlm2vec.corpus.checking.check import check_corpus
from xvlm2vec.corpus.checking.corpora import CorpusSource
from xvlm2vec.corpus.checking.line_files import CsvSource, JsonlSource
from xvlm2vec.corpus.contamination.compare import find_contamination
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import load_parallel, write_dataset
from xvlm2vec.corpus.translation import translate_corpus, translated_rows
from xvlm2vec.corpus.translators.on_workers import OnWorkers
from xvlm2vec.corpus.translators.word_list import WordList
from xvlm2vec.eval.embedding import DistinctRows, embed_distinct
from xvlm2vec.eval.encoders import CallableEncoder
from xvlm2vec.eval.on_workers import OnWorkers as EncoderOnWorkers
from xvlm2vec.eval.ranking import Row


class Watched:
    """Counts results, and kills a worker of a cluster when a third of them is there."""

    def __init__(self, workers: Workers, pids: Path) -> None:
        self.workers, self.pids, self.items, self.results = workers, pids, 0, 0
        pids.mkdir()

    def map(self, items: Sequence[Any], make: Any) -> Iterator[Any]:
        self.items += len(items)
        for number, result in enumerate(self.workers.map(items, partial(Told, make, self.pids)), 1):
            self.results += 1
            if isinstance(self.workers, Cluster) and number == max(1, len(items) // 3):
                os.kill(int(next(self.pids.iterdir()).name), signal.SIGKILL)
            yield result

    def have_worked(self) -> bool:
        """Whether two workers did it, and one more in the place of a killed one; each result came once."""
        count = 3 if isinstance(self.workers, Cluster) else 2
        return len(list(self.pids.iterdir())) == count and self.results == self.items > 0


class Told:
    """A worker that takes its time, and says who it is."""

    def __init__(self, make: Any, pids: Path) -> None:
        (pids / str(os.getpid())).touch()
        self.work = make()

    def __call__(self, item: Any) -> Any:
        time.sleep(0.02)
        return self.work(item)


def start_ray(attempts: int = 3) -> None:
    """Starts a cluster; Ray waits for half a minute, which may be too short where much else runs."""
    ray = pytest.importorskip("ray")
    for attempt in range(attempts):
        try:
            ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, logging_level="error",
                     log_to_driver=False)  # fmt: skip
            return
        except Exception:
            ray.shutdown()
            if attempt == attempts - 1:
                raise


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    start_ray()
    yield Cluster(2)
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(params=["processes", pytest.param("cluster", marks=[pytest.mark.slow, pytest.mark.ray])])
def workers(request: pytest.FixtureRequest) -> Workers:
    return request.getfixturevalue("cluster") if request.param == "cluster" else Processes(2)


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds; names of stored tables, which say when they were made, are left out."""
    held = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "state.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in held}


def lines(count: int) -> list[bytes]:
    """Rows with all kinds of faults: of a row, of its repeated texts, and of a line that is none."""
    texts = ["Ein Hund {n}.", " Ein Hund {n}..", "?", "#3 - Ein Hund {n}", "Ein Hund 99999.", "Ein Hund."]
    rows = [{"id": str(n % (count - 5)), "text_en": f"A dog {n}.", "text": texts[n % 6].format(n=n), "lang": "de"}
            for n in range(count)]  # fmt: skip
    return [*(json.dumps(row).encode() + b"\n" for row in rows[:50]), b"{torn\n", b"\n",
            *(json.dumps(row).encode() + b"\n" for row in rows[50:])]  # fmt: skip


def test_a_check_by_workers(workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the cluster started in another folder
    path = Path("rows.jsonl")
    path.write_bytes(b"".join(lines(160)))
    watched = Watched(workers, tmp_path / "pids")
    plain = check_corpus(JsonlSource(path, chunk=8), tmp_path / "plain")
    by_workers = check_corpus(JsonlSource(path, chunk=8), tmp_path / "workers", workers=watched)

    assert watched.have_worked()
    assert by_workers == plain
    assert plain.dropped.keys() >= {"line", "filler", "numbers", "duplicate-id"}
    assert plain.repaired.keys() >= {"blanks", "prefix"}
    assert files(tmp_path / "workers") == files(tmp_path / "plain")


class BadDisk(JsonlSource):
    """A file beside which an image cannot be reached."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.image_problem = self._fail

    def _fail(self, name: str) -> str | None:
        if name == "seven.png":
            raise OSError("the disk does not answer")
        return None


def test_a_rule_that_fails_names_its_line(tmp_path: Path) -> None:
    rows = [{"text_en": "A dog.", "text": "Ein Hund.", "lang": "de", "image": name} for name in ["a.png"] * 6]
    rows.append({**rows[0], "image": "seven.png"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(WorkerError, match=r"a worker failed: .*rows.jsonl, line 7: OSError: the disk does not answer"):
        check_corpus(BadDisk(tmp_path / "rows.jsonl"), workers=Processes(2))


def test_other_sources_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are found again where they begin: in a table by its bytes, in a corpus by its rows."""
    monkeypatch.setattr("xvlm2vec.corpus.checking.line_files.CHUNK", 7)
    monkeypatch.setattr("xvlm2vec.corpus.checking.corpora._ROWS", 7)
    table = [f'{n},"A dog,\nnumber {n}.","Ein Hüño,\nNummer {n}..",?' for n in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["\ufeffid,en,de,fr", *table]), encoding="utf-8", newline="")
    items = [{"lang": "de", "text": "Ein Hund.."}, {"lang": "fra", "text": "?"}]
    broken = {"bytes": b"no image", "path": None}
    rows = [{"id": str(n), "image": None if n % 3 else broken, "text_en": f"Dog {n}.", "translations": items,
             "source": "s"} for n in range(40)]  # fmt: skip
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(str(tmp_path / "corpus"))

    for source in (CsvSource(tmp_path / "rows.csv"), CorpusSource(tmp_path / "corpus")):
        name = type(source).__name__
        plain = check_corpus(source, tmp_path / name / "plain")
        by_workers = check_corpus(source, tmp_path / name / "workers", workers=Processes(2))
        assert by_workers == plain
        assert plain.kept < plain.rows == 80
        told = [tmp_path / name / part / "bad-rows.json" for part in ("plain", "workers")]
        assert told[0].read_bytes() == told[1].read_bytes()
    assert files(tmp_path / "CsvSource" / "workers") == files(tmp_path / "CsvSource" / "plain")


def test_contamination_by_workers(workers: Workers, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64)) for _ in range(6)]
    text = "A lighthouse keeper paints his door bright yellow"
    rows = [{"id": str(n), "image": images[n // 1000] if n % 1000 == 0 else None, "source": "s",
             "text_en": text if n % 700 == 0 else "A dog.", "translations": []} for n in range(5_000)]  # fmt: skip
    rows[77]["image"] = {"bytes": b"no image", "path": None}
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(str(tmp_path / "corpus"))
    corpus = load_parallel(tmp_path / "corpus")
    benchmark = [(f"image {n}", image) for n, image in enumerate(images[:4])]
    watched = Watched(workers, tmp_path / "pids")

    plain = find_contamination(corpus, benchmark, [text])
    assert plain == find_contamination(corpus, benchmark, [text], workers=watched)
    assert watched.have_worked()
    assert plain.contaminated == {*range(0, 5000, 700), *range(0, 4000, 1000)}
    assert len(plain.unreadable) == 1


def embed(texts: Sequence[str | None], images: Sequence[Any]) -> Any:
    """Length and colour."""
    return np.array([[len(text or ""), image.getpixel((0, 0))[0] if image else -1, 1.5]
                     for text, image in zip(texts, images, strict=True)], np.float32)  # fmt: skip


def load_embed() -> CallableEncoder:
    return CallableEncoder(embed, name="lengths", fingerprint="lengths 1")


def never() -> CallableEncoder:
    raise AssertionError("all is stored")


def test_encode_by_workers(workers: Workers, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (200, 0, 0)).save(tmp_path / "red.png")
    rows = [Row("x" * n, "red" if n % 4 == 0 else None) for n in range(1, 60)]
    distinct = DistinctRows()
    distinct.add(rows, {"red": tmp_path / "red.png"})
    watched = Watched(workers, tmp_path / "pids")

    here = embed_distinct(load_embed(), distinct, tmp_path / "here", chunk=4, progress=False)
    elsewhere = embed_distinct(
        EncoderOnWorkers(load_embed(), load_embed, watched), distinct, tmp_path / "there", chunk=4, progress=False
    )

    assert watched.have_worked()
    assert elsewhere[:].tobytes() == here[:].tobytes()
    assert elsewhere[:][3].tolist() == [4, 200, 1.5]
    stored = embed_distinct(EncoderOnWorkers(load_embed(), never, Here()), distinct, tmp_path / "there", progress=False)
    assert stored[:].tobytes() == here[:].tobytes()


def dogs(tmp_path: Path, count: int) -> tuple[Path, Dataset]:
    """A list of words, and a corpus with a text more than it has."""
    words = tmp_path / "words.csv"
    words.write_text("en,de\n" + "".join(f"dog {n},Hund {n}\n" for n in range(count - 1)), encoding="utf-8")
    rows = [{"id": str(n), "image": None, "text_en": f"<image>\ndog {n}", "translations": [], "source": "t"}
            for n in range(count)]  # fmt: skip
    return words, Dataset.from_list(rows, features=parallel_features())


class SmallBatches(WordList):
    batch_size = 4


def test_translations_by_workers(workers: Workers, tmp_path: Path) -> None:
    words, corpus = dogs(tmp_path, 60)
    watched = Watched(workers, tmp_path / "pids")
    elsewhere = OnWorkers(SmallBatches(words), partial(SmallBatches, words), watched, 2)

    written = []
    for name, translator in (("here", SmallBatches(words)), ("workers", elsewhere)):
        folder = tmp_path / name
        outcome = translate_corpus(corpus, translator, ["de"], folder / "translations")
        assert outcome.translated == {"de": 59}
        assert [(row.id, row.problem) for row in outcome.rejected] == [("59", "words.csv does not have 'dog 59'")]
        made = partial(translated_rows, corpus, ["de"], folder / "translations")
        write_dataset(made, parallel_features(), folder / "parallel")
        written.append([path.read_bytes() for path in sorted((folder / "parallel").glob("*.arrow"))])

    assert watched.have_worked()
    assert written[0] == written[1]


class Broken(SmallBatches):
    def translate(self, texts: Sequence[str], language: str, source: str = "en") -> Iterator[Any]:
        if "dog 17" in texts:
            raise KeyError("no such sense")
        yield from super().translate(texts, language, source)


def test_an_error_names_its_row(workers: Workers, tmp_path: Path) -> None:
    words, corpus = dogs(tmp_path, 40)
    engine = OnWorkers(SmallBatches(words), partial(Broken, words), workers, 2)
    with pytest.raises(WorkerError, match=r"^a worker failed: 'dog 17': KeyError: 'no such sense'"):
        translate_corpus(corpus, engine, ["de"], tmp_path / "translations")

    missing = OnWorkers(SmallBatches(words), partial(WordList, tmp_path / "none.csv"), workers, 2)
    with pytest.raises(WorkerError, match="a worker failed: FileNotFoundError: there is no lexicon"):
        list(missing.translate(["dog 1"], "de"))


def test_flags_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(lines(60)))
    check = ["corpus", "check", str(path)]
    assert cli.main([*check, "--engine", "ray", "--num-proc", "2"]) == 1
    assert "--workers says how many" in capsys.readouterr().err
    assert cli.main([*check, "--address", "10.0.0.1:6379"]) == 1
    assert "add --engine ray" in capsys.readouterr().err
    assert cli.main([*check, "--json", str(tmp_path / "a.json")]) == 1
    assert cli.main([*check, "--json", str(tmp_path / "b.json"), "--num-proc", "3"]) == 1
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


class Ten:
    """Ten times a number."""

    def __call__(self, item: int) -> int:
        return 10 * item


@pytest.mark.slow
@pytest.mark.ray
def test_processes_are_not_forked_beside_a_cluster(cluster: Cluster) -> None:
    """Some of them crashed in Ray's own code, and the results never came."""
    with pytest.raises(RuntimeError, match="take Cluster, or another process for this"):
        list(Processes(2).map(range(6), Ten))


def test_processes_show_how_far_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    datasets.disable_progress_bars()  # as the commands do
    try:
        assert list(Processes(2).map(range(6), Ten)) == [0, 10, 20, 30, 40, 50]
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.enable_progress_bars()
    assert "Workers (num_proc=2): 100%" in capfd.readouterr().err
