"""A local cluster of two workers, of which one is killed: the same corpus, byte for byte."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset

from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import write_dataset
from xvlm2vec.corpus.translation import translate_corpus, translated_rows
from xvlm2vec.corpus.translators.on_ray import OnRay, _Worker
from xvlm2vec.corpus.translators.word_list import WordList

ray = pytest.importorskip("ray")
TEXTS = 120


class SlowList(WordList):
    """A word list that takes its time, and says who it is."""

    batch_size = 4

    def __init__(self, path, pids):
        super().__init__(path)
        (Path(pids) / str(os.getpid())).touch()

    def translate(self, texts, language, source="en"):
        for answer in super().translate(texts, language, source):
            time.sleep(0.02)
            yield answer


class Killing(OnRay):
    """Kills a worker when a third of the texts is done."""

    def __init__(self, *arguments, pids, **settings):
        super().__init__(*arguments, **settings)
        self.pids, self.answers = pids, []

    def translate(self, texts, language, source="en"):
        for answer in super().translate(texts, language, source):
            self.answers.append(answer[0])
            if len(self.answers) == TEXTS // 3:
                victim = next(int(path.name) for path in self.pids.iterdir() if int(path.name) != os.getpid())
                os.kill(victim, signal.SIGKILL)
            yield answer


def start_ray(attempts=3):
    """Starts a cluster; Ray waits for half a minute, which may be too short where much else runs."""
    for attempt in range(attempts):
        try:
            ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, logging_level="error",
                     log_to_driver=False)  # fmt: skip
            return
        except Exception:
            ray.shutdown()
            if attempt == attempts - 1:
                raise


@pytest.fixture
def two_workers():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    start_ray()
    yield
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(two_workers, tmp_path):
    words = tmp_path / "words.csv"
    words.write_text("en,de\n" + "".join(f"dog {n},Hund {n}\n" for n in range(TEXTS - 1)), encoding="utf-8")
    rows = [{"id": str(n), "image": None, "text_en": f"<image>\ndog {n}", "translations": [], "source": "t"}
            for n in range(TEXTS)]  # fmt: skip
    corpus = Dataset.from_list(rows, features=parallel_features())
    pids = tmp_path / "pids"
    pids.mkdir()
    engine = Killing(WordList(words), partial(SlowList, words, pids), 2, pids=pids)

    written = []
    for name, translator in (("here", WordList(words)), ("ray", engine)):
        folder = tmp_path / name
        outcome = translate_corpus(corpus, translator, ["de"], folder / "translations")
        assert outcome.translated == {"de": TEXTS - 1}
        assert [(row.id, row.problem) for row in outcome.rejected] == [
            (str(TEXTS - 1), f"words.csv does not have 'dog {TEXTS - 1}'")
        ]
        made = partial(translated_rows, corpus, ["de"], folder / "translations")
        write_dataset(made, parallel_features(), folder / "parallel")
        written.append([path.read_bytes() for path in sorted((folder / "parallel").glob("*.arrow"))])

    assert len(list(pids.iterdir())) == 3, "two workers, and one in the place of the killed one"
    assert sorted(engine.answers) == list(range(TEXTS)), "nothing twice"
    assert written[0] == written[1]


def test_what_a_worker_cannot_do_is_an_answer(tmp_path):
    words = tmp_path / "words.csv"
    words.write_text("en,de\ndog,Hund\n", encoding="utf-8")
    block = pa.table({"number": [7, 5], "text": ["dog", "cat"]})
    assert _Worker(partial(WordList, words), "de", "en")(block).to_pylist() == [
        {"number": 7, "translation": "Hund", "problem": ""},
        {"number": 5, "translation": None, "problem": "words.csv does not have 'cat'"},
    ]
    (failed,) = _Worker(partial(WordList, tmp_path / "none.csv"), "de", "en")(block).to_pylist()
    assert failed["number"] == -1
    assert failed["problem"].startswith("FileNotFoundError: there is no lexicon")
