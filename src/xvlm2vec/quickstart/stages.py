"""The stages of the quickstart: each calls what the commands `contrast`, `distill`, `evaluate` and `release` call."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from xvlm2vec.corpus.emoji.benchmark import WITHHELD, EmojiBenchmark, emoji_benchmark
from xvlm2vec.corpus.emoji.tiny_model import build_tiny_model
from xvlm2vec.corpus.emoji.training import contrastive_curriculum, parallel_rows, tokenizer_texts
from xvlm2vec.eval.benchmarks.mmmeb import DatasetImages, ranking_task
from xvlm2vec.eval.embedding import ModelEncoder
from xvlm2vec.eval.ranking import RankingTask
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.runner import Extras, evaluate
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter, load_adapter
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.precision import training_precision
from xvlm2vec.trainer.progress import StageBar

from .release import release_student
from .run import Quickstart, tiny_model_config

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from xvlm2vec.corpus.emoji.world import EmojiWorld

BENCHMARK = "emoji"
EXTRAS = Extras(examples=5, precisions=("int8", "binary"))
SAVE_STEPS = 250  # half a minute of work at most is done twice after an interruption


def make_model(run: Quickstart) -> None:
    """Writes the untrained model into `untrained/`."""
    model, processor = build_tiny_model(tiny_model_config(run.config), tokenizer_texts(run.world))
    model.config.prompts = prompts(run)
    model.save_pretrained(run.path("untrained"))
    processor.save_pretrained(run.path("untrained"))


def teach_english(run: Quickstart) -> None:
    """Contrastive training on English, into `teacher/`."""
    sizes = run.config.sizes
    rows = contrastive_curriculum(run.world, sizes.lessons, sizes.teacher_batch, run.config.seed)
    args = ContrastiveConfig(
        output_dir=str(run.path("teacher")),
        per_device_train_batch_size=sizes.teacher_batch,
        learning_rate=4e-3,
        muon_learning_rate=2e-3,
        train_sampling_strategy="sequential",
        save_steps=SAVE_STEPS,
        seed=run.config.seed,
        **training_precision(),
    )
    train_contrastive(args, rows, progress("Teacher"), model=str(run.path("untrained")))
    _drop_checkpoints(run, "teacher")


def distil(run: Quickstart) -> None:
    """Self-distillation into the taught languages, into `student/`, or `adapter/` with LoRA."""
    sizes, seed = run.config.sizes, run.config.seed
    teacher, processor = load(run, "teacher")
    model = add_adapter(teacher, AdapterConfig(rank=32, train_embeddings=True)) if run.config.lora else teacher
    args = SelfDistillationConfig(
        output_dir=str(run.path("adapter" if run.config.lora else "student")),
        per_device_train_batch_size=sizes.distill_batch,
        max_steps=sizes.distill_steps,
        learning_rate=4e-3,
        muon_learning_rate=4e-3 if run.config.lora else 2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        max_grad_norm=2.0,
        translations_per_row=sizes.translations_per_row,
        max_tokens_per_forward=1_500,
        teacher="adapter-off" if run.config.lora else "copy",
        save_steps=SAVE_STEPS,
        save_total_limit=2,
        logging_steps=50,
        seed=seed,
        report_to="none",
        **training_precision(),
    )
    rows = parallel_rows(run.world, rows=sizes.distill_steps * sizes.distill_batch, seed=seed)
    distill(model, processor, args, rows, callbacks=progress("Student"))
    _drop_checkpoints(run, "adapter" if run.config.lora else "student")


def measure_teacher(run: Quickstart) -> None:
    """Scores of the teacher, into `scores/teacher/`."""
    _measure(run, "teacher", *load(run, "teacher"))


def measure_student(run: Quickstart) -> None:
    """Scores of the student, into `scores/student/`."""
    _measure(run, "student", *load_student(run))


def release(run: Quickstart) -> None:
    """The release of the student, into `release/`."""
    release_student(run, load_student(run), adapter=_adapter(run), benchmark=benchmark(run), scores=scores(run))


def load(run: Quickstart, name: str) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
    """A model of the run and its processor."""
    folder = run.path(name)
    return XVLM2VecModel.from_pretrained(folder), XVLM2VecProcessor.from_pretrained(folder)


def load_student(run: Quickstart) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
    """The student, merged if it was trained as an adapter."""
    if not run.config.lora:
        return load(run, "student")
    model, processor = load(run, "teacher")
    return load_adapter(model, run.path("adapter")).merge_and_unload(), processor


def _adapter(run: Quickstart) -> Any:
    """The teacher with the student's adapter, if one was trained."""
    return load_adapter(load(run, "teacher")[0], run.path("adapter")) if run.config.lora else None


def benchmark(run: Quickstart) -> EmojiBenchmark:
    """The test split in all languages of the run."""
    return _benchmark(run.world, run.config.sizes.test_rows)


@lru_cache(maxsize=1)
def _benchmark(world: EmojiWorld, rows: int) -> EmojiBenchmark:
    return emoji_benchmark(world, "test", rows=rows)


def benchmark_tasks(bench: EmojiBenchmark) -> list[RankingTask]:
    """Every task in every language, as the runner takes it; withheld concepts are a data set of their own."""
    images = DatasetImages(bench.images)
    return [
        ranking_task(
            rows,
            images,
            bench.templates,
            task="c" if name == WITHHELD else name,
            language=language,
            dataset=WITHHELD if name == WITHHELD else BENCHMARK,
            style="verbatim",
            benchmark=BENCHMARK,
        )
        for name, languages in bench.tasks.items()
        for language, rows in languages.items()
    ]


def scores(run: Quickstart) -> dict[str, Results]:
    """The results of both models."""
    return {name: Results.load(run.path("scores") / name) for name in ("teacher", "student")}


def prompts(run: Quickstart) -> dict[str, str]:
    """Named instructions for the released model: `t2i-de` searches images in German, `image-de` embeds them."""
    found: dict[str, str] = {}
    for language in run.world.config.languages:
        found |= _prompts_of(language)
    return {"query": found["t2i-en"], "document": found["image-en"], **found}


def _prompts_of(language: str) -> dict[str, str]:
    from xvlm2vec.corpus.emoji.text import instruct

    return {
        f"t2i-{language}": instruct("t2i", language, "query", ""),
        f"image-{language}": instruct("t2i", language, "target", ""),
        f"i2t-{language}": instruct("i2t", language, "query", ""),
        f"c-{language}": instruct("c", language, "query", ""),
    }


def _drop_checkpoints(run: Quickstart, name: str) -> None:
    """A finished stage needs no checkpoint to resume from."""
    shutil.rmtree(run.path(name) / "checkpoints", ignore_errors=True)


def progress(title: str) -> list[TrainerCallback]:
    """A bar with the time that is left."""
    return [StageBar(title)]


def _measure(run: Quickstart, name: str, model: XVLM2VecModel, processor: XVLM2VecProcessor) -> None:
    # Batches that stay in the cache of a CPU take two thirds of the time of larger ones.
    encoder = ModelEncoder(model, processor, name=name, max_tokens_per_batch=4_096)
    extras = replace(EXTRAS, dims=(model.config.hidden_size // 2,))
    results = evaluate(encoder, benchmark_tasks(benchmark(run)), seed=run.config.seed, chunk=4_096, extras=extras)
    results.save(run.path("scores") / name)
