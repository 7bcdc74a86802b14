"""The variants of a distillation step that the benchmarks compare, on random rows and a random model."""

from __future__ import annotations

import copy
import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MSELoss
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaModel

from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import TokenGroup, join
from xvlm2vec.trainer.collators import ParallelBatch
from xvlm2vec.trainer.forward_passes import Needs, Passes
from xvlm2vec.trainer.losses import SelfDistillationLoss

TEXT = 24
IMAGE_TOKEN = 5
Step = Callable[[], torch.Tensor]
Image = Callable[[torch.Generator], tuple[list[int], dict[str, torch.Tensor]]]


@dataclass(frozen=True)
class Shape:
    """Sizes of a language model.

    Args:
        hidden: Width.
        layers: Number of layers.
        heads: Attention heads.
        intermediate: Width of the MLP.
        vocabulary: Tokens.
        key_value_heads: Heads of keys and values; as many as `heads` if 0.
    """

    hidden: int = 512
    layers: int = 8
    heads: int = 8
    intermediate: int = 1408
    vocabulary: int = 32_000
    key_value_heads: int = 0

    def forward_flops(self, tokens: int, before: int = 0) -> float:
        """FLOPs of a forward pass over a row's tokens that stand behind others.

        A token costs two operations for each weight of the layers, and four for each value of a token that it attends
        to.
        """
        keys = self.hidden * (self.key_value_heads or self.heads) // self.heads
        weights = self.layers * self.hidden * (2 * self.hidden + 2 * keys + 3 * self.intermediate)
        attended = 4 * self.hidden * self.layers
        return 2 * weights * tokens + attended * (tokens * before + tokens * (tokens + 1) / 2)


@dataclass(frozen=True)
class Cell:
    """One size of the rows.

    Args:
        prefix: Tokens `P` of the images.
        languages: Translations `K` of each row.
        budget: Tokens of a forward pass, for every variant.
        text: Tokens of each text.
    """

    prefix: int
    languages: int
    budget: int = 1024
    text: int = TEXT

    @property
    def rows(self) -> int:
        """Rows of a step: those that fill one pack."""
        return max(1, self.budget // (self.prefix + (self.languages + 1) * self.text))


def text_flops(cell: Cell, shape: Shape) -> dict[str, float]:
    """FLOPs of the language model in a step: a backward pass counts as two forward passes."""
    whole, count = shape.forward_flops(cell.prefix + cell.text), cell.languages
    shared = shape.forward_flops(cell.prefix) + (count + 1) * shape.forward_flops(cell.text, cell.prefix)
    each = {
        "reference": 7 * count * whole,
        "cached_teacher": 6 * count * whole,
        "deduplicated": 3 * (count + 1) * whole,
        "shared_prefix": 3 * shared + whole,
        "all": 3 * shared,
        "sentence_transformers": 3 * (count + 1) * whole,
    }
    return {name: cell.rows * value for name, value in each.items()}


def build_model(shape: Shape, prefix: int) -> XVLM2VecModel:
    """A random LLaVA with a small vision tower; an image has 256 tokens at most."""
    side = int(min(prefix, 256) ** 0.5)
    text = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
    )
    vision = CLIPVisionConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=14 * side,
        patch_size=14,
    )
    torch.manual_seed(0)
    backbone = LlavaModel(LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE_TOKEN))
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(not name.startswith(("vision_tower", "multi_modal_projector")))
    config = XVLM2VecConfig(vlm_config=backbone.config, normalize=False)
    return XVLM2VecModel(config, backbone=backbone)


class Bench:
    """The steps of one cell, on the same rows and weights.

    Args:
        cell: Its sizes.
        student: The model; its teacher has slightly other weights.
        image: Makes a row's prefix and image inputs.
        precision: Autocast of all passes; none if `None`.
    """

    def __init__(self, cell: Cell, student: XVLM2VecModel, image: Image, precision: torch.dtype | None = None) -> None:
        self.cell, self.student, self.precision = cell, student.train(), precision
        self.device = student.device
        self.teacher = moved(student).eval().requires_grad_(False)
        self.passes = Passes(student, Needs(), frozen_vision=True)
        self.loss = SelfDistillationLoss()
        self.batch = make_batch(cell, image).to(self.device)
        with torch.no_grad():
            self.targets = self._teach(self.batch)
        self.steps: dict[str, Step] = {
            "reference": self.reference,
            "cached_teacher": self.cached_teacher,
            "deduplicated": self.deduplicated,
            "shared_prefix": self.shared_prefix,
            "all": self.all,
            "sentence_transformers": self.sentence_transformers(),
        }

    def reference(self) -> torch.Tensor:
        """Three full passes for each pair: student and teacher on the English text, student on the translation."""
        return self._pairs(cached=False)

    def cached_teacher(self) -> torch.Tensor:
        """Two full passes for each pair, the targets at hand."""
        return self._pairs(cached=True)

    def deduplicated(self) -> torch.Tensor:
        """One full pass for each text, the targets at hand."""
        # An English text stands in as many pairs as its row has translations.
        return self._each_text(english=0.5, translated=0.5 / self.cell.languages)

    def shared_prefix(self) -> torch.Tensor:
        """All texts over one pass of their image; the teacher runs once for each English text."""
        with torch.no_grad():
            targets = self._teach(self.batch)
        return self._shared(targets)

    def all(self) -> torch.Tensor:
        """All texts over one pass of their image, the targets at hand."""
        return self._shared(self.targets)

    def sentence_transformers(self) -> Step:
        """A `training_step` of `SentenceTransformerTrainer` with `MSELoss`, on a batch of its own data loader.

        There is a column for each language, English first, and the targets are the labels. A column of all rows is no
        longer than a pack, so that a step is one batch.
        """
        module = AsModule(self.student, self._whole)
        model = SentenceTransformer(modules=[module], device=str(self.device))
        columns = {f"text{text}": [f"{row} {text}" for row in range(self.cell.rows)] for text in self._texts()}
        with tempfile.TemporaryDirectory() as folder:
            trainer = SentenceTransformerTrainer(
                model=model,
                args=SentenceTransformerTrainingArguments(
                    folder,
                    per_device_train_batch_size=self.cell.rows,
                    use_cpu=self.device.type == "cpu",
                    dataloader_pin_memory=False,
                    report_to="none",
                ),
                train_dataset=Dataset.from_dict({**columns, "label": self.targets.float().cpu().numpy()}),
                loss=MSELoss(model),
            )
        trainer.current_gradient_accumulation_steps = 1
        (batch,) = trainer.get_train_dataloader()
        return lambda: trainer.training_step(model, dict(batch))

    def check(self, tolerance: float = 1e-3) -> None:
        """Compares losses and gradients of all variants.

        Those of sentence-transformers, whose mean weighs English like one of the languages, are compared with plain
        passes that do the same.
        """
        for names, expected in ((list(self.steps)[1:-1], self.reference), (list(self.steps)[-1:], self.equal_texts)):
            loss, gradients = self._outcome(expected)
            for name in names:
                value, found = self._outcome(self.steps[name])
                apart = ((found - gradients).norm() / gradients.norm()).item()
                if abs(value / loss - 1) > tolerance or apart > tolerance:
                    raise RuntimeError(f"{name}: loss {value} for {loss}, gradients apart by {apart:.1e}")

    def equal_texts(self) -> torch.Tensor:
        """As `deduplicated`, but all texts weigh alike."""
        share = 1 / (self.cell.languages + 1)
        return self._each_text(english=share, translated=share)

    def run(self, step: Step) -> torch.Tensor:
        """One step from no gradients."""
        self.student.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            return step()

    def seconds(self, step: Step) -> float:
        """Seconds of one step: of the CPU, or of the clock on a GPU."""
        return timed(lambda: self.run(step), self.device)

    def peak_megabytes(self, step: Step) -> int:
        """The most memory that one step holds: of the GPU, or of the process (Linux)."""
        self.student.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.run(step)
            return torch.cuda.max_memory_allocated() // 2**20
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self.run(step)
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    def apart(self, shape: Shape) -> dict[str, float]:
        """Seconds of what the ratios leave out: one pass of the vision tower, the reference's head, the optimiser."""
        groups = self.batch.groups or []
        shown = {name: value.to(self.device) for name, value in groups[0].images.items()}
        options = {"device": self.device, "dtype": self.student.dtype}
        head = nn.Linear(shape.hidden, shape.vocabulary, bias=False, **options)
        hidden = torch.randn(self.cell.prefix + self.cell.text, shape.hidden, **options)
        optimizer = torch.optim.AdamW([p for p in self.student.parameters() if p.requires_grad], lr=0.0)

        def measured(function: Callable[[], Any]) -> float:
            timed(function, self.device)
            return timed(function, self.device)

        with torch.no_grad(), torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            vision = measured(lambda: self.student.backbone.get_image_features(**shown))
            logits = measured(lambda: head(hidden))
        return {
            "apart: vision tower, one row (reference: 3 a pair; all: 1 a row)": vision,
            "apart: language-model head (reference only), a step": 3 * self.cell.rows * self.cell.languages * logits,
            "apart: optimiser, a step": measured(optimizer.step),
        }

    def _outcome(self, step: Step) -> tuple[float, torch.Tensor]:
        """Loss and gradients of a step."""
        value = self.run(step).item()
        return value, torch.cat([p.grad.flatten() for p in self.student.parameters() if p.grad is not None])

    def _each_text(self, english: float, translated: float) -> torch.Tensor:
        """One full pass for each text; the weights are those of one text in the loss of its row."""
        texts = [(row, text) for row in range(self.cell.rows) for text in self._texts()]
        total = torch.zeros((), device=self.device)
        for chunk in self._chunks(texts):
            vectors = self.student(**self._whole(chunk)).pooler_output
            targets = self.targets[[row for row, _ in chunk]]
            weights = torch.tensor([translated if text else english for _, text in chunk], device=self.device)
            errors = (vectors.float() - targets.float()).square().mean(dim=1) * weights
            part = errors.sum() / self.cell.rows
            part.backward()
            total += part.detach()
        return total

    def _texts(self) -> range:
        """The numbers of a row's texts; English is the first."""
        return range(self.cell.languages + 1)

    def _pairs(self, cached: bool) -> torch.Tensor:
        pairs = [(row, text) for row in range(self.cell.rows) for text in range(1, self.cell.languages + 1)]
        total = torch.zeros((), device=self.device)
        for chunk in self._chunks(pairs):
            english = self._whole([(row, 0) for row, _ in chunk])
            if cached:
                targets = self.targets[[row for row, _ in chunk]]
            else:
                with torch.no_grad():
                    targets = self.teacher(**english).pooler_output
            value = self.loss(
                student_en=self.student(**english).pooler_output,
                student_lang=self.student(**self._whole(chunk)).pooler_output,
                teacher_en=targets,
            ) * (len(chunk) / len(pairs))
            value.backward()
            total += value.detach()
        return total

    def _shared(self, targets: torch.Tensor) -> torch.Tensor:
        vectors, row = self.passes.embed_texts(self.student, self.batch), self.batch.row_of_pair
        value = self.loss(student_en=vectors.english[row], student_lang=vectors.translated, teacher_en=targets[row])
        value.backward()
        return value.detach()

    def _teach(self, batch: ParallelBatch) -> torch.Tensor:
        return self.passes.embed_english(self.teacher, batch).english

    def _rows_in_budget(self) -> int:
        return max(1, self.cell.budget // (self.cell.prefix + self.cell.text))

    def _chunks(self, rows: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        size = self._rows_in_budget()
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _whole(self, texts: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """The processor's batch of some texts, each with its images: (row, number of the text)."""
        groups = self.batch.groups or []
        ids = torch.tensor([groups[row].prefix + groups[row].texts[text] for row, text in texts], device=self.device)
        inputs = {
            name: join([groups[row].images[name] for row, _ in texts]).to(self.device) for name in groups[0].images
        }
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "image_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = ids.eq(self.student.backbone.config.image_token_id).long()
        return inputs


class AsModule(nn.Module):
    """The model as a module of sentence-transformers, for texts that name a row and a text of it: "3 0".

    Args:
        model: The model.
        inputs: Makes its inputs for such pairs.
    """

    def __init__(
        self, model: XVLM2VecModel, inputs: Callable[[list[tuple[int, int]]], dict[str, torch.Tensor]]
    ) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def preprocess(self, texts: list[str], **_: Any) -> dict[str, torch.Tensor]:
        """The model's inputs."""
        return self.inputs([(int(row), int(number)) for row, number in map(str.split, texts)])

    def forward(self, features: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        """Adds the embedding."""
        return {**features, "sentence_embedding": self.model(**features).pooler_output.float()}


def make_batch(cell: Cell, image: Image) -> ParallelBatch:
    """Rows of random texts on random images."""
    generator = torch.Generator().manual_seed(1)
    groups = []
    for _ in range(cell.rows):
        prefix, shown = image(generator)
        texts = torch.randint(10, 250, (cell.languages + 1, cell.text), generator=generator).tolist()
        groups.append(TokenGroup(prefix, texts, shown, len(prefix) + 1))
    pairs = cell.rows * cell.languages
    return ParallelBatch(
        ids=[str(row) for row in range(cell.rows)],
        texts=[""] * cell.rows,
        translations=[""] * pairs,
        languages=["xx"] * pairs,
        row_of_pair=torch.arange(cell.rows).repeat_interleave(cell.languages),
        digests=[bytes([row + 1]) for row in range(cell.rows)],
        groups=groups,
    )


def llava_image(prefix: int) -> Image:
    """Images of 256 tokens at most for the model of `build_model`."""
    per_image = min(prefix, 256)
    size = 14 * int(per_image**0.5)

    def make(generator: torch.Generator) -> tuple[list[int], dict[str, torch.Tensor]]:
        pixels = torch.randn(prefix // per_image, 3, size, size, generator=generator)
        return [IMAGE_TOKEN] * prefix, {"pixel_values": pixels}

    return make


def moved(model: XVLM2VecModel) -> XVLM2VecModel:
    """A copy with slightly other weights of the language model."""
    other = copy.deepcopy(model)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    return other


def timed(function: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call: of the CPU, or of the clock on a GPU."""
    if device.type != "cuda":
        started = time.process_time()
        function()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(bench: Bench, shape: Shape, repeats: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Times all variants by turns.

    Returns:
        A row for each variant and for what is apart, and the ratios of medians.
    """
    cell = bench.cell
    times: dict[str, list[float]] = {name: [] for name in bench.steps}
    for _ in range(repeats):
        for name, step in bench.steps.items():
            times[name].append(bench.seconds(step))
    medians = {name: statistics.median(values) for name, values in times.items()}
    flops = text_flops(cell, shape)
    at = {"prefix": cell.prefix, "languages": cell.languages, "rows": cell.rows, "repeats": repeats}
    rows: list[dict[str, Any]] = [
        {
            **at,
            "variant": name,
            "seconds": round(seconds, 4),
            "rows_per_second": round(cell.rows / seconds, 3),
            "pairs_per_second": round(cell.rows * cell.languages / seconds, 3),
            "peak_mb": bench.peak_megabytes(bench.steps[name]),
            "text_gflops": round(flops[name] / 1e9, 1),
        }
        for name, seconds in medians.items()
    ]
    rows += [{**at, "variant": name, "seconds": round(value, 4)} for name, value in bench.apart(shape).items()]
    ratios = {f"{name}_over_reference": medians["reference"] / medians[name] for name in bench.steps}
    ratios["all_over_deduplicated"] = medians["deduplicated"] / medians["all"]
    ratios["all_over_sentence_transformers"] = medians["sentence_transformers"] / medians["all"]
    ratios["flop_estimate"] = flops["reference"] / flops["all"]
    ratios["flop_estimate_sentence_transformers"] = flops["sentence_transformers"] / flops["all"]
    return rows, {name: round(value, 3) for name, value in ratios.items()}
