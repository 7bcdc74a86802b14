"""Contrastive losses over two processes: values and gradients are those of one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from xvlm2vec.trainer.false_negatives import duplicates
from xvlm2vec.trainer.losses import (
    CrossModalAlignmentLoss,
    MultilingualContrastiveLoss,
    OneToManyContrastiveLoss,
    PairInfoNCELoss,
)
from xvlm2vec.trainer.losses.gathering import gather_rows, global_row_ids

# Pairs and rows of each process; they differ in number, and both count their rows from 0.
ROWS = (torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1]))
LOSSES = {
    "multilingual": (MultilingualContrastiveLoss(0.5), "teacher_en"),
    "one-to-many": (OneToManyContrastiveLoss(0.5), "teacher_en"),
    "cross-modal": (CrossModalAlignmentLoss(0.5), "teacher_image"),
}


def batch():
    """Student and teacher vectors of both processes, pair after pair."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    per_row = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    return student, per_row[torch.cat([ROWS[0], ROWS[1] + 3])]


def written_out(name, student, teacher):
    """Mean over processes of the mean over its queries, with sums over the whole batch."""
    rows = torch.cat([ROWS[0], ROWS[1] + 3])
    same, own = rows[:, None] == rows[None, :], torch.eye(7, dtype=torch.bool)
    unit = torch.nn.functional.normalize
    scores = (unit(student) @ unit(teacher).T / 0.5).exp()
    if name == "one-to-many":
        logs = -(scores / scores.sum(dim=0)).log().T
        values = torch.stack([logs[rows == row].mean(dim=0)[rows == row].mean() for row in range(5)])
        return (values[:3].mean() + values[3:].mean()) / 2
    values = -(scores.diagonal() / (scores * (~same | own)).sum(dim=1)).log()
    return (values[:4].mean() + values[4:].mean()) / 2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """For each loss what both processes have."""
    folder = tmp_path_factory.mktemp("processes")
    run_in_two_processes(folder)
    ranks = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    return {name: [rank[name] for rank in ranks] for name in ranks[0]}


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.slow
def test_two_processes_are_one_batch(found, name):
    results = found[name]
    assert [result["world"] for result in results] == [2, 2]
    student, teacher = batch()
    student.requires_grad_()
    expected = written_out(name, student, teacher)
    expected.backward()
    torch.testing.assert_close((results[0]["loss"] + results[1]["loss"]) / 2, expected)
    # data-parallel training takes the mean over processes
    torch.testing.assert_close(torch.cat([result["gradient"] for result in results]) / 2, student.grad)


@pytest.mark.slow
def test_pairs_of_two_processes_are_one_batch(found):
    """The second process has no hard negative; the contents of both are compared."""
    results = found["pairs"]
    query, positive = (part.requires_grad_() for part in batch())
    negative, contents = hard_negatives().requires_grad_(), contents_of(slice(0, 7))
    left_out = duplicates({**contents, "negative": torch.tensor([98, 99])})
    unit, own = torch.nn.functional.normalize, torch.eye(7, 9, dtype=torch.bool)
    forth = unit(query) @ unit(torch.cat([positive, negative])).T / 0.5
    back = (unit(positive) @ unit(query).T / 0.5).masked_fill(left_out.no_query & ~own[:, :7], -torch.inf)
    forth = forth.masked_fill(left_out.no_negative & ~own, -torch.inf)
    values = -(forth.log_softmax(dim=1)[own] + back.log_softmax(dim=1).diagonal()) / 2
    expected = (values[:4].mean() + values[4:].mean()) / 2
    expected.backward()
    torch.testing.assert_close((results[0]["loss"] + results[1]["loss"]) / 2, expected)
    torch.testing.assert_close(torch.cat([result["gradient"] for result in results]) / 2, query.grad)
    torch.testing.assert_close(results[0]["negative"] / 2, negative.grad)


def hard_negatives():
    return torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def contents_of(part):
    """Row 1 of the first process and row 5, which is in the second, look for the same."""
    return {"query": torch.arange(7)[part], "positive": torch.tensor([10, 11, 12, 13, 14, 11, 16])[part]}


def test_one_process_is_its_own_batch():
    rows = torch.tensor([3, 1])
    assert gather_rows(rows) is rows
    assert global_row_ids(rows) is rows


def run_in_two_processes(folder):
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


def worker(folder, rank):
    """One of two processes: its part of the batch through each loss."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    part = slice(0, 4) if rank == 0 else slice(4, 7)
    results = {name: rows(rank, name, *vectors_of(part)) for name in LOSSES}
    results["pairs"] = pairs(rank, part, *vectors_of(part))
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def vectors_of(part):
    student, teacher = (vectors[part].clone() for vectors in batch())
    return student.requires_grad_(), teacher


def rows(rank, name, student, teacher):
    loss, target = LOSSES[name]
    value = loss(student_lang=student, row_of_pair=ROWS[rank], **{target: teacher})
    value.backward()
    return {"world": dist.get_world_size(), "loss": value.detach(), "gradient": student.grad}


def pairs(rank, part, student, teacher):
    negative = hard_negatives().requires_grad_() if rank == 0 else None
    left_out = vars(duplicates(contents_of(part) | ({"negative": torch.tensor([98, 99])} if rank == 0 else {})))
    value = PairInfoNCELoss(0.5)(query=student, positive=teacher.requires_grad_(), negative=negative, **left_out)
    value.backward()
    return {"loss": value.detach(), "gradient": student.grad, "negative": negative.grad if rank == 0 else None}


if __name__ == "__main__":
    worker(Path(sys.argv[1]), int(sys.argv[2]))
