"""One process of trainings on several: `accelerate launch` starts it, and it trains one job after the other.

A job is a file in the folder that it is given, with the output folder and the settings of a training; it writes what it
saw into `rank-N.json` there. Processes serve many tests, because each takes ten seconds to import what it needs.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

import torch
from conftest import TEXTS, TINY, image, parallel_row
from datasets import Dataset
from torch.distributed.tensor import DTensor

from xvlm2vec.common.adoption.adopt import adopt
from xvlm2vec.corpus.emoji.tiny_model import build_tiny_model
from xvlm2vec.modeling.language_adapters import DEFAULT
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.collators import ParallelCollator
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer
from xvlm2vec.trainer.losses import CrossModalAlignmentLoss, ImageDistillationLoss, LossSum
from xvlm2vec.trainer.other_teacher import Teacher

LANGUAGES = (("it", "de", "ar"), ("it",), ("de", "ar"), ("ar",), ("it", "de"))


class Watching(SelfDistillationTrainer):
    """Notes the rows of each step, and where other processes have more passes."""

    seen: tuple[str, ...] = ()
    waited: int = 0

    def training_step(self, model, inputs, *args, **kwargs):
        batches = inputs["batches"]
        self.seen += tuple(name for batch in batches if batch.weight for name in batch.ids)
        self.waited += sum(batch.passes not in (None, self.passes.counts(batch)) for batch in batches)
        return super().training_step(model, inputs, *args, **kwargs)


def corpus(rows, images):
    """Rows with other numbers of translations, some with an image: no two processes have the same work.

    Args:
        rows: Their number.
        images: `True` for two thirds of the rows, `"first"` for all of the first of two processes with two rows each,
            `"start"` for the first four rows.
    """
    kinds = {"first": lambda index: index // 2 % 2 == 0, "start": lambda index: index < 4}
    shown = kinds.get(images, lambda index: index % 3)
    return Dataset.from_list(
        [
            {
                **parallel_row(index, None, LANGUAGES[index % 5]),
                "image": image(index) if images and shown(index) else None,
            }
            for index in range(rows)
        ]
    )


def turn_long_rows(model, processor, rows):
    """Has the longer rows with an image turned by other RoPE factors, as in Phi-3.5-V: they need another pass."""
    (batch,) = ParallelCollator(processor)(list(rows))["batches"]
    lengths = sorted(len(group.prefix) + len(text) for group in batch.groups if group.images for text in group.texts)
    text = model.backbone.config.get_text_config()
    half = text.hidden_size // text.num_attention_heads // 2
    text.rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": lengths[len(lengths) // 2],
        "short_factor": [1.0] * half,
        "long_factor": [2.0] * half,
    }
    model.backbone.text_model.rotary_emb = type(model.backbone.text_model.rotary_emb)(text)


def taken_over(source):
    """Model and processor of an embedder of sentence-transformers."""
    adopted = adopt(source)
    return adopted.model, adopted.processor


def main(folder, settings):
    torch.set_num_threads(1)
    options = {"rows": 16, "images": True, "adapter": None, "stream": False, **settings.pop("options", {})}
    aligned = LossSum({"image": ImageDistillationLoss(), "alignment": CrossModalAlignmentLoss(0.5)})
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    steps = {"max_steps": 4, "learning_rate": 1e-3, "teacher_store": str(folder / "teacher")}
    args = SelfDistillationConfig(output_dir=str(folder), **{**quiet, **steps, **settings})
    model, processor = build_tiny_model(TINY, [text for texts in TEXTS.values() for text in texts])
    if "embedder" in options:
        model, processor = taken_over(options["embedder"])
    rows = corpus(options["rows"], options["images"])
    if options.get("rope_limit"):
        turn_long_rows(model, processor, rows)
    if options["adapter"]:
        torch.manual_seed(3)
        config = AdapterConfig(**options["adapter"])
        for name in options.get("languages", [DEFAULT]):
            model = add_activated(model, config, name) if config.activated else add_adapter(model, config)
    if options["stream"]:
        bare = options.get("bare", 0)  # so many rows at the start have no translation
        rows = rows.map(lambda row, index: row if index >= bare else {**row, "translations": []}, with_indices=True)
        rows = rows.to_iterable_dataset(num_shards=options["stream"])
    trainer = Watching(
        model,
        args,
        train_dataset=rows,
        eval_dataset=corpus(options["held_out"], True) if "held_out" in options else None,
        processing_class=processor,
        loss=aligned if options.get("aligned") else None,
        teacher=Teacher(*taken_over(options["other"])) if "other" in options else None,
    )
    trainer.train(resume_from_checkpoint=options.get("resume"))
    trainer.save_model(str(folder / "model"))
    parts = {name: p for name, p in trainer.model.named_parameters() if isinstance(p, DTensor)}
    result = {
        "world": args.world_size,
        "kind": str(trainer.accelerator.distributed_type),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "norms": [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry],
        "sharded": {name: [list(p.shape), list(p.to_local().shape)] for name, p in parts.items()},
        "seen": trainer.seen,
        "waited": trainer.waited,
        "shared": trainer.collator.sharing,
        "evaluations": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
    }
    return result


def serve(jobs, main):
    """Does the jobs of a folder in the order of their numbers, until there is a file `end`."""
    rank, number = int(os.environ.get("RANK", 0)), 0
    while not (jobs / "end").exists():
        if not (jobs / f"{number}.json").exists():
            time.sleep(0.05)
            continue
        folder, settings = json.loads((jobs / f"{number}.json").read_text(encoding="utf-8"))
        result = main(Path(folder), settings)
        whole = Path(folder) / f"rank-{rank}.part"
        whole.write_text(json.dumps(result), encoding="utf-8")
        whole.rename(whole.with_suffix(".json"))
        number += 1


def work(main):
    """Serves the folder of the command line, and ends the process."""
    try:
        serve(Path(sys.argv[1]), main)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # gloo of torch 2.13 may abort a process that ends with its group, or hang one that leaves it first


if __name__ == "__main__":
    work(main)
