"""`xvlm2vec distill`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, set_seed

from xvlm2vec.common.run_state import RunState, same_run
from xvlm2vec.corpus.code_switching import CodeSwitcher, read_lexicon
from xvlm2vec.corpus.grouping import group_parallel
from xvlm2vec.corpus.stored import load_parallel, stream_parallel
from xvlm2vec.flags import console
from xvlm2vec.flags.adapters import merge_adapter, stand_on_folder
from xvlm2vec.flags.memory_plan import run_plan
from xvlm2vec.flags.models import load_embedder
from xvlm2vec.flags.training import Parsed, TrainingForm, parse
from xvlm2vec.modeling.language_adapters import DEFAULT
from xvlm2vec.trainer.activated import add_activated, languages_of_rows
from xvlm2vec.trainer.adapter_folders import add_languages, check_new, languages_in
from xvlm2vec.trainer.adapters import add_adapter
from xvlm2vec.trainer.checkpoints import EXTENDABLE
from xvlm2vec.trainer.disk_space import MergedSpaceCheck
from xvlm2vec.trainer.distillation import distill, measure_held_out
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig, renamed
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer
from xvlm2vec.trainer.epochs import TellEpoch
from xvlm2vec.trainer.other_teacher import Teacher
from xvlm2vec.trainer.progress import StageBar
from xvlm2vec.trainer.projection import take_place_of_text_tower
from xvlm2vec.trainer.settings import setting
from xvlm2vec.trainer.usable_rows import keep_encoded

logger = logging.getLogger(__name__)


@dataclass
class DistillFlags:
    """Flags of `xvlm2vec distill` beside the settings of the trainer."""

    model: str = field(
        metadata={"help": "folder or Hub id of the English embedder: an XVLM2VecModel, an adapter, an embedder of "
                  "sentence-transformers, or two towers (CLIP, SigLIP), whose text tower is taught"}
    )  # fmt: skip
    data: str = field(
        metadata={"help": "parallel corpus with the columns id, image, text_en, translations, source: a folder of "
                  "save_to_disk, a folder of parquet files, or a Hub id"}
    )  # fmt: skip
    output: str = field(
        metadata={
            "help": "the trained model goes here; with --lora, into adapter/ and, merged, into merged/; with "
            "--adapter activated, into adapter/ only"
        }
    )
    teacher_model: str | None = setting(
        None,
        "folder or Hub id of another embedder, of any width and tokenizer, whose vectors are the targets instead of "
        "the model's own; --teacher is then cached, or copy to run it in every step. To another width a projection is "
        "trained, and dropped at the end",
    )
    student: str | None = setting(
        None,
        "folder or Hub id of a multilingual text encoder that is to take the place of the text tower of --model (CLIP, "
        "SigLIP): it is trained, and saved, with a projection to the tower's vectors",
    )
    eval_data: str | None = setting(None, "held-out parallel corpus: its loss and each language's distance are logged")
    keep_best: bool = setting(
        False, "end with the weights whose worst language is nearest to the teacher on --eval-data"
    )
    streaming: bool = setting(False, "read the corpus while training, without a copy on disk: needs --max-steps")
    code_switching: float | None = setting(
        None,
        "add to each row its English text with words in other languages, each word with this probability, as one more "
        "translation",
    )
    lexicon: str | None = setting(None, "CSV of words for it, with a column per language (en,de,fr)")
    trust_remote_code: bool = setting(
        False,
        "run code from the folders of --model, --student and --teacher-model, as embedders need that bring "
        "modules of their own",
    )
    plan: bool = setting(False, "only show how much memory the run will take, and on what")


FORM = TrainingForm(
    command="distill",
    description=(
        "Makes an embedder multilingual by self-knowledge distillation: it learns to give each translation the vector "
        "that it gives to the English text, and to keep that one.\n\n"
        "Interrupt it as you like: the same command goes on from the newest checkpoint."
    ),
    example=(
        "xvlm2vec distill --model runs/teacher --data data/parallel --output runs/student \\\n"
        "    --per-device-train-batch-size 32 --num-train-epochs 1 --learning-rate 1e-5"
    ),
    flags=DistillFlags,
    settings=SelfDistillationConfig,
    shown=(
        "teacher", "teacher_store", "sharing", "freeze_vision", "image_cache_gb", "keep_prefix", "translations_per_row",
        "language_temperature", "max_tokens_per_forward", "loss", "language_weight",
    ),
    see="every field of transformers.TrainingArguments is a flag, see its documentation.",
    refused={
        "dataloader_persistent_workers": "workers that stay never hear of the next epoch and would draw the same again",
    },
    renamed=renamed,
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and trains what is left to train."""
    parsed = parse(FORM, arguments)
    console.set_up()
    _check(parsed)
    identity = {"command": "distill", **parsed.identity("output")}
    settled = Path(parsed.flags.output) / "adapter"
    parsed.flags.output = str(place_of_run(parsed, identity))
    flags, adapter, output = parsed.flags, parsed.adapter, Path(parsed.flags.output)
    args = training_arguments(parsed, str(output / "adapter" if adapter.lora else output))
    if flags.plan:
        console.show(run_plan(flags.student or flags.model, args, adapter, _other_teacher(flags)))
        return 0
    adapter.check_machine()
    if args.process_index > 0:  # one of several processes speaks
        logging.getLogger("xvlm2vec").setLevel(logging.WARNING)
    rows, callbacks = _training_rows(parsed, args.seed)
    held_out = _grouped(flags.eval_data) if flags.eval_data else None
    with args.main_process_first(local=False):
        run = RunState(output, identity, writes=args.process_index == 0, renamed=renamed, extendable=EXTENDABLE)
    run.run("training", lambda: _train(parsed, args, rows, held_out, callbacks))
    if args.process_index > 0:
        return 0
    merges = adapter.lora and not adapter.activated
    if merges:
        run.run("merging", lambda: merge_adapter(flags.model, output, args.matryoshka_dims))
    if settled != output / "adapter":
        put_beside(output / "adapter", settled)
        return 0
    if adapter.activated:
        console.show(f"The adapter is in {output / 'adapter'}; {flags.model} stays as it is, and so do its vectors")
        return 0
    console.show(f"The trained model is in {output / 'merged' if merges else output}")
    return 0


def place_of_run(parsed: Parsed, identity: dict[str, Any]) -> Path:
    """Where a run keeps what it makes: its folder, or one for its languages below that of a run for others.

    Raises:
        AdapterFolderError: There is an adapter for one of the languages already.
    """
    output = Path(parsed.flags.output)
    if not parsed.adapter.adapter_per_language or not languages_in(output / "adapter"):
        return output
    if same_run(output, identity, renamed=renamed, extendable=EXTENDABLE):
        return output
    languages = languages_of_rows(load_parallel(parsed.flags.data))
    place = output / "+".join(languages)
    if not same_run(place, identity, renamed=renamed, extendable=EXTENDABLE):
        check_new(output / "adapter", languages)
    return place


def put_beside(trained: Path, settled: Path) -> None:
    """Adds adapters to those of an earlier run, unless that was done before."""
    if languages_in(trained).keys() <= languages_in(settled).keys():
        console.show(f"{settled} has the adapters of {trained} already")
        return
    languages = add_languages(settled, trained)
    console.show(f"Adapters for {', '.join(languages)} were added to {settled}; what was there stays as it was")


def _check(parsed: Parsed) -> None:
    """Raises where flags do not go together."""
    flags = parsed.flags
    parsed.adapter.check(parsed.given)
    if parsed.adapter.lora_train_connector:
        raise ValueError(
            "--lora-train-connector is for contrast, where a connector may be new; leave it out: distillation keeps "
            "what the model sees, and --freeze-vision false gives the connector an adapter."
        )
    _check_teacher(parsed)
    if flags.lexicon and flags.code_switching is None:
        raise ValueError("--lexicon has no effect without --code-switching; pass both, or neither.")
    if flags.streaming and parsed.settings.get("max_steps", 0) < 1:
        raise ValueError("--streaming needs --max-steps: a stream does not tell how long it is.")
    if parsed.adapter.activated:
        _check_activated(parsed)
    elif flags.streaming and parsed.settings.get("teacher") == "cached":
        raise ValueError(
            "--teacher cached embeds the corpus before the training, which a stream does not allow; with --streaming "
            "use --teacher adapter-off (with --lora) or --teacher copy, or leave --teacher out."
        )
    if flags.keep_best and not flags.eval_data:
        raise ValueError("--keep-best compares checkpoints on held-out rows; pass --eval-data, too.")
    chosen = {"load_best_model_at_end", "metric_for_best_model", "greater_is_better"} & parsed.given.keys()
    if flags.keep_best and chosen:
        raise ValueError(f"--keep-best takes the worst language's distance; leave {min(chosen)} out.")


def _check_teacher(parsed: Parsed) -> None:
    """Raises where flags of student and teacher do not go together."""
    flags = parsed.flags
    if flags.student and flags.teacher_model:
        raise ValueError("--student learns the text vectors of --model; leave --teacher-model out, or --student.")
    if flags.student and parsed.adapter.lora:
        raise ValueError(
            "--student has a fresh projection, which an adapter would not find on its base again; leave --lora out."
        )
    if _other_teacher(flags) and parsed.settings.get("teacher") == "adapter-off":
        raise ValueError(
            "--teacher adapter-off is the model without its adapter, and here another model is the teacher; use "
            "--teacher cached, or copy to run it in every step."
        )


def _check_activated(parsed: Parsed) -> None:
    """Raises where flags do not go with an adapter that acts on translations only."""
    if parsed.flags.teacher_model:
        raise ValueError(
            "--adapter activated learns the vectors of its own base, so that these stay as they are; leave "
            "--teacher-model out, or use --adapter lora."
        )
    if parsed.adapter.adapter_per_language and (parsed.flags.streaming or parsed.flags.code_switching is not None):
        raise ValueError(
            "--adapter-per-language makes an adapter for each language that the corpus names, which a stream does not "
            "tell before it is read, and code-switched texts are in none of them; leave --streaming and "
            "--code-switching out."
        )
    strays = [name for name in ("teacher", "teacher_store") if name in parsed.given]
    if strays:
        raise ValueError(
            f"--{strays[0].replace('_', '-')} has no effect with --adapter activated, whose targets come from the same "
            "pass; leave it out."
        )
    if parsed.settings.get("freeze_vision") is False:
        raise ValueError(
            "--freeze-vision false would move the vectors of images, which --adapter activated keeps as they are; use "
            "--adapter lora."
        )


def _other_teacher(flags: DistillFlags) -> str | None:
    """What teaches, if it is not the model that is taught: another model, or the towers that get another student."""
    return flags.model if flags.student else flags.teacher_model


def _grouped(source: str) -> Dataset:
    """A stored corpus with a row for each English text and image, also where it has one for each language."""
    rows = load_parallel(source)
    if len(set(rows["text_en"])) == len(rows):  # spares a look at all images
        return rows
    grouped: Dataset = group_parallel(rows)
    if len(grouped) < len(rows):
        logger.info("%s: rows of one English text and image are joined, %d to %d", source, len(rows), len(grouped))
    return grouped


def _training_rows(parsed: Parsed, seed: int) -> tuple[Any, list[TrainerCallback]]:
    """The corpus, with code-switched texts if they are asked for, and what the trainer must tell it."""
    flags = parsed.flags
    rows: Any = stream_parallel(flags.data, seed=seed) if flags.streaming else _grouped(flags.data)
    callbacks: list[TrainerCallback] = [StageBar("Distillation", shows=not parsed.given.get("disable_tqdm"))]
    if flags.code_switching is not None:
        lexicon = read_lexicon(flags.lexicon) if flags.lexicon else None
        switcher = CodeSwitcher(flags.code_switching, lexicon, seed)
        rows = rows.map(switcher, batched=True) if flags.streaming else keep_encoded(rows).with_transform(switcher)
        callbacks.append(TellEpoch(switcher))
    if not flags.streaming:
        logger.info("Training on %d rows", len(rows))
    return rows, callbacks


def training_arguments(parsed: Parsed, output_dir: str) -> SelfDistillationConfig:
    """The trainer's settings; what was not given follows the machine and the kind of training."""
    chosen: dict[str, Any] = {**parsed.settings, **parsed.automatic()}
    if "teacher" not in parsed.given and parsed.flags.streaming:
        own_base = parsed.adapter.lora and not _other_teacher(parsed.flags)
        chosen["teacher"] = "adapter-off" if own_base else "copy"
    if parsed.flags.plan:
        chosen["use_cpu"] = True  # a plan is made on any machine
    if parsed.adapter.adapter_per_language:  # a step need not have all languages
        chosen.setdefault("ddp_find_unused_parameters", True)
    if parsed.flags.keep_best:
        chosen |= {"load_best_model_at_end": True, "metric_for_best_model": "worst_distance"}
    return SelfDistillationConfig(output_dir=output_dir, **chosen)


def _train(
    parsed: Parsed, args: SelfDistillationConfig, rows: Any, held_out: Any, callbacks: Sequence[TrainerCallback]
) -> None:
    flags, adapter = parsed.flags, parsed.adapter.config(train_vision=not args.freeze_vision)
    model: Any
    model, processor = load_embedder(
        flags.student or flags.model, trust_remote_code=flags.trust_remote_code, **parsed.adapter.loading()
    )
    form = black_box_form(model, parsed) if model.is_black_box else None
    if model.language_adapters:
        raise ValueError(
            f"{flags.student or flags.model} holds an activated adapter, which lies beside its base and is not taught "
            "on: pass the base as --model."
        )
    teacher = _load_teacher(flags)
    if teacher is not None and flags.student:
        set_seed(args.seed)  # the projection's first weights are drawn, in every process alike
        take_place_of_text_tower(model, teacher.model)
    if adapter is not None:
        with args.main_process_first(local=False):
            stand_on_folder(model, processor, Path(flags.output), writes=args.process_index == 0)
        set_seed(args.seed)  # its first weights are drawn, in every process alike
        if adapter.activated:
            names = languages_of_rows(rows) if parsed.adapter.adapter_per_language else [DEFAULT]
            for name in names:
                add_activated(model, adapter, name)
        else:
            model = add_adapter(model, adapter)
            callbacks = [*callbacks, MergedSpaceCheck(model)]
    trainer = distill(model, processor, args, rows, held_out, callbacks=callbacks, teacher=teacher, give_back=form)
    if held_out is not None and not can_measure(trainer):
        logger.info("%s is not measured once more: the training was through before this start", flags.eval_data)
    elif held_out is not None:
        measure_held_out(trainer, Path(str(args.output_dir)), flags.eval_data)


def black_box_form(model: Any, parsed: Parsed) -> Callable[[Path, Path], object]:
    """What gives an embedder that runs by its own code back as it came; weights that it cannot give back are frozen.

    Raises:
        ValueError: It is to get what its form has no place for.
    """
    from xvlm2vec.hub.original_chain import freeze_unplaced, give_back
    from xvlm2vec.hub.original_release import original_folder

    flags = parsed.flags
    if parsed.adapter.lora or flags.student:
        raise ValueError(
            f"{flags.student or flags.model} runs by its own code, whose form has no place for an adapter or a "
            f"projection: leave {'--student' if flags.student else '--lora and --adapter'} out."
        )
    source = original_folder(model.config.adopted)
    freeze_unplaced(model, source, Path(flags.output))
    return partial(give_back, model, source)


def _load_teacher(flags: DistillFlags) -> Teacher | None:
    """Another embedder that teaches, in the number format in which it is stored."""
    source = _other_teacher(flags)
    trust = flags.trust_remote_code
    return Teacher(*load_embedder(source, trust_remote_code=trust, dtype="auto")) if source else None


def can_measure(trainer: SelfDistillationTrainer) -> bool:
    """Whether held-out rows can be measured: FSDP2 shards a model together with its optimizer, as a training does."""
    return not (trainer.accelerator.is_fsdp2 and trainer.state.global_step == 0)
