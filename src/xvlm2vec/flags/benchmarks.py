"""The benchmark that the flags of `xvlm2vec evaluate` ask for."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from xvlm2vec.eval.benchmarks.instructions import Templates
    from xvlm2vec.eval.ranking import RankingTask

logger = logging.getLogger(__name__)

EMOJI_CONCEPTS, EMOJI_PIXELS = 300, 48
MTEB, EMOJI, EMOJI_LANGUAGES, NO_TEMPLATES = "mteb:", "emoji", "emoji-languages", "none"
RUNNER, MTEB_ITSELF = "runner", "mteb"
KEEP, DROP = "keep", "drop"
_OWN_DATA = ("data", "datasets", "tasks", "styles")  # flags without a meaning where mteb gets the data
_OWN_RUN = (
    "dims",
    "precision",
    "drift_from",
    "store",
    "translate_queries",
)  # and those without one where it runs the task
# Benchmarks whose data mteb gets, by the names that they are known by: its tasks, or its own name for a set of them.
OF_MTEB: Mapping[str, tuple[str, ...]] = {
    "xm3600": ("XM3600T2IRetrieval", "XM3600I2TRetrieval"),
    "xflickrco": ("XFlickr30kCoT2IRetrieval", "XFlickr30kCoI2TRetrieval"),
    "multi30k": ("Multi30kT2IRetrieval", "Multi30kI2TRetrieval"),
    "wit": ("WITT2IRetrieval", "WITI2TRetrieval"),
    "vdr": ("VDRMultilingualRetrieval",),
    "miracl-vision": ("MIRACLVisionRetrieval",),
    "jina-vdr": ("JinaVDR",),
}


def add_benchmark_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what names a benchmark and a part of it."""
    parser.add_argument("--benchmark", required=True, metavar="NAME", help="mmmeb, mmeb, xtd10, babel-imagenet, maxm, "
                        "cvqa, visr-bench, merit or rsicd in the published layout; tuxpaint, gcompris: what `xvlm2vec "
                        "data` unpacked; emoji: the built-in world, or an "
                        "exported one with --data; emoji-languages: its names in all languages, in two drawing styles; "
                        "folder: what `xvlm2vec corpus` or a release wrote; "
                        f"{', '.join(OF_MTEB)}: mteb gets the data; mteb:TASK,...: other retrieval tasks of mteb, "
                        "such as mteb:XM3600T2IRetrieval")  # fmt: skip
    parser.add_argument("--through", choices=(RUNNER, MTEB_ITSELF), default=RUNNER, help="who runs a task of mteb "
                        "(default runner: each distinct row is embedded once over all languages, directions and tasks; "
                        "mteb: mteb itself, one language after another, without the store; models of mteb always run "
                        "there, with their own prompts)")  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="folder of the benchmark, or Hub id of a data set")
    parser.add_argument("--datasets", type=console.names, metavar="NAMES", help="such as xm,xtd (default: all)")
    parser.add_argument("--languages", type=console.names, metavar="CODES", help="such as de,fr (default: all)")
    parser.add_argument("--tasks", type=console.names, metavar="NAMES", help="such as t2i,vqa (default: all)")
    parser.add_argument("--styles", type=console.names, metavar="NAMES", help="of plain,punct,newline, how texts end "
                        "(default: all three for mmmeb, otherwise texts as they are)")  # fmt: skip
    parser.add_argument("--faults", choices=(KEEP, DROP), default=KEEP, help="rows with known faults of the data, such "
                        "as a caption that says that it could not be translated: keep (default: they count, and "
                        "without_faults in results.json has the scores of the others) or drop")  # fmt: skip
    parser.add_argument("--templates", metavar="FILE", help="JSON with instructions instead of the benchmark's own: "
                        '{task: {language: {"query": "... {text} ...", "target": ...}}}, the language * standing for '
                        "all others; none: no instructions at all, as for models of two towers")  # fmt: skip


def is_of_mteb(benchmark: str) -> bool:
    """Whether a benchmark is mteb's, which gets the data and says what is right."""
    return benchmark.startswith(MTEB) or benchmark.lower() in OF_MTEB


def runs_in_mteb(flags: argparse.Namespace) -> bool:
    """Whether mteb itself runs the benchmark: where the flags say so, and for its own models.

    Raises:
        ValueError: A flag has no meaning there.
        FileNotFoundError: There is no such model.
    """
    from .encoders import encoder_kind

    if not is_of_mteb(flags.benchmark):
        return False
    if flags.through == MTEB_ITSELF:
        return True
    if encoder_kind(flags.model) != "mteb":
        return False
    unused = _named(flags, _OWN_RUN)
    if unused:
        raise ValueError(f"models of mteb run in mteb, with their own prompts, where --{unused[0]} has no meaning")
    logger.info("%s is a model of mteb: mteb itself runs the tasks, with the model's own prompts", flags.model)
    return True


def check_benchmark_flags(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Ends with a message where flags do not go together, before anything is loaded."""
    if is_of_mteb(flags.benchmark):
        if unused := _named(flags, _OWN_DATA):
            parser.error(f"mteb gets its data by itself; --{unused[0]} has no meaning for {flags.benchmark}")
        if flags.through == MTEB_ITSELF and (unused := _named(flags, _OWN_RUN)):
            parser.error(f"with --through mteb, mteb runs {flags.benchmark} by itself; --{unused[0]} has no meaning")
        if flags.through == MTEB_ITSELF and flags.faults == DROP:
            parser.error("with --through mteb, mteb scores every row; --faults drop has no meaning")
    elif flags.through == MTEB_ITSELF:
        parser.error(f"{flags.benchmark} is no benchmark of mteb; xvlm2vec.eval.mteb_tasks makes tasks of mteb of ours")
    elif flags.data is not None and flags.benchmark.lower() == EMOJI_LANGUAGES:
        parser.error(f"--benchmark {EMOJI_LANGUAGES} draws its images by itself; --data has no meaning for it")
    elif flags.data is None and flags.benchmark.lower() not in (EMOJI, EMOJI_LANGUAGES):
        parser.error(f"--benchmark {flags.benchmark} needs --data, the folder with its files")


def _named(flags: argparse.Namespace, names: tuple[str, ...]) -> list[str]:
    """Those flags that were given, as they are written."""
    return [name.replace("_", "-") for name in names if getattr(flags, name)]


def chosen_templates(flags: argparse.Namespace) -> Templates | None:
    """The instructions that the flags name; None for the benchmark's own.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged.
    """
    from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS, read_templates

    if flags.templates is None:
        return None
    return NO_INSTRUCTIONS if flags.templates == NO_TEMPLATES else read_templates(flags.templates)


def mteb_tasks_of(flags: argparse.Namespace) -> list[Any]:
    """The tasks of mteb after `mteb:`, or of a benchmark in `OF_MTEB`.

    Raises:
        ImportError: mteb is not installed.
        ValueError: There is no such task or language, or a task is no retrieval.
    """
    if not importlib.util.find_spec("mteb"):
        raise ImportError("tasks of mteb need it: pip install 'xvlm2vec[eval]'")
    from xvlm2vec.eval.mteb.run import mteb_tasks_named

    names = OF_MTEB.get(flags.benchmark.lower()) or console.names(flags.benchmark.removeprefix(MTEB))
    return mteb_tasks_named(names, flags.languages)


def task_reader(flags: argparse.Namespace) -> Callable[[Templates | None], list[RankingTask]]:
    """What reads the ranking tasks that the flags ask for with some instructions (None: the benchmark's own).

    Raises:
        ValueError: A task of mteb or a language is unknown; all else is told by the function.
    """
    if not is_of_mteb(flags.benchmark):
        return partial(benchmark_tasks, flags)
    from xvlm2vec.eval.mteb.reading import read_mteb

    return partial(read_mteb, mteb_tasks_of(flags))  # they hold their data, which is loaded once


def chosen_rows(flags: argparse.Namespace, tasks: list[RankingTask]) -> list[RankingTask]:
    """The tasks with all their rows, or without those that have known faults, as the flags want; both are told.

    Raises:
        ValueError: No task has a row left.
    """
    from xvlm2vec.eval.benchmarks.faults import without_faults

    concerned = {task.name: len({row for rows in task.faults.values() for row in rows}) for task in tasks}
    if any(concerned.values()):
        worst = max(concerned, key=lambda name: concerned[name])
        logger.info("%d rows have known faults of the data, most of them (%d) in %s%s", sum(concerned.values()),
                    concerned[worst], worst, "; dropped" if flags.faults == DROP else "")  # fmt: skip
    if flags.faults == KEEP:
        return tasks
    left = [chosen for task in tasks if (chosen := without_faults(task)) is not None]
    if not left:
        raise ValueError("every row has a known fault of the data; score them with --faults keep")
    return left


def benchmark_tasks(flags: argparse.Namespace, templates: Templates | None = None) -> list[RankingTask]:
    """The ranking tasks that the flags ask for.

    Args:
        flags: Parsed flags.
        templates: Instructions (default: the benchmark's own).

    Raises:
        ValueError: A name is unknown, or a file is damaged.
        FileNotFoundError: A file or folder is missing.
    """
    from xvlm2vec.eval.benchmarks.reading import NAMES, read_benchmark

    from .models import dataset_folder

    chosen: dict[str, Any] = {name: getattr(flags, name) for name in ("datasets", "languages", "tasks", "styles")}
    chosen["templates"] = templates
    name = flags.benchmark.lower()
    if name == EMOJI_LANGUAGES:
        from .emoji_languages import emoji_language_tasks

        return emoji_language_tasks(concepts=EMOJI_CONCEPTS, image_size=EMOJI_PIXELS, seed=flags.seed, **chosen)
    if name not in NAMES:
        names = ", ".join((*NAMES, EMOJI_LANGUAGES, *OF_MTEB))
        raise ValueError(f"there is no benchmark {flags.benchmark!r}; there are {names} and mteb:TASK.")
    if flags.data is None:
        return _emoji_tasks(flags.seed, chosen)
    folder = dataset_folder(flags.data)
    return read_benchmark(name, folder, title=_title(folder) if name != EMOJI else None, **chosen)


def _title(folder: Path) -> str:
    """The name on the benchmark's card, or that of its folder."""
    from xvlm2vec.hub.card import read_metadata

    card = folder / "README.md"
    title = read_metadata(card).get("pretty_name") if card.is_file() else None
    return str(title or folder.resolve().name)


def _emoji_tasks(seed: int, chosen: Mapping[str, Any]) -> list[RankingTask]:
    """The test split of the built-in world, written into a temporary folder and read back like any other."""
    from xvlm2vec.corpus.emoji.benchmark import emoji_benchmark
    from xvlm2vec.corpus.emoji.world import teaching_world
    from xvlm2vec.eval.benchmarks.reading import read_benchmark
    from xvlm2vec.hub.dataset_export import export_benchmark

    from .emoji import benchmark_card

    logger.info("Making the emoji world")
    benchmark = emoji_benchmark(teaching_world(None, concepts=EMOJI_CONCEPTS, image_size=EMOJI_PIXELS, seed=seed))
    with tempfile.TemporaryDirectory() as name:
        export_benchmark(benchmark.tasks, benchmark.images, Path(name) / EMOJI, benchmark_card(), benchmark.templates)
        return read_benchmark(EMOJI, Path(name) / EMOJI, **chosen)
