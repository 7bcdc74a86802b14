"""`--benchmark emoji-languages`: names of emoji and of pairs of them in a hundred languages, in two drawing styles."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from xvlm2vec.common.tasks import TASK_TITLES

if TYPE_CHECKING:
    from xvlm2vec.corpus.emoji.breadth import Scenes
    from xvlm2vec.eval.benchmarks.instructions import Templates
    from xvlm2vec.eval.benchmarks.selection import Selection
    from xvlm2vec.eval.benchmarks.task_rows import TaskRows
    from xvlm2vec.eval.ranking import RankingTask

logger = logging.getLogger(__name__)

BENCHMARK = "Emoji in all languages"
TASKS = ("c", "i2t", "t2i")


def emoji_language_tasks(
    *,
    concepts: int,
    image_size: int,
    seed: int,
    datasets: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    styles: Sequence[str] | None = None,
    templates: Templates | None = None,
) -> list[RankingTask]:
    """The test split of the emoji world with every language, as ranking tasks; the data sets are drawing styles.

    `c` looks for the name of an image among all names of the language, `i2t` and `t2i` for captions and images of
    unseen pairs among those of all rows.

    Args:
        concepts: Concepts of the world.
        image_size: Side of its images in pixels.
        seed: Of the world.
        datasets: Of `world.STYLES` (default: all).
        languages: Codes (default: all).
        tasks: Of `TASKS` (default: all).
        styles: How texts end (default: as they are).
        templates: Instructions (default: the world's; languages without any have the English ones).

    Raises:
        ValueError: A name is unknown, or instructions do not fit.
    """
    from xvlm2vec.corpus.emoji.breadth import pair_scenes, single_scenes
    from xvlm2vec.corpus.emoji.text import all_languages, instructions
    from xvlm2vec.corpus.emoji.world import STYLES, teaching_world
    from xvlm2vec.eval.benchmarks.instructions import VERBATIM
    from xvlm2vec.eval.benchmarks.selection import Selection

    selection = Selection(datasets, tasks, languages)
    if templates is None:
        templates = {task: sides | {"*": sides["en"]} for task, sides in instructions().items() if task in TASKS}
    codes, found = all_languages(), []
    for style in STYLES:
        if not selection.takes(dataset=style):
            continue
        logger.info("Drawing the emoji world in the style %s", style)
        world = teaching_world(
            codes[1:], known=codes, concepts=concepts, image_size=image_size, seed=seed, style=style
        )  # fmt: skip
        for rows in _style_rows(single_scenes(world), pair_scenes(world), codes, selection):
            found += [rows.ranking_task(templates, end) for end in styles or (VERBATIM,)]
    selection.check(BENCHMARK)
    return found


def _style_rows(single: Scenes, pairs: Scenes, codes: Sequence[str], selection: Selection) -> Iterator[TaskRows]:
    from xvlm2vec.eval.benchmarks.task_rows import TaskRows

    style = single.world.config.style
    for code in codes:
        for task in TASKS:
            if not selection.takes(task=task, language=code):
                continue
            scenes = single if task == "c" else pairs
            where = f"{BENCHMARK} ({style}, {TASK_TITLES[task].lower()})"
            rows = TaskRows(
                BENCHMARK, style, task, code, where, scenes.images, query_text=task == "t2i", target_text=task != "t2i",
                whole_pool=True, parallel=True,
            )  # fmt: skip
            for number, (text, image) in enumerate(zip(scenes.texts(code), scenes.images, strict=True)):
                if task == "t2i":
                    rows.add(number, text, None, [(None, image)])
                else:
                    rows.add(number, None, image, [(text, None)])
            if task == "c":
                rows.number((name, None) for name in single.world.names(code))
            yield rows
