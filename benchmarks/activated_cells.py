"""Steps of a LoRA adapter and of an activated one, on the rows and the model of `distill_cells`."""

from __future__ import annotations

import copy
import ctypes
import gc
import statistics
from pathlib import Path
from typing import Any

import torch
from distill_cells import Bench, Cell, Image, Step, make_batch
from torch import nn

from xvlm2vec.modeling.language_adapters import DEFAULT
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.activated_passes import ActivatedPasses
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.forward_passes import Needs

ADAPTER = AdapterConfig(rank=16)


class LoraBench(Bench):
    """The reference's step and today's, both of a LoRA adapter; today's has its targets at hand."""

    def sentence_transformers(self) -> Step:
        """Not compared here."""
        return self.all


class ActivatedBench:
    """All steps of a cell: `reference` and `lora` with a LoRA adapter, `activated` with one that acts on translations.

    Args:
        cell: Its sizes.
        model: The base.
        image: Makes a row's prefix and image inputs.
    """

    def __init__(self, cell: Cell, model: XVLM2VecModel, image: Image) -> None:
        self.cell = cell
        self.student = add_activated(copy.deepcopy(model), ADAPTER).train()
        self.lora = LoraBench(cell, shaken(add_adapter(model, ADAPTER)), image)
        self.passes = ActivatedPasses(self.student, Needs(), frozen_vision=True)
        self.batch = make_batch(cell, image)
        for group in self.batch.groups or []:
            object.__setattr__(group, "starts", [0] * len(group.texts))
        shaken(self.student)
        self.steps: dict[str, Step] = {
            "reference": self.lora.reference, "lora": self.lora.all, "activated": self.activated
        }  # fmt: skip

    def activated(self) -> torch.Tensor:
        """The base's pass gives targets and prefixes; only translations have gradients."""
        row = self.batch.row_of_pair
        english = self.passes.embed_english(self.student, self.batch).english[row]
        vectors = self.passes.embed_texts(self.student, self.batch)
        value = self.lora.loss(student_en=english, student_lang=vectors.translated, teacher_en=english)
        value.backward()
        return value.detach()

    def run(self, step: Step) -> torch.Tensor:
        """One step from no gradients."""
        self.student.zero_grad(set_to_none=True)
        return self.lora.run(step)

    def seconds(self, step: Step) -> float:
        """Processor seconds of one step."""
        self.student.zero_grad(set_to_none=True)
        return self.lora.seconds(step)

    def megabytes(self, step: Step) -> float:
        """The most memory that one step holds beyond what the process held before it (Linux)."""
        self.run(step)  # kernels keep buffers of their own
        self.student.zero_grad(set_to_none=True)
        self.lora.student.zero_grad(set_to_none=True)
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self.run(step)
        return (memory("VmHWM") - before) / 1024

    def check(self, tolerance: float = 1e-3) -> None:
        """Compares the activated step with one pass over all tokens, in which the adapter acts on the same ones."""
        groups = self.batch.groups or []
        value = self.run(self.activated)
        mine = gradients(self.student)
        self.student.zero_grad(set_to_none=True)
        (pack,) = self.student.pack(groups, sum(map(len, groups)))
        per_group = self.cell.languages + 1
        adapters = [None if row % per_group == 0 else DEFAULT for row in pack.rows]
        vectors = self.student(pack=pack, adapters=adapters).pooler_output.unflatten(0, (-1, per_group))
        english = vectors[:, :1].detach().expand(-1, self.cell.languages, -1).flatten(0, 1)
        expected = self.lora.loss(student_en=english, student_lang=vectors[:, 1:].flatten(0, 1), teacher_en=english)
        expected.backward()
        theirs = gradients(self.student)
        apart = ((mine - theirs).norm() / theirs.norm()).item()
        if abs(value.item() / expected.item() - 1) > tolerance or apart > tolerance:
            raise RuntimeError(f"activated: loss {value} for {expected}, gradients apart by {apart:.1e}")


def shaken(model: Any) -> Any:
    """A model whose adapter does something, as after some steps."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    return model


def gradients(model: nn.Module) -> torch.Tensor:
    """All gradients of a model on end."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def memory(kind: str) -> int:
    """Kilobytes of this process: `VmRSS` now, `VmHWM` the most so far."""
    return int(Path("/proc/self/status").read_text().split(f"{kind}:")[1].split()[0])


def compare_adapters(bench: ActivatedBench, repeats: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Times the steps by turns.

    Returns:
        A row for each step, with the quartiles of its seconds, and the ratios of medians.
    """
    cell = bench.cell
    times: dict[str, list[float]] = {name: [] for name in bench.steps}
    for step in list(bench.steps.values())[1:]:
        bench.run(step)
    for _ in range(repeats):
        for name, step in bench.steps.items():
            times[name].append(bench.seconds(step))
    kept = {name: step for name, step in bench.steps.items() if name != "reference"}
    peaks = {name: statistics.median(bench.megabytes(step) for _ in range(3)) for name, step in kept.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        rows.append(
            {
                "prefix": cell.prefix,
                "languages": cell.languages,
                "rows": cell.rows,
                "repeats": repeats,
                "variant": name,
                "seconds": round(medians[name], 4),
                "quartiles": [round(low, 4), round(high, 4)],
                **({"peak_mb_above_weights": round(peaks[name], 1)} if name in peaks else {}),
            }
        )
    by_turn = [lora / activated for lora, activated in zip(times["lora"], times["activated"], strict=True)]
    ratios = {
        "activated_over_lora": medians["lora"] / medians["activated"],
        "activated_over_lora_least": min(by_turn),
        "activated_over_lora_most": max(by_turn),
        "activated_over_reference": medians["reference"] / medians["activated"],
        "activated_memory_over_lora": peaks["activated"] / peaks["lora"],
    }
    return rows, {name: round(value, 3) for name, value in ratios.items()}
