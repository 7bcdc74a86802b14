"""The proof that a copy of an embedder gives its vectors: tokens first, then the vectors, row by row."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xvlm2vec.modeling.encoding import encode_rows
from xvlm2vec.modeling.rows import TextImageRow

from .golden_rows import GoldenRow
from .oracle import Oracle
from .sources import AdoptionError

BOUND = 1e-5
"""Largest distance, 1 - cosine, of a proven row: a cosine of 0.99999."""
SHOWN = 12
"""Tokens around the first that differs, in an error."""


@dataclass(frozen=True)
class Truth:
    """What the embedder itself makes of a row.

    Attributes:
        row: The row.
        ids: Its tokens; `None` where there are none to see.
        vector: `(D,)` float32, encoded alone.
        in_batch: 1 - cosine to its vector in a batch of longer rows; the embedder's own fault where it is not 0.
    """

    row: GoldenRow
    ids: list[int] | None
    vector: torch.Tensor
    in_batch: float = 0.0


@dataclass(frozen=True)
class Proof:
    """A proof that held.

    Attributes:
        rows: Rows compared.
        worst: Largest 1 - cosine of them, alone or in a batch.
        worst_row: The row that has it.
        largest_difference: Largest difference of a value of two vectors.
        dtype: In which both sides were computed.
        batch_dependent: Largest 1 - cosine of the original between a row alone and in a batch; 0 where none is above
            the bound.
    """

    rows: int
    worst: float
    worst_row: str
    largest_difference: float
    dtype: str
    batch_dependent: float = 0.0


def ask(oracle: Oracle, rows: Sequence[GoldenRow]) -> list[Truth]:
    """What the embedder makes of rows.

    Raises:
        AdoptionError: It refuses a row.
    """
    result = []
    for row in rows:
        try:
            beside = _longer(rows, row)
            vector = oracle.vector(row.row)
            together = oracle.vector(row.row, [beside]) if beside is not None else vector
            result.append(Truth(row, oracle.ids(row.row), vector, distance(vector, together)))
        except (ValueError, RuntimeError, TypeError, KeyError, IndexError) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise AdoptionError(f"sentence-transformers itself cannot embed the row {row.name!r}: {reason}") from error
    return result


def _longer(rows: Sequence[GoldenRow], row: GoldenRow) -> TextImageRow | None:
    """A longer row of the same kind and instruction, for a batch of two."""
    if row.row.images or row.name.startswith("long"):
        return None
    return TextImageRow(" ".join([row.row.text, *["and a longer text beside it"] * 3]), (), row.row.instruction)


def ask_again(oracle: Oracle, rows: Sequence[GoldenRow]) -> list[Truth]:
    """What an embedder that runs by its own code makes of rows, where it makes the same of them every time.

    Raises:
        AdoptionError: It refuses a row, or a row's vector changes from run to run or with the rows beside it; nothing
            could be proven of such vectors, and nothing taught.
    """
    result = []
    for row in rows:
        try:
            vector, again = oracle.vector(row.row), oracle.vector(row.row)
            together = oracle.vector(row.row, _beside(rows, row))
        except (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise AdoptionError(f"its own code cannot embed the row {row.name!r}: {reason}") from error
        for other, how in ((again, "on a second run"), (together, "among other rows")):
            far = distance(vector, other)
            if not far <= BOUND:
                raise AdoptionError(
                    f"the row {row.name!r} {how} has another vector by the model's own code: 1 - cosine is {far:.1e}, "
                    f"allowed is {BOUND:.0e}."
                )
        result.append(Truth(row, None, vector))
    return result


def check_loaded_anew(oracle: Oracle, truths: Sequence[Truth]) -> None:
    """Compares an embedder that was loaded once more with what it gave before: weights that its files lack are drawn.

    Raises:
        AdoptionError: A row has another vector.
    """
    for truth in truths:
        far = distance(oracle.vector(truth.row.row), truth.vector)
        if not far <= BOUND:
            raise AdoptionError(
                f"the row {truth.row.name!r} has another vector when the model is loaded anew (1 - cosine is "
                f"{far:.1e}): its files lack a weight, which is drawn each time, or its own code has a state that is "
                "stored nowhere."
            )


def _beside(rows: Sequence[GoldenRow], row: GoldenRow) -> list[TextImageRow]:
    """Other rows of the kind and the instruction of a row, the longest of them among these."""
    alike = [
        other.row
        for other in rows
        if other.row is not row.row
        and bool(other.row.images) == bool(row.row.images)
        and bool(other.row.text) == bool(row.row.text)
        and other.row.instruction == row.row.instruction
    ]
    return alike or [TextImageRow(f"{row.row.text} and more beside it", row.row.images, row.row.instruction)]


def prove_passes(model: Any, processor: Any, truths: Sequence[Truth]) -> Proof:
    """Compares the passes that a training makes with what the embedder's own `encode` gave.

    Args:
        model: The black box.
        processor: Its processor.
        truths: What `ask_again` gave.

    Raises:
        AdoptionError: A row has another vector.
    """
    rows = [truth.row.row for truth in truths]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        passes = [[model(**processor.prepare([row])[0]).embeddings[0].float().cpu() for row in rows]]
        passes.append(list(model(**processor.prepare(rows)[0]).embeddings.float().cpu()))
    told = "has another vector in the passes of a training than by the model's own encode"
    return Proof(len(truths), *_compare(truths, [(told, vectors) for vectors in passes]), _dtype(model))


def prove(model: Any, processor: Any, truths: Sequence[Truth]) -> Proof:
    """Compares a copy with what its original gave.

    Args:
        model: The copy, an `XVLM2VecModel`.
        processor: Its processor.
        truths: What the original made of the rows.

    Raises:
        AdoptionError: A row has other tokens or another vector; the message names it, and the first token that differs.
    """
    for truth in truths:
        _compare_ids(processor, truth)
    rows = [truth.row.row for truth in truths]
    alone, together = [embed(model, processor, [row])[0] for row in rows], embed(model, processor, rows)
    told = "has another vector than in its own SentenceTransformer"
    ways = [(f"alone {told}", alone), (f"among other rows {told}", list(together))]
    distances = _compare(truths, ways, " Its tokens are the same.")
    dependent = max(truth.in_batch for truth in truths)
    return Proof(len(truths), *distances, _dtype(model), dependent if dependent > BOUND else 0.0)


def _compare(
    truths: Sequence[Truth], ways: Sequence[tuple[str, Sequence[torch.Tensor]]], more: str = ""
) -> tuple[float, str, float]:
    """Compares what several ways made of the rows with what the original gave.

    Args:
        truths: What the original gave.
        ways: What is told of a row whose vector differs, and the vectors of all rows.
        more: What else is told then.

    Returns:
        The largest distance, its row, and the largest difference of a value.
    """
    worst, worst_row, largest = 0.0, truths[0].row.name, 0.0
    for place, truth in enumerate(truths):
        for told, vectors in ways:
            far = distance(vectors[place], truth.vector)
            if not far <= BOUND:
                raise AdoptionError(
                    f"the row {truth.row.name!r} {told}: 1 - cosine is {far:.1e}, allowed is {BOUND:.0e}.{more}"
                )
            largest = max(largest, float((vectors[place] - truth.vector).abs().max()))
            if far > worst:
                worst, worst_row = far, truth.row.name
    return worst, worst_row, largest


def _dtype(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


def embed(model: Any, processor: Any, rows: Sequence[TextImageRow]) -> torch.Tensor:
    """Vectors `(N, D)` float32 of rows whose instructions may differ, through `encode`'s own road."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the long row, which is cut on purpose
        return encode_rows(model, processor, rows, max_tokens_per_batch=8192, show_progress=False)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """1 - cosine of two vectors, in float64; infinite where one is not finite, and of vectors of two sizes."""
    if one.shape != other.shape or not (one.isfinite().all() and other.isfinite().all()):
        return float("inf")
    if torch.equal(one, other):  # vectors of zeros, too
        return 0.0
    return max(0.0, 1 - float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0)))


def _compare_ids(processor: Any, truth: Truth) -> None:
    """Raises where the copy makes other tokens of a row."""
    if truth.ids is None:
        return
    try:
        inputs, _ = processor.prepare([truth.row.row])
    except ValueError as error:
        raise AdoptionError(f"the row {truth.row.name!r} cannot be written by the recipe: {error}") from error
    ids = inputs["input_ids"][0][inputs["attention_mask"][0].bool()].tolist()
    if ids == truth.ids:
        return
    place = next(
        (n for n, (a, b) in enumerate(zip(ids, truth.ids, strict=False)) if a != b), min(len(ids), len(truth.ids))
    )
    shown = [_tokens(processor, side[max(0, place - 3) : place + SHOWN]) for side in (truth.ids, ids)]
    raise AdoptionError(
        f"the row {truth.row.name!r} becomes other tokens than in its own SentenceTransformer, from token {place} on "
        f"({len(truth.ids)} there, {len(ids)} here): it writes {shown[0]}, the recipe {shown[1]}."
    )


def _tokens(processor: Any, ids: list[int]) -> list[str]:
    return processor.inner.tokenizer.convert_ids_to_tokens(ids)
