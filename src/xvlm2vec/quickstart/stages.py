"""The stages of the quickstart: each calls what the commands `contrast`, `distill` and `evaluate` call."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import set_seed

from xvlm2vec.corpus.benchmark import Benchmark
from xvlm2vec.corpus.emoji.benchmark import WITHHELD
from xvlm2vec.corpus.emoji.text import instruct
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.emoji.training import contrastive_curriculum, parallel_rows, tokenizer_texts
from xvlm2vec.eval.benchmarks.images import named_images
from xvlm2vec.eval.benchmarks.list_rows import ranking_task
from xvlm2vec.eval.encoders import ModelEncoder
from xvlm2vec.eval.ranking import RankingTask
from xvlm2vec.eval.runner import Extras, evaluate
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.precision import training_precision
from xvlm2vec.trainer.progress import StageBar

from .config import QuickstartConfig

if TYPE_CHECKING:
    from datasets import Dataset

    from xvlm2vec.corpus.emoji.world import EmojiWorld

BENCHMARK = "emoji"
EXTRAS = Extras(examples=5, precisions=("int8", "binary"))
ADAPTER = AdapterConfig(rank=32, train_embeddings=True, activated=True)
SAVE_STEPS = 250  # half a minute of work at most is done twice after an interruption


def make_model(world: EmojiWorld, config: QuickstartConfig, output: Path) -> None:
    """Writes the untrained model."""
    sizes = config.sizes
    tiny = TinyModelConfig(
        image_size=sizes.image_size,
        vision_layers=sizes.layers,
        text_layers=sizes.layers,
        vocab_size=sizes.vocab_size,
        seed=config.seed,
    )
    model, processor = build_tiny_model(tiny, tokenizer_texts(world))
    model.config.prompts = prompts(world.config.languages)
    model.save_pretrained(output)
    processor.save_pretrained(output)


def teach_english(world: EmojiWorld, config: QuickstartConfig, untrained: Path, output: Path) -> None:
    """Contrastive training on English."""
    sizes = config.sizes
    rows = contrastive_curriculum(world, sizes.lessons, sizes.teacher_batch, config.seed)
    training = ContrastiveConfig(
        output_dir=str(output),
        per_device_train_batch_size=sizes.teacher_batch,
        learning_rate=4e-3,
        muon_learning_rate=2e-3,
        train_sampling_strategy="sequential",
        sharing="off",  # nearly every image stands in one row, and eager attention is faster on so small a model
        save_steps=SAVE_STEPS,
        seed=config.seed,
        **training_precision(),
    )
    train_contrastive(training, rows, [StageBar("Teacher")], model=str(untrained))
    _drop_checkpoints(output)


def distil(
    world: EmojiWorld, config: QuickstartConfig, teacher: tuple[XVLM2VecModel, XVLM2VecProcessor], output: Path
) -> None:
    """Self-distillation into the taught languages: of all weights but the vision tower's, or of an adapter."""
    model, processor = teacher
    set_seed(config.seed)  # an adapter's first weights are drawn
    student = add_activated(model, ADAPTER) if config.lora else model
    distill(
        student,
        processor,
        distillation_config(config, output),
        distillation_rows(world, config),
        callbacks=[StageBar("Student")],
    )
    _drop_checkpoints(output)


def distillation_config(config: QuickstartConfig, output: Path) -> SelfDistillationConfig:
    """Settings of the distillation: of all weights, or of an adapter, which takes larger steps."""
    sizes = config.sizes
    return SelfDistillationConfig(
        output_dir=str(output),
        per_device_train_batch_size=sizes.distill_batch,
        max_steps=sizes.distill_steps,
        learning_rate=4e-3,
        muon_learning_rate=4e-3 if config.lora else 2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        max_grad_norm=2.0,
        translations_per_row=sizes.translations_per_row,
        max_tokens_per_forward=1_500,
        teacher="cached" if config.lora else "copy",  # which an activated adapter makes no use of
        save_steps=SAVE_STEPS,
        save_total_limit=2,
        logging_steps=50,
        seed=config.seed,
        report_to="none",
        **training_precision(),
    )


def distillation_rows(world: EmojiWorld, config: QuickstartConfig) -> Dataset:
    """The parallel rows of the distillation, each of which it sees once."""
    return parallel_rows(world, rows=config.sizes.distill_steps * config.sizes.distill_batch, seed=config.seed)


def measure(
    name: str,
    model: tuple[XVLM2VecModel, XVLM2VecProcessor],
    benchmark: Benchmark,
    seed: int,
    output: Path,
) -> None:
    """Scores a model on every task in every language."""
    # Batches that stay in the cache of a CPU take two thirds of the time of larger ones.
    encoder = ModelEncoder(*model, name=name, max_tokens_per_batch=4_096)
    extras = replace(EXTRAS, dims=(model[0].config.hidden_size // 2,))
    results = evaluate(encoder, benchmark_tasks(benchmark), seed=seed, chunk=4_096, extras=extras)
    results.save(output)


def benchmark_tasks(bench: Benchmark) -> list[RankingTask]:
    """Every task in every language, as the runner takes it; withheld concepts are a data set of their own."""
    images = named_images(bench.images)
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


def prompts(languages: tuple[str, ...]) -> dict[str, str]:
    """Named instructions for the released model: `t2i-de` searches images in German, `image-de` embeds them."""
    kinds = {"t2i": ("t2i", "query"), "image": ("t2i", "target"), "i2t": ("i2t", "query"), "c": ("c", "query")}
    named = {
        f"{name}-{language}": instruct(task, language, role, "")
        for language in languages
        for name, (task, role) in kinds.items()
    }
    return {"query": named["t2i-en"], "document": named["image-en"], **named}


def _drop_checkpoints(folder: Path) -> None:
    """A finished stage needs no checkpoint to resume from."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
