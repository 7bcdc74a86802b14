"""What the quickstart leaves to look at: `report.json`, `report.html`, the before/after image, the table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xvlm2vec.common.files import replaced_file, write_json, write_text
from xvlm2vec.common.tasks import MEAN_TASKS, TASK_TITLES
from xvlm2vec.corpus.benchmark import Benchmark
from xvlm2vec.corpus.emoji.benchmark import WITHHELD
from xvlm2vec.corpus.emoji.text import TASKS, instruct
from xvlm2vec.eval.report.before_after import before_after_svg
from xvlm2vec.eval.report.data import Answer, Credit, Example, LanguageInfo, ReportData, SearchEntry
from xvlm2vec.eval.report.page import write_report
from xvlm2vec.eval.report.results_page import vector_measures
from xvlm2vec.eval.report.tables import markdown_table, terminal_table
from xvlm2vec.eval.results import Results
from xvlm2vec.flags.emoji import SOURCES

from .release import score_table
from .run_folder import RunFolder
from .stages import BENCHMARK

if TYPE_CHECKING:
    from PIL import Image

    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

MODELS = ("teacher", "student")
FOUND = 6


def write_outcome(run: RunFolder) -> None:
    """Writes everything that a person looks at."""
    results = run.scores()
    tables = {name: score_table(results[name]) for name in MODELS}
    withheld = {name: score_table(results[name], WITHHELD).get("c", {}) for name in MODELS}
    report = {
        "trained_languages": list(run.trained_languages),
        "control_languages": list(run.control_languages),
        "scores": tables,
        "withheld": {"languages": list(run.world.config.withheld_languages), "scores": withheld},
        "summary": summary(run, tables),
        "seconds": run.state.seconds,
        "peak_rss_mb": run.state.peak_rss_mb,
        "release": _release_paths(run),
        "settings": run.config.settings(),
        "versions": results["student"].versions,
    }
    bench = run.benchmark
    write_report(_page(run, report, results, bench), run.path("report.html"))
    svg = before_after_svg(tables, list(run.world.config.languages), run.trained_languages, run.control_languages)
    write_text(run.path("before-after.svg"), svg)
    write_text(run.path("table.md"), markdown_table(results["student"], results["teacher"]))
    save_gallery(run)
    write_json(run.path("report.json"), report)


def outcome_table(run: RunFolder, width: int | None = None) -> str:
    """The table that the command ends with: each language before and after."""
    results = run.scores()
    return terminal_table(results["student"], results["teacher"], width=width, intervals=False)


def summary(run: RunFolder, tables: dict[str, Any]) -> dict[str, Any]:
    """The run in a few numbers, in points of P@1 over c, i2t, t2i and vg."""

    def mean(model: str, language: str) -> float:
        return 100 * float(np.mean([tables[model][task][language]["p_at_1"] for task in MEAN_TASKS]))

    def group(model: str, languages: Sequence[str]) -> float | None:
        return round(float(np.mean([mean(model, code) for code in languages])), 1) if languages else None

    worst = {
        task: min(
            100 * (tables["student"][task][code]["p_at_1"] - tables["student"][task]["en"]["p_at_1"])
            for code in run.trained_languages
        )
        for task in MEAN_TASKS
    }
    return {
        "english": {model: round(mean(model, "en"), 1) for model in MODELS},
        "taught": {model: group(model, run.trained_languages) for model in MODELS},
        "controls": {model: group(model, run.control_languages) for model in MODELS},
        "largest_gap_to_english": {task: round(gap, 1) for task, gap in worst.items()},
        "english_change": {
            task: round(100 * (tables["student"][task]["en"]["p_at_1"] - tables["teacher"][task]["en"]["p_at_1"]), 1)
            for task in TASKS
        },
    }


def _release_paths(run: RunFolder) -> dict[str, str | None]:
    parts = {"model": "release/model", "adapter": "release/adapter", "dataset": "release/benchmark"}
    return {name: path if run.path(path).is_dir() else None for name, path in parts.items()}


def _page(run: RunFolder, report: dict[str, Any], results: dict[str, Results], bench: Benchmark) -> ReportData:
    models = {"teacher": run.load("teacher"), "student": run.load_student()}
    images, search = _search(run, models)
    examples = _examples(results, bench, images)
    roles = {"en": "english"} | dict.fromkeys(run.trained_languages, "taught")
    withheld = report["withheld"]
    return ReportData(
        title="Emoji search in every language",
        subtitle="A tiny English image and text embedder, before and after self-knowledge distillation.",
        languages=[
            LanguageInfo.of(code, roles.get(code, "control"))  # type: ignore[arg-type]
            for code in run.world.config.languages
        ],
        tasks={task: TASK_TITLES[task] for task in TASKS},
        scores=report["scores"],
        seconds=report["seconds"],
        training_stages=("teacher", "student"),
        parameters=models["student"][0].num_parameters(),
        peak_rss_mb=report["peak_rss_mb"],
        facts=[
            ("Concepts", str(len(run.world))),
            ("Training", _what_was_trained(run)),
            ("Seed", str(run.config.seed)),
            *((f"{name} version", version) for name, version in report["versions"].items()),
        ],
        images=images,
        captions={str(path): name for path, name in _captions(run).items()},
        search=search,
        examples=examples,
        examples_note="The same randomly drawn test rows in every language.",
        withheld=withheld["scores"] if withheld["scores"]["teacher"] else None,
        withheld_languages=withheld["languages"],
        measures=vector_measures([results[name] for name in MODELS]),
        credits=[Credit(f"{source.name}: {source.license}", source.url) for source in SOURCES],
    )


def _what_was_trained(run: RunFolder) -> str:
    if run.is_activated:
        return "an adapter beside the teacher, which acts on texts in the taught languages only"
    return "LoRA and token embeddings" if run.config.lora else "all weights but the vision tower's"


def save_gallery(run: RunFolder) -> None:
    """Writes the images that the page searches into `images/`, each under the English name of what it shows."""
    folder = run.path("images")
    folder.mkdir(exist_ok=True)
    for concept in range(len(run.world)):
        name = re.sub(r"[^\w-]+", "-", run.world.name(concept, "en").lower()).strip("-")
        with replaced_file(folder / f"{name}.png") as draft:
            _unseen_image(run, concept).save(draft, "PNG")


def _unseen_image(run: RunFolder, concept: int) -> Image.Image:
    """One rendering of a concept that no training has seen."""
    world = run.world
    return world.render(world.compose([concept], world.scene_seed("test", "search", concept)))


def _captions(run: RunFolder) -> dict[str, str]:
    return {_image_id(concept): run.world.name(concept, "en") for concept in range(len(run.world))}


def _image_id(concept: int) -> str:
    return f"concept-{concept}"


def _search(
    run: RunFolder, models: dict[str, tuple[XVLM2VecModel, XVLM2VecProcessor]]
) -> tuple[dict[str, Any], list[SearchEntry]]:
    """One unseen image of every concept, and what each model finds for every name in every language.

    Images and names are embedded as in classification, with the images in the place of the classes.
    """
    world = run.world
    concepts = range(len(world))
    images = {_image_id(concept): _unseen_image(run, concept) for concept in concepts}
    names = [(language, concept) for language in world.config.languages for concept in concepts]
    queries = [instruct("c", language, "target", world.name(concept, language)) for language, concept in names]
    beside_image = instruct("c", "en", "query")
    nearest: dict[str, np.ndarray] = {}
    for model_name, (model, processor) in models.items():
        gallery = model.encode(text=[beside_image] * len(images), images=list(images.values()), processor=processor)
        spoken = [language if language in model.languages else None for language, _ in names]
        similarities = model.encode(text=queries, processor=processor, language=spoken) @ gallery.T
        nearest[model_name] = np.argsort(-similarities, axis=1, kind="stable")[:, :FOUND]
    entries = [
        SearchEntry(
            lang=language,
            text=world.name(concept, language),
            gold=_image_id(concept),
            teacher=[_image_id(int(place)) for place in nearest["teacher"][row]],
            student=[_image_id(int(place)) for place in nearest["student"][row]],
        )
        for row, (language, concept) in enumerate(names)
    ]
    return images, entries


def _examples(results: dict[str, Results], bench: Benchmark, images: dict[str, Any]) -> list[Example]:
    """Example queries of both models side by side; their images are added to those of the page."""
    student = {_example_key(item): item for item in results["student"].examples}
    stored = dict(zip(bench.images["path"], range(len(bench.images)), strict=True))
    raw = bench.images

    def show(path: str | None) -> str | None:
        if path is not None and path not in images:
            images[path] = raw[stored[path]]["image"]
        return path

    def candidate(item: dict[str, Any], gold: int) -> Answer:
        return Answer(text=item["text"], image=show(item["image"]), correct=item["id"] == gold)

    examples = []
    for item in results["teacher"].examples:
        if item["dataset"] != BENCHMARK:
            continue
        other, gold = student[_example_key(item)], item["gold"]["id"]
        examples.append(
            Example(
                task=item["task"],
                lang=item["language"],
                query_text=item["query"]["text"],
                query_image=show(item["query"]["image"]),
                gold=candidate(item["gold"], gold),
                teacher=[candidate(one, gold) for one in item["top"]],
                student=[candidate(one, gold) for one in other["top"]],
            )
        )
    return examples


def _example_key(item: dict[str, Any]) -> tuple[Any, ...]:
    return item["dataset"], item["task"], item["language"], item["row"]
