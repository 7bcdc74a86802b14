"""Benchmarks as mteb's own repository takes them: what is written is read, checked and scored by mteb itself."""

from __future__ import annotations

import runpy
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mteb = pytest.importorskip("mteb")

from xvlm2vec.cli import main  # noqa: E402
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS  # noqa: E402
from xvlm2vec.eval.benchmarks.reading import read_benchmark  # noqa: E402
from xvlm2vec.eval.encoders import as_encoder  # noqa: E402
from xvlm2vec.eval.mteb.contribution import Contribution, write_contributions  # noqa: E402
from xvlm2vec.eval.mteb.models import mteb_model  # noqa: E402
from xvlm2vec.eval.mteb.task_facts import FACTS  # noqa: E402
from xvlm2vec.eval.runner import evaluate  # noqa: E402

WITH_INSTRUCTIONS = ("mmeb", "mmmeb")
# The made folders have these alone.
PARTS = {
    "maxm": {"languages": ["en", "he"]}, "mmeb": {"datasets": ["ImageNet-1K", "RefCOCO-Matching"]},
    "mmmeb": {"datasets": ["xm"], "languages": ["en", "de"]},
}  # fmt: skip


def load(written: Contribution) -> Any:
    """The task of a file, with its data set in the folder instead of on the Hub."""
    source = written.task_file.read_text(encoding="utf-8")
    here = written.task_file.with_suffix(".here.py")
    here.write_text(source.replace(f'"path": "{written.repo_id}", "revision": "main"',
                                   f'"path": "{written.data}", "revision": "main"'), encoding="utf-8")  # fmt: skip
    return runpy.run_path(str(here))[written.name]()


def scattered(texts: list[str | None], images: list) -> np.ndarray:
    """Vectors that differ for all rows, so that nothing ties: drawn from a text's letters and an image's values."""
    vectors = []
    for text, image in zip(texts, images, strict=True):
        pixels = b"" if image is None else image.convert("RGB").resize((2, 2)).tobytes()
        seed = zlib.crc32((text or "").strip().encode() + b"|" + pixels)
        vectors.append(np.random.default_rng(seed).standard_normal(16))
    return np.array(vectors)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "cvqa" else [pytest.mark.slow]) for name in sorted(FACTS)]
)
def test_mteb_reads_and_scores_what_was_written(published: Callable, tmp_path: Path, name: str) -> None:
    folder, encoder = published(name), as_encoder(scattered, name="scattered")
    templates = None if name in WITH_INSTRUCTIONS else NO_INSTRUCTIONS
    styles = ["plain"] if name == "mmmeb" else None
    part = PARTS.get(name, {})
    written = write_contributions(name, folder, tmp_path / "out", **part)
    tasks = read_benchmark(name, folder, templates=templates, styles=styles, **part)
    here = evaluate(encoder, tasks, progress=False)
    found = {}
    for each in written:
        task = load(each)
        assert task.metadata.is_filled()
        assert each.statistics.is_file()
        result = mteb.evaluate(
            mteb_model(encoder, NO_INSTRUCTIONS), task, cache=None, show_progress_bar=False, co2_tracker=False
        )
        (scores,) = [one.scores["test"] for one in result.task_results]
        score = task.metadata.main_score
        found.update({(each.name, row["hf_subset"]): (score, row[score]) for row in scores})
    ours = sorted(row["ndcg_at_10" if whole_pool(found) else "p_at_1"] for row in here.rows)
    assert [value for _, value in sorted(found.values(), key=lambda item: item[1])] == pytest.approx(ours, abs=1e-5)
    assert len(found) == len(here.rows)


def whole_pool(found: dict) -> bool:
    return {score for score, _ in found.values()} == {"ndcg_at_10"}


def test_what_cannot_be_written_is_told(published: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["mteb-task", "merit", "--data", str(published("merit")), "--output", str(tmp_path / "out")]
    assert main(flags) == 1
    assert "no rows with several images, as MERIT has them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_images_that_all_languages_share_are_one_file(published: Callable, tmp_path: Path) -> None:
    flags = ["mteb-task", "xtd10", "--data", str(published("xtd10")), "--output", str(tmp_path / "out")]
    assert main(flags) == 0
    folder = tmp_path / "out" / "data" / "XTD10T2IRetrieval"
    assert len(list(folder.glob("*corpus.parquet"))) == 1
    assert len(list(folder.glob("*qrels.parquet"))) > 1
    assert str(tmp_path) not in (folder / "README.md").read_text(encoding="utf-8")
