"""`xvlm2vec contrast`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset
from sentence_transformers import SentenceTransformer

import xvlm2vec.modeling  # noqa: F401  (registers the Auto classes)
from xvlm2vec.common.pair_checks import check_pairs
from xvlm2vec.common.run_state import RunState
from xvlm2vec.corpus.stored_pairs import load_pairs
from xvlm2vec.flags import console
from xvlm2vec.flags.adapters import merge_adapter
from xvlm2vec.flags.memory_plan import run_contrast_plan
from xvlm2vec.flags.models import load_embedder, model_kind
from xvlm2vec.flags.pair_vectors import PairVectors, guide_vectors
from xvlm2vec.flags.training import Parsed, TrainingForm, parse
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.checkpoints import EXTENDABLE
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig, renamed
from xvlm2vec.trainer.contrastive_trainer import as_named, prompts_of, train_contrastive
from xvlm2vec.trainer.progress import StageBar
from xvlm2vec.trainer.settings import setting

logger = logging.getLogger(__name__)

Pairs: TypeAlias = Dataset | dict[str, Dataset]


@dataclass
class ContrastFlags:
    """Flags of `xvlm2vec contrast` beside the settings of the training."""

    model: str = field(
        metadata={"help": "folder or Hub id to start from: any vision-language model of transformers, or an embedder"}
    )
    data: list[str] = field(
        metadata={"help": "data sets of pairs: each a folder of save_to_disk, a folder of parquet files, a parquet "
                  "file, or a Hub id"}
    )  # fmt: skip
    output: str = field(
        metadata={"help": "the trained model goes here; with --lora, into adapter/ and, merged, into merged/"}
    )
    eval_data: list[str] | None = setting(None, "held-out pairs, whose loss is logged")
    image_folder: str | None = setting(None, "below it lie the images that qry_image_path and so on name, as in MMEB")
    guide: str | None = setting(
        None, "another embedder, as evaluate takes it: what it finds nearer to a query than its positive is no negative"
    )
    plan: int | None = setting(
        None,
        "only show how much memory the run will take, and on what, if a text with its images has this many tokens; "
        "neither rows nor weights are read",
    )


REFUSED = {
    "prediction_loss_only": "sentence-transformers computes nothing but the loss on held-out rows",
    "ddp_broadcast_buffers": "sentence-transformers switches it off",
    "prompts": "the columns instruction or task say what stands before a query",
    "router_mapping": "the model has no router",
    "auto_find_batch_size": "the batch decides what is learned; --mini-batch-size saves memory without changing it",
    "data_seed": "rows are drawn by --seed",
    "dataloader_multiprocessing_context": "sentence-transformers starts workers as Python does",
    "dataloader_in_order": "sentence-transformers keeps batches in order",
    "length_column_name": "rows are not grouped by length",
    **dict.fromkeys(
        ("push_to_hub", "hub_token", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push",
         "hub_revision"),
        "a trained model is published by `xvlm2vec release`",
    ),
}  # fmt: skip
FORM = TrainingForm(
    command="contrast",
    description=(
        "Trains an embedder on pairs: each query of a batch must find its positive among those of the others and the "
        "hard negatives. A vision-language model that does not embed yet is wrapped first and kept in OUTPUT/start.\n\n"
        "A row has the columns qry and/or qry_image (the query), pos_text and/or pos_image (what it should find), and "
        "may have neg_text and neg_image (what it should not: one value or a list), and instruction (put before the "
        "query) or task (the name of one of the model's prompts). An image may be a list of images. MMEB's training "
        "sets are read as they are: qry_image_path and so on name files below --image-folder.\n\n"
        "Of several data sets each batch is of one, or with --sub-batch-size put together from several.\n\n"
        "Interrupt it as you like: the same command goes on from the newest checkpoint."
    ),
    example=(
        "xvlm2vec contrast --model HuggingFaceTB/SmolVLM-256M-Instruct --data data/pairs --output runs/teacher \\\n"
        "    --per-device-train-batch-size 256 --mini-batch-size 16 --learning-rate 2e-5"
    ),
    flags=ContrastFlags,
    settings=ContrastiveConfig,
    shown=(
        "mini_batch_size",
        "sharing",
        "loss",
        "temperature",
        "mask_duplicates",
        "guide_margin",
        "train_sampling_strategy",
        "sub_batch_size",
        "multi_dataset_batch_sampler",
        "dataset_temperature",
    ),
    see="every field of sentence-transformers' SentenceTransformerTrainingArguments is a flag, see its documentation.",
    refused=REFUSED,
    renamed=renamed,
)


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and trains what is left to train."""
    parsed = parse(FORM, arguments)
    console.set_up()
    flags, output = parsed.flags, Path(parsed.flags.output)
    parsed.adapter.check(parsed.given)
    if parsed.adapter.activated:
        raise ValueError("--adapter activated is for translations, which distill teaches; use --adapter lora.")
    if flags.plan is not None:
        if flags.plan < 1:
            raise ValueError("--plan takes how many tokens a text with its images has, 1 or more.")
        args = training_arguments(parsed, str(output))
        console.show(run_contrast_plan(flags.model, args, parsed.adapter, flags.plan))
        return 0
    parsed.adapter.check_machine()
    kind = model_kind(flags.model)
    rows = load_data(flags.data, flags.image_folder)
    held_out = load_data(flags.eval_data, flags.image_folder) if flags.eval_data else None
    args = training_arguments(parsed, str(output / "adapter" if parsed.adapter.lora else output))
    if args.process_index > 0:  # one of several processes speaks
        logging.getLogger("xvlm2vec").setLevel(logging.WARNING)
    batch = args.per_device_train_batch_size * args.world_size
    count = sum(len(part) for part in as_named(rows).values())
    if count < batch:
        raise ValueError(
            f"{' '.join(flags.data)} has {count} rows, fewer than one batch of {batch}; set a smaller "
            "--per-device-train-batch-size."
        )
    with args.main_process_first(local=False):
        identity = {"command": "contrast", **parsed.identity("output")}
        run = RunState(output, identity, writes=args.process_index == 0, renamed=renamed, extendable=EXTENDABLE)
        start = _start(run, flags.model, kind, output)
    logger.info("Training on %d pairs", count)
    run.run("training", lambda: _train(parsed, start, args, rows, held_out))
    if args.process_index > 0:
        return 0
    if parsed.adapter.lora:
        run.run("merging", lambda: merge_adapter(start, output, args.matryoshka_dims))
    console.show(f"The trained model is in {output / 'merged' if parsed.adapter.lora else output}")
    return 0


def training_arguments(parsed: Parsed, output_dir: str) -> ContrastiveConfig:
    """The trainer's settings; what was not given follows the machine and the held-out pairs."""
    settings: dict[str, Any] = {**parsed.settings, **parsed.automatic()}
    if parsed.flags.plan is not None:
        settings["use_cpu"] = True  # a plan is made on any machine
    return ContrastiveConfig(output_dir=output_dir, **settings)


def load_data(sources: Sequence[str], images: str | None) -> Pairs:
    """The data set of one source, or those of several by name: the last part of a path, or all of it if two share that.

    Raises:
        ValueError: A source is named twice.
    """
    if len(set(sources)) < len(sources):
        raise ValueError("--data names a data set twice.")
    if len(sources) == 1:
        return load_pairs(sources[0], images=images)
    short = [Path(source).name for source in sources]
    names = short if len(set(short)) == len(short) else list(sources)
    return {name: load_pairs(source, images=images) for name, source in zip(names, sources, strict=True)}


def wrap(source: str, folder: str) -> None:
    """Wraps a vision-language model into an embedder and saves it."""
    logger.info("Wrapping %s", source)
    _save(XVLM2VecModel.from_backbone(source), XVLM2VecProcessor.from_pretrained(source), folder)


def _start(run: RunState, source: str, kind: str, output: Path) -> str:
    """Folder or Hub id of the embedder that the training begins with."""
    start = str(output / "start")
    if kind == "backbone":
        run.run("wrapped the backbone", lambda: wrap(source, start))
    elif kind == "adapter":
        run.run("merged the adapter", lambda: _save(*load_embedder(source), start))
    else:
        start = source
    # An adapter remembers the path of its base, which must hold from any folder.
    return str(Path(start).resolve()) if Path(start).is_dir() else start


def _train(parsed: Parsed, start: str, args: ContrastiveConfig, rows: Pairs, held_out: Pairs | None) -> None:
    model = SentenceTransformer(start, model_kwargs=parsed.adapter.loading())
    bar = StageBar("Contrast", shows=not parsed.given.get("disable_tqdm"))
    train_contrastive(
        args,
        rows,
        [bar],
        model=model,
        eval_rows=held_out,
        adapter=parsed.adapter.config(),
        guide=_guide(parsed.flags, [*as_named(rows).items(), *as_named(held_out).items()], prompts_of(model)),
    )


def _guide(flags: Any, data: Sequence[tuple[str, Dataset]], prompts: dict[str, str]) -> PairVectors | None:
    if flags.guide is None:
        return None
    for name, rows in data:  # before anything is embedded
        check_pairs(rows, prompts, name)
    logger.info("The guide %s embeds the pairs", flags.guide)
    return guide_vectors(flags.guide, [rows for _, rows in data], Path(flags.output) / "guide", prompts)


def _save(model: XVLM2VecModel, processor: XVLM2VecProcessor, folder: str) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
