"""One process of contrastive trainings on several, as `distributed_worker.py` is of distillations."""

import torch
from conftest import image
from datasets import Dataset, Features, Image, List, Value
from distributed_worker import work
from sentence_transformers import SentenceTransformer
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from xvlm2vec.trainer.adapters import AdapterConfig
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.pair_collator import PACKED, PairCollator

TEXT = Value("string")
FEATURES = Features(
    {"qry": TEXT, "qry_image": Image(), "pos_text": TEXT, "pos_image": Image(),
     "neg_text": List(TEXT), "neg_image": List(Image())}
)  # fmt: skip


class Watching(TrainerCallback):
    """Keeps losses, gradient norms, and what is sharded."""

    def __init__(self):
        self.losses, self.norms, self.sharded = [], [], 0

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.norms.append(float(logs["grad_norm"]))

    def on_train_end(self, args, state, control, model, **kwargs):
        self.sharded = sum(isinstance(weight, DTensor) for weight in model.parameters())


class Stop(TrainerCallback):
    """Ends the training behind a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


class WatchingCollator:
    """Notes the queries of each batch, and which batches were packed, in place of `PairCollator.__call__`."""

    def __init__(self):
        self.batches, self.packed, self.collate = [], [], PairCollator.__call__

    def __call__(self, collator, features):
        batch = self.collate(collator, features)
        self.batches.append([row["qry"] for row in features])
        self.packed.append(PACKED in batch)
        return batch


def pairs(count):
    """Batches of eight, of which the first four share an image and ask with it, and the last four hardly have any."""
    rows = []
    for number in range(count):
        place, shown = number % 8, image(number // 8)
        rows.append(
            {
                "qry": f"question {number} {'of many words ' * (place % 3)}",
                "qry_image": shown if place < 4 else None,
                "pos_text": "" if place == 4 else f"answer {number}",
                "pos_image": image(100 + number) if place == 4 else None,
                "neg_text": [f"wrong {number}"] if place in (1, 6) else [],
                "neg_image": [shown] if place == 1 else [None] if place == 6 else [],
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


def texts(name, count):
    """Pairs without images, whose queries begin with the name of their data set."""
    return Dataset.from_list([{"qry": f"{name} {number}", "pos_text": f"found {number}"} for number in range(count)])


def main(folder, settings):
    torch.set_num_threads(1)
    options = {"rows": 16, "sets": None, "adapter": None, "stop": None, **settings.pop("options", {})}
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    args = ContrastiveConfig(output_dir=str(folder / "model"), **{**quiet, **settings})
    embedder = SentenceTransformer(options["model"], model_kwargs={"dtype": torch.float64}, device="cpu")
    sets = options["sets"]
    rows = {name: texts(name, count) for name, count in sets.items()} if sets else pairs(options["rows"])
    adapter = AdapterConfig(**options["adapter"]) if options["adapter"] else None
    watching, collator, saved, save = Watching(), WatchingCollator(), [], SentenceTransformer.save_pretrained
    PairCollator.__call__ = lambda self, features: collator(self, features)
    SentenceTransformer.save_pretrained = lambda self, path, *a, **b: (
        saved.append(str(path)),
        save(self, path, *a, **b),
    )
    try:
        train_contrastive(args, rows, [watching, Stop(options["stop"])], model=embedder, adapter=adapter)
    finally:
        PairCollator.__call__, SentenceTransformer.save_pretrained = collator.collate, save
    return {
        "world": args.world_size,
        "losses": watching.losses,
        "norms": watching.norms,
        "sharded": watching.sharded,
        "batches": collator.batches,
        "packed": all(collator.packed),
        "saved": len(saved),
    }


if __name__ == "__main__":
    work(main)
