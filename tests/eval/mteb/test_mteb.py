"""Real mteb on real, tiny data: our tasks in it, its tasks here, and its models."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Image

mteb = pytest.importorskip("mteb")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models import ModelMeta  # noqa: E402
from mteb.models.abs_encoder import AbsEncoder  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.sentence_transformer.modules import BoW  # noqa: E402

import xvlm2vec.eval  # noqa: E402
from xvlm2vec.eval.abilities import IMAGE, PAIR, TEXT  # noqa: E402
from xvlm2vec.eval.benchmarks.reading import instructions, read_benchmark  # noqa: E402
from xvlm2vec.eval.encoders import as_encoder  # noqa: E402
from xvlm2vec.eval.mteb.models import EncoderForMteb, MtebModelEncoder, language_script, subset_language  # noqa: E402
from xvlm2vec.eval.mteb.run import evaluate_mteb, mteb_task  # noqa: E402
from xvlm2vec.eval.mteb.tasks import MAIN_SCORE, counts_of_results  # noqa: E402
from xvlm2vec.eval.ranking import RankingTask, Row  # noqa: E402
from xvlm2vec.eval.runner import evaluate  # noqa: E402
from xvlm2vec.flags.benchmarks import is_of_mteb, mteb_tasks_of  # noqa: E402

COLORS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}
WORDS = {"en": ["red", "lime", "blue"], "de": ["rot", "grün", "blau"]}


def score(result: Any, task: str, language: str, name: str = "main_score") -> float:
    (found,) = [r for r in result.task_results if r.task_name == task]
    (row,) = [row for row in found.scores["test"] if row["hf_subset"] == language]
    return row[name]


def run(model: Any, tasks: Any) -> Any:
    return mteb.evaluate(model, tasks, cache=None, show_progress_bar=False, co2_tracker=False)


@pytest.mark.parametrize("name", ["MMMEB", "XTD10", "cvqa", "rsicd", "emoji"])
def test_our_tasks_score_the_same_in_mteb(published: Callable, color_model: Callable, name: str) -> None:
    folder = published(name.lower())
    options = {"datasets": ["xm"], "languages": ["en", "de"]} if name == "MMMEB" else {}
    encoder = as_encoder(color_model("en", "es"), name="colors")
    styles = ["plain"] if name == "MMMEB" else None  # mteb's tasks have one, unless others are asked for
    here = evaluate(encoder, read_benchmark(name, folder, styles=styles, **options), progress=False)
    tasks = xvlm2vec.eval.mteb_tasks(name, folder, **options)
    there = run(xvlm2vec.eval.mteb_model(encoder), tasks)
    assert len(here.rows) == sum(len(task.hf_subsets) for task in tasks) >= 2
    for row in here.rows:
        label = "-".join(dict.fromkeys([row["benchmark"], row["dataset"], row["task"]]))
        assert score(there, label, row["language"]) == pytest.approx(row["p_at_1"])
        assert score(there, label, row["language"], "tied_rows") == row["ties"]
    assert {round(row["p_at_1"], 3) for row in here.rows} - {1.0} or name == "rsicd", "some rows are level"


def test_line_breaks_that_mteb_strips_are_put_back(published: Callable, color_model: Callable) -> None:
    folder = published("mmmeb")
    options = {"datasets": ["xm"], "languages": ["en"], "styles": ["newline"]}
    seen: set[str] = set()
    words = color_model("en")

    def embed(texts: list, images: list) -> np.ndarray:
        seen.update(text for text in texts if text)
        return words(texts, images)

    here = evaluate(as_encoder(embed), read_benchmark("mmmeb", folder, **options), progress=False)
    expected = set(seen)
    seen.clear()
    tasks = xvlm2vec.eval.mteb_tasks("mmmeb", folder, **options)
    there = run(xvlm2vec.eval.mteb_model(embed), tasks)
    assert seen == expected
    assert sum(text.endswith(".\n") for text in seen) > 3
    for row in here.rows:
        assert score(there, f"MMMEB-xm-{row['task']}-newline", "en") == pytest.approx(row["p_at_1"])
    with pytest.raises(ValueError, match=r"MMMEB-xm-t2i-newline: mteb strips the line breaks .* pass xvlm2vec"):
        run(color_model_of_mteb(), [task for task in tasks if task.metadata.name.endswith("t2i-newline")])


def test_ties_are_shared_where_mteb_favours_one_side(published: Callable) -> None:
    def constant(texts: list, images: list) -> np.ndarray:
        return np.ones((len(texts), 2))

    tasks = xvlm2vec.eval.mteb_tasks("xtd10", published("xtd10"), languages=["de"], tasks=["t2i"])
    result = run(xvlm2vec.eval.mteb_model(constant), tasks)
    assert score(result, "XTD10-xtd-t2i", "de") == pytest.approx(1 / 3)
    assert score(result, "XTD10-xtd-t2i", "de", "tied_rows") == 3
    assert tasks[0].metadata.main_score == MAIN_SCORE


def test_a_bare_sentence_transformer(published: Callable) -> None:
    """On texts it needs no wrapper; on images mteb would leave them out, which is refused."""
    rows = [Row("a red dog"), Row("a blue cat")]
    task = RankingTask("B", "d", "t2t", "en", "plain", rows, [Row("dog"), Row("cat")], [[0, 1], [1, 0]])
    model = SentenceTransformer(modules=[BoW(vocab=["dog", "cat"])], device="cpu")
    assert score(run(model, xvlm2vec.eval.mteb_tasks([task])), "B-d-t2t", "en") == 1.0
    images = xvlm2vec.eval.mteb_tasks("xtd10", published("xtd10"), tasks=["t2i"])
    with pytest.raises(ValueError, match=r"XTD10-xtd-t2i has images, .* pass xvlm2vec\.eval\.mteb_model\(model\)"):
        run(model, images)


def test_what_mteb_cannot_hold(published: Callable) -> None:
    with pytest.raises(ValueError, match=r"MERIT/merit/product/.* has several images; mteb's tasks hold one"):
        xvlm2vec.eval.mteb_tasks("merit", published("merit"))
    with pytest.raises(
        FileNotFoundError, match=r"emoji has no data set on the Hub .* pass data=, a folder \(`xvlm2vec"
    ):
        xvlm2vec.eval.mteb_tasks("emoji")
    with pytest.raises(AttributeError, match="public names: mteb_model, mteb_tasks"):
        _ = xvlm2vec.eval.other


def test_languages_by_their_names_in_mteb() -> None:
    assert [language_script(code) for code in ("de", "ja", "es-Mexico", "arz", "nonsense")] == [
        "deu-Latn", "jpn-Jpan", "spa-Latn", "arz-Arab", None,
    ]  # fmt: skip


def test_counts_of_results() -> None:
    counts = counts_of_results(
        {"a": {"x": 1, "y": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 0}},
        {"a": {"x": 0.1, "y": 0.5, "z": 0.5}, "b": {"y": 0.9, "z": 0.1}, "c": {"y": 0.9, "x": 0.3}},
    )
    assert counts.above.tolist() == [0, 2, 1]
    assert counts.tied.tolist() == [1, 0, 0]


class ColorRetrieval(AbsTaskRetrieval):
    """A task of the same type as XM3600T2IRetrieval, whose data is made here."""

    metadata = TaskMetadata(
        name="ColorT2IRetrieval",
        description="Images of one color by its name.",
        dataset={"path": "local/colors", "revision": "1"},
        type="Any2AnyMultilingualRetrieval",
        category="t2i",
        modalities=["text", "image"],
        eval_langs={"en": ["eng-Latn"], "de": ["deu-Latn"]},
        main_score="ndcg_at_10",
    )

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        from PIL import Image as PILImage

        images = [PILImage.new("RGB", (8, 8), color) for color in COLORS]
        corpus = Dataset.from_dict({"id": [f"c{i}" for i in range(3)], "image": images}).cast_column("image", Image())
        self.dataset = {
            language: {
                "test": {
                    "corpus": corpus,
                    "queries": Dataset.from_dict({"id": [f"q{i}" for i in range(3)], "text": words}),
                    "relevant_docs": {f"q{i}": {f"c{i}": 1} for i in range(3)},
                    "top_ranked": None,
                }
            }
            for language, words in WORDS.items()
            if language in self.hf_subsets
        }
        self.data_loaded = True


def test_a_task_of_mteb_becomes_rows(color_model: Callable, tmp_path: Any) -> None:
    results = evaluate_mteb(as_encoder(color_model("en"), name="colors"), [ColorRetrieval()], progress=False)
    rows = {row["language"]: row for row in results.rows}
    assert {language: (row["n"], row["p_at_1"]) for language, row in rows.items()} == {
        "en": (3, 1.0),
        "de": (3, pytest.approx(1 / 3)),
    }
    assert (rows["en"]["benchmark"], rows["en"]["dataset"], rows["en"]["task"]) == ("mteb", "ColorT2IRetrieval", "t2i")
    assert rows["en"]["main_score"] == {"name": "ndcg_at_10", "value": 1.0}
    assert rows["de"]["ties"] == 3
    results.save(tmp_path)
    assert xvlm2vec.eval.results.Results.load(tmp_path) == results


def test_instructions_follow_the_language_of_the_subset() -> None:
    seen: list[str] = []

    def embed(texts: list, images: list) -> np.ndarray:
        seen.extend(text for text in texts if text)
        return np.random.default_rng(0).normal(size=(len(texts), 4))

    evaluate_mteb(as_encoder(embed), [ColorRetrieval()], progress=False)
    german, english = instructions()["t2i"]["de"], instructions()["t2i"]["en"]
    assert german["query"].replace("{text}", "grün") in seen
    assert english["query"].replace("{text}", "red") in seen
    assert seen.count(german["target"]) == seen.count(english["target"]) == 3
    encoder = as_encoder(embed)
    encoder.instructed = False
    seen.clear()
    run(EncoderForMteb(encoder), ColorRetrieval())
    assert set(seen) == {*WORDS["en"], *WORDS["de"]}
    assert subset_language(ColorRetrieval.metadata, "de") == "de"


@pytest.mark.parametrize(
    ("name", "languages", "message"),
    [
        ("XM3600T2IRetrieva", None, "mteb has no task 'XM3600T2IRetrieva'.*XM3600T2IRetrieval"),
        ("Banking77Classification", None, "type Classification; only retrieval is scored here"),
        ("XM3600T2IRetrieval", ["de", "tlh"], "has no language tlh; it has ar, bn"),
    ],
)
def test_unknown_tasks(name: str, languages: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mteb_task(name, languages)


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("xm3600", {"XM3600T2IRetrieval", "XM3600I2TRetrieval"}),
        ("xflickrco", {"XFlickr30kCoT2IRetrieval", "XFlickr30kCoI2TRetrieval"}),
        ("Multi30k", {"Multi30kT2IRetrieval", "Multi30kI2TRetrieval"}),
        ("wit", {"WITT2IRetrieval", "WITI2TRetrieval"}),
        ("vdr", {"VDRMultilingualRetrieval"}),
        ("miracl-vision", {"MIRACLVisionRetrieval"}),
        ("mteb:XM3600T2IRetrieval,WITT2IRetrieval", {"XM3600T2IRetrieval", "WITT2IRetrieval"}),
    ],
)
def test_the_benchmarks_of_mteb_by_their_own_names(name: str, tasks: set[str]) -> None:
    assert is_of_mteb(name)
    assert {task.metadata.name for task in mteb_tasks_of(Namespace(benchmark=name, languages=None))} == tasks


def test_of_many_tasks_those_count_that_have_the_language(caplog: pytest.LogCaptureFixture) -> None:
    everything = mteb_tasks_of(Namespace(benchmark="jina-vdr", languages=None))
    assert len({task.metadata.name for task in everything}) == 43
    assert all(task.metadata.name.startswith("JinaVDR") for task in everything)
    german = mteb_tasks_of(Namespace(benchmark="jina-vdr", languages=("de",)))
    assert "JinaVDREuropeanaDeNewsRetrieval" in {task.metadata.name for task in german}
    assert 0 < len(german) < len(everything)
    assert "Left out JinaVDRHindiGovVQARetrieval: it has no language de" in caplog.text
    with pytest.raises(ValueError, match=r"JinaVDR.* has no language tlh; it has .*hi"):
        mteb_tasks_of(Namespace(benchmark="jina-vdr", languages=("de", "tlh")))


class ColorModel(AbsEncoder):
    """As mteb's own models are: it looks at the features of the loader's data set, and at the prompt type."""

    def __init__(self, model_name: str = "", revision: str | None = None, **kwargs: Any) -> None:
        self.sides: list[Any] = []

    def encode(self, inputs: Any, *, prompt_type: Any = None, **kwargs: Any) -> np.ndarray:
        self.sides.append(prompt_type)
        parts = []
        for batch in inputs:
            text = [np.array([word in t for word in WORDS["en"]], float) for t in batch.get("text", [])]
            image = [np.asarray(p.convert("RGB"))[0, 0] / 255.0 for p in batch.get("image", [])]
            assert set(batch) - {"id"} == set(inputs.dataset.features) - {"id"}
            parts += [sum(pair) for pair in zip(*[side for side in (text, image) if side], strict=True)]
        return np.array(parts)


def color_model_of_mteb() -> ColorModel:
    model = ColorModel()
    model.mteb_model_meta = ModelMeta.create_empty({"name": "local/colors", "modalities": ["text", "image"]})
    return model


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> str:
    from mteb.models.model_implementations import MODEL_REGISTRY

    """The name of a model that mteb loads; of texts, since for images it wants torchvision to be installed."""
    name = "local/words"
    meta = ModelMeta.create_empty({"name": name, "revision": "1", "loader": ColorModel, "modalities": ["text"]})
    monkeypatch.setitem(MODEL_REGISTRY, name, meta)
    return name


def test_a_model_of_mteb(published: Callable) -> None:
    encoder = MtebModelEncoder(color_model_of_mteb())
    assert (encoder.name, encoder.embeds, encoder.instructed) == ("local/colors", {TEXT, IMAGE, PAIR}, False)
    results = evaluate(encoder, read_benchmark("xtd10", published("xtd10")), progress=False)
    assert results.scores()["t2i"] == {"en": 1.0, "de": pytest.approx(1 / 3), "ja": pytest.approx(1 / 3)}


def test_a_model_of_mteb_has_its_own_prompts_on_mtebs_tasks() -> None:
    encoder = MtebModelEncoder(color_model_of_mteb())
    results = evaluate_mteb(encoder, [ColorRetrieval()], progress=False)
    assert results.rows[0]["p_at_1"] == 1.0
    assert {str(side.value) for side in encoder.model.sides} == {"query", "document"}


def test_a_vector_that_is_no_number_is_named() -> None:
    def broken(texts: list, images: list) -> np.ndarray:
        return np.array([[np.nan if text and "rot" in text else 1.0] for text in texts])

    with pytest.raises(ValueError, match=r"broken returned a vector with a NaN .*: rot"):
        evaluate_mteb(as_encoder(broken), [ColorRetrieval()], progress=False)


def test_cross_encoders_do_not_embed() -> None:
    class Cross:
        mteb_model_meta = ModelMeta.create_empty({"name": "local/cross", "model_type": ["cross-encoder"]})

    with pytest.raises(ValueError, match="local/cross does not embed; mteb has it as cross-encoder"):
        MtebModelEncoder(Cross())


class WordRetrieval(ColorRetrieval):
    """Texts on both sides."""

    metadata = TaskMetadata(
        name="WordRetrieval",
        description="Words by themselves.",
        dataset={"path": "local/words", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_langs={"en": ["eng-Latn"], "de": ["deu-Latn"]},
        main_score="ndcg_at_10",
    )

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        super().load_data()
        for splits in self.dataset.values():
            splits["test"]["corpus"] = Dataset.from_dict({"id": ["c0", "c1", "c2"], "text": WORDS["en"]})


def test_the_command_runs_models_and_tasks_of_mteb(
    registered: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    from xvlm2vec import cli
    from xvlm2vec.eval.results import Results

    known = importlib.import_module("mteb.get_tasks")._TASKS_REGISTRY  # the package has a function of this name, too
    monkeypatch.setitem(known, "WordRetrieval", WordRetrieval)
    arguments = ["--benchmark", "mteb:WordRetrieval", "--languages", "en", "--output", str(tmp_path)]
    assert cli.main(["evaluate", f"mteb:{registered}", *arguments]) == 0
    results = Results.load(tmp_path)
    found = [(row["dataset"], row["language"], row["p_at_1"]) for row in results.rows]
    assert found == [("WordRetrieval", "en", 1.0)]
    assert results.model == registered
    assert cli.main(["evaluate", registered, *arguments]) == 0, "mteb alone knows the name"
    assert cli.main(["evaluate", "mteb:local/none", *arguments]) == 1


def test_of_several_processes_the_first_alone_runs_mteb(
    registered: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    from xvlm2vec import cli
    from xvlm2vec.eval.processes import Processes

    known = importlib.import_module("mteb.get_tasks")._TASKS_REGISTRY
    monkeypatch.setitem(known, "WordRetrieval", WordRetrieval)
    for rank in (1, 0):
        monkeypatch.setattr("xvlm2vec.eval.processes.processes", lambda rank=rank: Processes(rank, 2, "cpu"))
        output = tmp_path / str(rank)
        choice = ["--benchmark", "mteb:WordRetrieval", "--languages", "en", "--output", str(output)]
        assert cli.main(["evaluate", f"mteb:{registered}", *choice]) == 0
        assert (output / "results.json").exists() == (rank == 0)


def test_a_subset_that_bears_no_language_in_its_name() -> None:
    task = mteb_task("JinaVDRArxivQARetrieval", ["en"])
    assert task.hf_subsets == ["default"]
    with pytest.raises(ValueError, match="has no language de; it has en"):
        mteb_task("JinaVDRArxivQARetrieval", ["de"])
