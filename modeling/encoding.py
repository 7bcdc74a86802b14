"""`XVLM2VecModel.encode`: rows sorted by size and packed under a budget of tokens, bad ones named, order restored."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from tqdm.auto import tqdm

from .concurrency import evaluation_mode, restored_attention
from .families import backbone_type, family_of
from .packing import packing_blocker, takes_bare_images, token_groups
from .row_lengths import RowSize, measure_rows
from .rows import BadRowsError, TextImageRow
from .threads import chosen_threads

if TYPE_CHECKING:
    from .processing_xvlm2vec import XVLM2VecProcessor

logger = logging.getLogger(__name__)

BAD_ROWS = ("raise", "nan")
ENOUGH, PADDING = 1024, 0.25
"""A padded batch of so many tokens takes no further row that would make more than this share of it padding."""
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")

Unit = list[int]
"""Numbers of rows with the same images, or of one row."""


@torch.inference_mode()
def encode_rows(
    model: Any,
    processor: XVLM2VecProcessor,
    rows: Sequence[TextImageRow],
    *,
    max_tokens_per_batch: int,
    max_length: int | None = None,
    problems: dict[int, str] | None = None,
    bad_rows: str = "raise",
    show_progress: bool | None = None,
    adapters: Sequence[str | None] | None = None,
) -> torch.Tensor:
    """Embeds rows in evaluation mode and returns them in their order; several threads may do so at once.

    Where the backbone allows it, rows are packed without padding, and rows with the same images share the images'
    part of the forward pass. When memory runs out, the batch is halved, and those after it are made no larger.

    Args:
        model: An `XVLM2VecModel`.
        processor: The model's processor.
        rows: The rows.
        max_tokens_per_batch: Tokens of one forward pass, padding included.
        max_length: Longer rows lose the end of their text.
        problems: What is known to be wrong with rows, by number.
        bad_rows: `"raise"` goes through all rows, embeds none behind the first bad one, and raises; `"nan"` gives bad
            rows a vector of NaN and logs a warning.
        show_progress: As in `XVLM2VecModel.encode`.
        adapters: For each row the adapter that acts on its text, or `None`. Rows of the base are embedded as if there
            were no others.

    Returns:
        `(N, D)` float32 on the CPU.

    Raises:
        BadRowsError: Naming every bad row.
        ValueError: `bad_rows` is neither, the budget is not positive, or an adapter is to act in a model whose rows
            cannot share a pack.
    """
    if bad_rows not in BAD_ROWS:
        raise ValueError(f"bad_rows={bad_rows!r} is unknown; choose one of {', '.join(BAD_ROWS)}.")
    if max_tokens_per_batch < 1:
        raise ValueError(f"max_tokens_per_batch={max_tokens_per_batch} must be at least 1.")
    speaks = (
        [adapter if row.text.strip() else None for adapter, row in zip(adapters, rows, strict=True)] if adapters else []
    )
    run = _Run(
        model, processor, rows, max_tokens_per_batch, max_length, dict(problems or {}), bad_rows == "nan", speaks
    )
    with evaluation_mode(model), restored_attention(model.backbone.config.get_text_config()):
        vectors = run.encode(show_progress)
    if run.problems and bad_rows == "raise":
        raise BadRowsError(run.problems, len(rows))
    if run.cut:
        warnings.warn(f"The texts of {run.cut} of {len(rows)} rows were cut to fit the model.", stacklevel=4)
    if run.problems:
        logger.warning("%s. Their vectors are NaN.", BadRowsError(run.problems, len(rows)))
    return vectors


@dataclass
class _Run:
    """One call of `encode`.

    Attributes:
        budget: Tokens of a forward pass; halved where memory runs out.
        problems: What is wrong with bad rows, by number.
        lenient: Whether good rows are embedded beside bad ones.
        adapters: The adapter that acts on each row's text, or `None`; empty where none acts on any.
        cut: Rows whose text was cut.
        packed: Whether the base's rows are packed; those that an adapter acts on always are.
        bare: By instruction, whether an image without a text may be packed, as something is written behind it.
    """

    model: Any
    processor: XVLM2VecProcessor
    rows: Sequence[TextImageRow]
    budget: int
    max_length: int | None
    problems: dict[int, str]
    lenient: bool
    adapters: Sequence[str | None] = ()
    cut: int = 0
    packed: bool = False
    sizes: list[RowSize] = field(default_factory=list)
    bare: dict[str | None, bool] = field(default_factory=dict)

    def encode(self, show_progress: bool | None) -> torch.Tensor:
        """`(N, D)` float32 on the CPU; NaN for rows that were not embedded."""
        blocker = packing_blocker(self.model)
        self.packed = family_of(backbone_type(self.model.config)).causal and not blocker
        if any(self.adapters) and blocker:
            raise ValueError(
                "An adapter acts on the tokens of texts over the prefix that the base made, and this backbone cannot "
                f"share prefixes: {blocker}. Leave language out."
            )
        self.sizes = measure_rows(self.processor, self.rows, self.problems)
        vectors = torch.full((len(self.rows), self.model.config.hidden_size), torch.nan)
        waiting = deque(self._units())
        wanted = sum(size.tokens for size in self.sizes) > self.budget if show_progress is None else show_progress
        hidden = not wanted or (show_progress is None and not sys.stderr.isatty())
        with (
            tqdm(total=len(self.rows), desc="Encoding", unit="row", disable=hidden) as bar,
            chosen_threads(self.model.device) as threads,
        ):
            bar.update(len(self.problems))
            while waiting:
                threads.check()
                batch = self._next(waiting)
                left = self._embed(batch, vectors)
                waiting.extendleft(reversed(left))
                bar.update(sum(map(len, batch)) - sum(map(len, left)))
        return vectors

    def _units(self) -> list[Unit]:
        """Good rows, those with the same images together where that helps, from the cheapest to the dearest."""
        same: dict[Any, Unit] = {}
        for number, row in enumerate(self.rows):
            if number not in self.problems:
                alone = not self._is_packed(number) or not row.images
                shared = number if alone else (self._speaks(number), self._shared(row))
                same.setdefault(shared, []).append(number)
        return sorted(same.values(), key=lambda unit: (self._kind(unit), self._tokens(unit)))

    def _is_packed(self, number: int) -> bool:
        """Whether a row is packed: what an adapter acts on was proven to share prefixes when it was trained."""
        row = self.rows[number]
        bare = bool(row.images) and not row.text.strip()
        return self._speaks(number) or (self.packed and (not bare or self._takes_bare(row.instruction)))

    def _takes_bare(self, instruction: str | None) -> bool:
        """Whether an image without a text may be packed; looked up on a small one."""
        if instruction not in self.bare:
            image = Image.new("RGB", (64, 64), (200, 30, 90))
            self.bare[instruction] = takes_bare_images(self.processor, [image], instruction)
        return self.bare[instruction]

    def _speaks(self, number: int) -> bool:
        """Whether an adapter acts on a row."""
        return bool(self.adapters and self.adapters[number])

    def _kind(self, unit: Unit) -> tuple[bool, bool, bool]:
        """Units of different kinds never stand in one batch: the base's come first, and as if there were no others."""
        return self._speaks(unit[0]), bool(self.rows[unit[0]].images), self._is_packed(unit[0])

    def _shared(self, row: TextImageRow) -> tuple[Any, ...]:
        """What rows must have in common to share their images: these, and what is written before them."""
        return self.processor.recipe.shared_part(row), *map(_identity, row.images)

    def _tokens(self, unit: Unit) -> tuple[int, int]:
        """Tokens and pixels of a unit, its images counted once."""
        first = self.sizes[unit[0]]
        return first.shared + sum(self.sizes[number].tokens - first.shared for number in unit), first.pixels

    def _next(self, waiting: deque[Unit]) -> list[Unit]:
        """Takes units of one kind as long as they stay within the budget."""
        batch: list[Unit] = []
        total = longest = 0
        while waiting:
            tokens, _ = self._tokens(waiting[0])
            total, longest = total + tokens, max(longest, tokens)
            cost = total if self._is_packed(waiting[0][0]) else longest * (len(batch) + 1)
            kinds = {self._kind(unit) for unit in (*batch[:1], waiting[0])}
            padded = total - tokens >= ENOUGH and cost - total > PADDING * cost
            if batch and (cost > self.budget or len(kinds) > 1 or padded):
                break
            batch.append(waiting.popleft())
        return batch

    def _embed(self, batch: list[Unit], vectors: torch.Tensor) -> list[Unit]:
        """Embeds a batch and returns what is to be done again, as memory ran out."""
        cut, numbers = self.cut, [number for unit in batch for number in unit]
        try:
            for numbers, embed in self._passes(batch):
                if self.lenient or not self.problems:
                    vectors[numbers] = embed().embeddings.float().cpu()
            return []
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        free_memory()
        self.cut = cut
        self._make_room(numbers, reason)
        left = [[number for number in unit if number not in self.problems] for unit in batch]
        return [unit for unit in left if unit]

    def _make_room(self, numbers: list[int], reason: str) -> None:
        """Halves the budget after a forward pass that failed; a row that does not fit alone is a bad row."""
        if len(numbers) == 1:
            self.problems[numbers[0]] = f"row {numbers[0]}: memory runs out on this row alone ({reason})"
            return
        self.budget = max(min(self.budget, sum(self.sizes[number].tokens for number in numbers)) // 2, 1)
        logger.warning("Memory ran out (%s); going on with batches of %d tokens.", reason, self.budget)

    def _passes(self, batch: list[Unit]) -> Iterator[tuple[list[int], Callable[[], Any]]]:
        """The forward passes of a batch: which rows they embed, and how."""
        prepared = self._prepare(batch)
        if prepared is None:
            return
        good, inputs = prepared
        numbers = [number for unit in good for number in unit]
        if not self._is_packed(numbers[0]):
            yield numbers, partial(self.model, **inputs.to(self.model.device))
            return
        for pack in self.model.pack(inputs, self.budget):
            of_pack = [numbers[row] for row in pack.rows]
            speaking = [self.adapters[number] for number in of_pack] if self._speaks(of_pack[0]) else None
            yield of_pack, partial(self.model, pack=pack, adapters=speaking)

    def _prepare(self, batch: list[Unit]) -> tuple[list[Unit], Any] | None:
        """Prepares a batch without its bad rows, which become `problems`; `None` if no row is left."""
        try:
            inputs, cut = self._make(batch)
        except ValueError:
            problems = {number: problem for unit in batch for number in unit if (problem := self._problem(number))}
            if not problems:
                raise
            self.problems |= problems
            left = [[number for number in unit if number not in problems] for unit in batch]
            left = [unit for unit in left if unit]
            return self._prepare(left) if left else None
        self.cut += cut
        return batch, inputs

    def _problem(self, number: int) -> str:
        """What is wrong with a row; empty if nothing is."""
        try:
            self._make([[number]])
        except ValueError as error:
            return str(error)
        return ""

    def _make(self, batch: list[Unit]) -> tuple[Any, int]:
        """What the model takes, and the number of rows whose text was cut."""
        numbers = [number for unit in batch for number in unit]
        rows = [self.rows[number] for number in numbers]
        if not self._is_packed(numbers[0]):
            return self.processor.prepare(rows, numbers=numbers, max_length=self.max_length)
        starts = self._speaks(numbers[0])
        if not rows[0].images:
            return token_groups(self.processor, [rows], [numbers], self.max_length, starts)
        units = [[self.rows[number] for number in unit] for unit in batch]
        return token_groups(self.processor, units, batch, self.max_length, starts)


def _identity(image: Any) -> Any:
    """What two rows must have in common for their image to be the same: the path, or the very object."""
    return image if isinstance(image, str) else (id(image),)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is memory that ran out, of a GPU or of the machine; the CPU's allocator raises a `RuntimeError`."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def free_memory() -> None:
    """Gives back what a failed pass held; call it when the exception is no longer handled, as that holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
