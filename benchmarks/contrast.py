"""Pairs a second of `xvlm2vec contrast` against sentence-transformers' trainer, on the same weights and rows.

    python benchmarks/contrast.py --small
    python benchmarks/contrast.py --json benchmarks/results/contrast.json --beside "nothing else"

The other side is a training step of `SentenceTransformerTrainer` with `CachedMultipleNegativesRankingLoss`, both
directions of the softmax, as ours has them. Batches of 256 pairs, mini-batches of 16 rows, images of 256 tokens, each
in four rows: "image and text" has the image in four queries, "text to image" has it as the positive of four. Texts have
12 to 36 tokens, answers 4 to 20. The model is a random LLaVA of width 128 with two layers; its vision tower, a small
one, is trained, too.

Everything runs in one process on one thread, interleaved: forward and backward passes, process CPU time, medians, after
losses and gradients were compared. Memory is the most that a step holds above what was there before it (weights and the
prepared batch), as Linux counts it; no optimiser runs, and preparing the batch is counted apart. For memory alone, a
batch of 1,024 in mini-batches is compared with an uncached one of 16 whole rows. What the result file holds already is
not measured again. `--small` tries it all on little.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, Value
from made_images import made_image
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaModel,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import ContrastiveTrainer, make_loss
from xvlm2vec.trainer.pair_collator import PairCollator
from xvlm2vec.trainer.pair_sharing import pair_packer

PATCH, SIDE = 14, 16
TEXTS_AN_IMAGE = 4
WORDS = [f"word{number}" for number in range(1000)]
SCALE = 20.0
BOTH_WAYS: dict[str, Any] = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
THEIRS, OURS = "sentence_transformers", "contrast"
TASKS = ("image and text", "text to image")
LARGE = "large batch"
Step = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        batch: Pairs of a step.
        mini_batch: Rows of a mini-batch, of both.
        large: Pairs of the step whose memory is compared with that of a mini-batch.
        repeats: Steps of each kind.
        hidden: Width of the language model.
        layers: Its layers.
    """

    batch: int = 256
    mini_batch: int = 16
    large: int = 1024
    repeats: int = 3
    hidden: int = 128
    layers: int = 2


SMALL = Sizes(batch=32, mini_batch=8, large=64, repeats=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--small", action="store_true", help="batches of 32, one step of each kind")
    parser.add_argument("--beside", default="unknown", help="what else ran on the machine, for the result")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    sizes = SMALL if flags.small else Sizes()
    content = json.loads(flags.json.read_text()) if flags.json and flags.json.exists() else new_content(sizes)
    content["beside"] = flags.beside
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", sizes)
        for part in (TASKS[0], LARGE, TASKS[1]):
            if part in {row["part"] for row in content["rows"]}:
                continue
            rows, ratios = measure(part, Path(folder), sizes)
            content["rows"] += [{"part": part, **row} for row in rows]
            content["ratios"] |= ratios
            print(json.dumps({"rows": rows, "ratios": ratios}, indent=1), flush=True)
            if flags.json:
                flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def new_content(sizes: Sizes) -> dict[str, Any]:
    """The head of a result."""
    return {
        "name": "contrast",
        "machine": {
            "cores": os.cpu_count(),
            "threads": 1,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "sentence-transformers")},
        },
        "sizes": asdict(sizes),
        "rows": [],
        "ratios": {},
    }


def measure(part: str, folder: Path, sizes: Sizes) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows and ratios of a task, or of the large batch; the ratios of the first task have no name before them."""
    if part == LARGE:
        return large_batch(folder, sizes)
    rows, ratios = compare(Bench(folder, part, sizes), sizes.repeats)
    return rows, ratios if part == TASKS[0] else {f"{part}: {name}": value for name, value in ratios.items()}


class Bench:
    """A step of each trainer on the same rows and weights.

    Args:
        folder: Holds `model`.
        task: One of `TASKS`.
        sizes: Of the rows.
    """

    def __init__(self, folder: Path, task: str, sizes: Sizes) -> None:
        self.task, self.sizes = task, sizes
        rows = make_rows(task, sizes.batch)
        self.models: dict[str, SentenceTransformer] = {}
        self.steps: dict[str, Step] = {}
        self.preparing: dict[str, float] = {}
        for name, make in ((THEIRS, their_trainer), (OURS, our_trainer)):
            self.models[name] = SentenceTransformer(str(folder / "model"), device="cpu")
            trainer = make(self.models[name], rows, folder, sizes)
            self.steps[name], self.preparing[name] = step_of(trainer)

    def check(self, tolerance: float = 1e-3) -> None:
        """Compares losses and gradients, which also warms up.

        Raises:
            RuntimeError: They differ.
        """
        outcomes = []
        for name, step in self.steps.items():
            value = self.run(name, step).item()
            outcomes.append((value, torch.cat([p.grad.flatten() for p in self.trained(name)])))
        (loss, gradient), (mine, found) = outcomes
        apart = ((found - gradient).norm() / gradient.norm()).item()
        if abs(mine / loss - 1) > tolerance or not apart < tolerance:
            raise RuntimeError(f"{self.task}: loss {mine} for {loss}, gradients apart by {apart:.1e}")

    def trained(self, name: str) -> list[torch.nn.Parameter]:
        """The weights that a step gives a gradient: CLIP's last layer and norm are read by nobody."""
        return [weight for weight in self.models[name].parameters() if weight.grad is not None]

    def run(self, name: str, step: Step) -> torch.Tensor:
        """One step from no gradients."""
        self.models[name].zero_grad(set_to_none=True)
        return step()

    def measure(self, name: str) -> tuple[float, float]:
        """CPU seconds of a step, and the megabytes that it holds at most above what was there before."""
        return measured(self.models[name], self.steps[name])


def measured(model: SentenceTransformer, step: Step) -> tuple[float, float]:
    """CPU seconds of a step from no gradients, and the megabytes that it holds at most above what was there before."""
    model.zero_grad(set_to_none=True)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = kilobytes("VmRSS")
    started = time.process_time()
    step()
    seconds = time.process_time() - started
    return seconds, (kilobytes("VmHWM") - before) / 1024


def kilobytes(name: str) -> int:
    """A value of this process, as Linux counts it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{name}:")[1].split()[0])


def compare(bench: Bench, repeats: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Measures both trainers by turns."""
    bench.check()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in bench.steps}
    load = os.getloadavg()[0]
    for _ in range(repeats):
        for name in bench.steps:
            found[name].append(bench.measure(name))
    rows: list[dict[str, Any]] = []
    for name, values in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*values, strict=True))
        rows.append(
            {
                "trainer": name,
                "batch": bench.sizes.batch,
                "mini_batch": bench.sizes.mini_batch,
                "seconds": round(seconds, 3),
                "all_seconds": [round(value, 3) for value, _ in values],
                "pairs_per_second": round(bench.sizes.batch / seconds, 2),
                "peak_mb": round(memory, 1),
                "preparing_the_batch_seconds": round(bench.preparing[name], 2),
                "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
            }
        )
    theirs, ours = rows
    ratios = {
        "contrast_over_sentence_transformers": round(theirs["seconds"] / ours["seconds"], 3),
        "memory_sentence_transformers_over_contrast": round(theirs["peak_mb"] / ours["peak_mb"], 3),
    }
    return rows, ratios


def large_batch(folder: Path, sizes: Sizes) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The memory of a large batch in mini-batches, and of one mini-batch of whole rows with the uncached loss."""
    model = SentenceTransformer(str(folder / "model"), device="cpu")
    few, many = make_rows(TASKS[0], sizes.mini_batch), make_rows(TASKS[0], sizes.large)
    plain, _ = step_of(their_trainer(model, few, folder, sizes, cached=False))
    ours, _ = step_of(our_trainer(model, many, folder, sizes))
    warm, _ = step_of(our_trainer(model, many[: 4 * sizes.mini_batch], folder, sizes))
    rows = []
    for name, warm_up, step, batch in (
        ("uncached, whole rows", plain, plain, sizes.mini_batch),
        (OURS, warm, ours, sizes.large),
    ):
        warm_up()  # what a first step allocates for good belongs to neither
        seconds, memory = measured(model, step)
        rows.append({"trainer": name, "batch": batch, "seconds": round(seconds, 3), "peak_mb": round(memory, 1)})
    label = f"memory_{sizes.mini_batch}_over_{sizes.large}"
    return rows, {label: round(rows[0]["peak_mb"] / rows[1]["peak_mb"], 3)}


def their_trainer(
    model: SentenceTransformer, rows: list[dict[str, Any]], folder: Path, sizes: Sizes, cached: bool = True
) -> Any:
    """sentence-transformers' trainer, on columns as it reads them."""
    loss: Any = MultipleNegativesRankingLoss(model, scale=SCALE, **BOTH_WAYS)
    if cached:
        loss = CachedMultipleNegativesRankingLoss(model, scale=SCALE, mini_batch_size=sizes.mini_batch, **BOTH_WAYS)
    args = SentenceTransformerTrainingArguments(
        str(folder / "theirs"), per_device_train_batch_size=len(rows), train_sampling_strategy="sequential", **USUAL
    )
    return SentenceTransformerTrainer(model=model, args=args, train_dataset=columns_of(rows), loss=loss)


def our_trainer(model: SentenceTransformer, rows: list[dict[str, Any]], folder: Path, sizes: Sizes) -> Any:
    """The trainer of `xvlm2vec contrast`, set up as the command does it."""
    args = ContrastiveConfig(
        str(folder / "ours"),
        per_device_train_batch_size=len(rows),
        mini_batch_size=sizes.mini_batch,
        temperature=1 / SCALE,
        mask_duplicates=False,
        train_sampling_strategy="sequential",
        **USUAL,
    )
    data = Dataset.from_list(rows, features=FEATURES)
    packer = pair_packer(args, model, [data], {})
    if packer is None:
        raise RuntimeError("The model shares no images; what it logged says why.")
    collator = PairCollator(preprocess_fn=model.preprocess, mask_duplicates=False, packer=packer)
    return ContrastiveTrainer(model, args, data, None, loss=make_loss(model, args), data_collator=collator)


USUAL: dict[str, Any] = {"use_cpu": True, "dataloader_pin_memory": False, "report_to": "none"}
FEATURES = Features({"qry": Value("string"), "qry_image": Image(), "pos_text": Value("string"), "pos_image": Image()})


def step_of(trainer: Any) -> tuple[Step, float]:
    """A training step on the one batch of a trainer's data, and the CPU seconds that preparing this took."""
    trainer.current_gradient_accumulation_steps = 1
    started = time.process_time()
    (batch,) = trainer.get_train_dataloader()
    seconds = time.process_time() - started
    trainer.model.train()
    return lambda: trainer.training_step(trainer.model, dict(batch)), seconds


def make_rows(task: str, count: int) -> list[dict[str, Any]]:
    """Pairs of made images and random texts; each image stands in four of them."""
    draw = random.Random(0)
    pixels = PATCH * SIDE
    images = [made_image(seed, pixels, pixels) for seed in range(-(-count // TEXTS_AN_IMAGE))]
    rows = []
    for number in range(count):
        shown = images[number // TEXTS_AN_IMAGE]
        query = " ".join(draw.choices(WORDS, k=draw.randint(12, 36)))
        answer = " ".join(draw.choices(WORDS, k=draw.randint(4, 20)))
        asks = task == TASKS[0]
        rows.append(
            {
                "qry": query,
                "qry_image": shown if asks else None,
                "pos_text": answer if asks else "",
                "pos_image": None if asks else shown,
            }
        )
    return rows


def columns_of(rows: list[dict[str, Any]]) -> Dataset:
    """The same rows as sentence-transformers reads them: a text, an image, or both."""
    both = {"text": Value("string"), "image": Image()}
    asks = rows[0]["qry_image"] is not None
    anchors = [{"text": row["qry"], "image": row["qry_image"]} if asks else row["qry"] for row in rows]
    positives = [row["pos_text"] if asks else row["pos_image"] for row in rows]
    features = (
        {"anchor": both, "positive": Value("string")} if asks else {"anchor": Value("string"), "positive": Image()}
    )
    pairs = [{"anchor": left, "positive": right} for left, right in zip(anchors, positives, strict=True)]
    return Dataset.from_list(pairs, features=Features(features))


def save_model(folder: Path, sizes: Sizes) -> None:
    """Writes a random LLaVA as an embedding model, with a tokenizer that knows `WORDS`."""
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "<unk>", "<image>", "\n", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    parts = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", unk_token="<unk>",
        additional_special_tokens=["<image>"], model_max_length=1024,
    )  # fmt: skip
    pixels = PATCH * SIDE
    images = CLIPImageProcessorPil(size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels})
    settings = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    text = LlamaConfig(
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=sizes.hidden * 11 // 4,
        vocab_size=len(vocabulary),
        max_position_embeddings=2048,
    )
    vision = CLIPVisionConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=pixels,
        patch_size=PATCH,
    )
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=vocabulary["<image>"])
    backbone = folder.with_name("backbone")
    LlavaModel(config).save_pretrained(backbone)
    LlavaProcessor(images, fast, **settings).save_pretrained(backbone)
    XVLM2VecModel.from_backbone(backbone).save_pretrained(folder)
    XVLM2VecProcessor.from_pretrained(backbone).save_pretrained(folder)


if __name__ == "__main__":
    main()
