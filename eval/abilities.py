"""What a model can embed, and which tasks it must therefore be spared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .ranking import RankingTask, Row

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TEXT, IMAGE, PAIR, SEVERAL = "a text", "an image", "a text with an image", "several images"
EVERYTHING = frozenset({TEXT, IMAGE, PAIR, SEVERAL})


def row_kind(row: Row) -> str:
    """What a row holds; an empty text beside an image is none."""
    if len(row.images) > 1:
        return SEVERAL
    if row.image is None:
        return TEXT
    return PAIR if row.text else IMAGE


def task_kinds(task: RankingTask) -> frozenset[str]:
    """What a task asks a model to embed."""
    return frozenset(row_kind(row) for rows in (task.queries, task.candidates) for row in rows)


def split_by_ability(encoder: Any, tasks: Sequence[RankingTask]) -> tuple[list[RankingTask], list[dict[str, str]]]:
    """Sort out the tasks that a model cannot be scored on.

    Args:
        encoder: The model; its attribute `embeds` names what it takes. Without one it is given everything.
        tasks: The tasks.

    Returns:
        The tasks that remain, and for each of the others its names and the reason.

    Raises:
        ValueError: None remains; gives the reason.
    """
    embeds = getattr(encoder, "embeds", EVERYTHING)
    kept, left_out = [], []
    for task in tasks:
        missing = task_kinds(task) - embeds
        if missing:
            can = " or ".join(sorted(embeds)) or "nothing"
            reason = f"{encoder.name} embeds {can}, and this needs {' and '.join(sorted(missing))}"
            left_out.append({**task.names, "reason": reason})
        else:
            kept.append(task)
    if tasks and not kept:
        raise ValueError(f"{len(left_out)} of {len(tasks)} tasks cannot be scored: {left_out[0]['reason']}")
    return kept, left_out


def sentence_transformer_abilities(model: SentenceTransformer) -> tuple[frozenset[str], bool]:
    """What a `SentenceTransformer` embeds, and whether it takes a text with an image as one input.

    Models of two towers (CLIP, SigLIP) do not; they count as able all the same, since the sum of both unit vectors
    stands for the pair.
    """
    parts = ({TEXT} if model.supports("text") else set()) | ({IMAGE} if model.supports("image") else set())
    if len(parts) < 2:
        return frozenset(parts), False
    joint = model.supports(("image", "text")) or model.supports(("text", "image"))
    return frozenset(parts | {PAIR} | ({SEVERAL} if "message" in model.modalities else set())), joint


def model_abilities(recipe: Any) -> tuple[frozenset[str], bool]:
    """What an `XVLM2VecModel` embeds, from its `Recipe`, and whether it can be told what to do with an image.

    Models of two towers count as able to embed a pair: the sum of both unit vectors stands for it.
    """
    if recipe.two_towers:
        return frozenset({TEXT, IMAGE, PAIR}), False
    kinds = {"text": {TEXT}, "image": {IMAGE, SEVERAL}, "image+text": {PAIR}}
    abilities = [kinds[form.removesuffix("+instruction")] for form in recipe.forms]
    return frozenset().union(*abilities), "image" in recipe.forms
