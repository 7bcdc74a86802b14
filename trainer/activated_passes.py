"""The passes of a step whose adapter acts on translations only: the base's without gradients, the adapter's over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from xvlm2vec.common.languages import comparable_code
from xvlm2vec.modeling.concurrency import evaluation_mode
from xvlm2vec.modeling.language_adapters import DEFAULT
from xvlm2vec.modeling.model_parts import embedder_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import TOLERANCE, Pack, PrefixStates, rope_limit_of, token_groups, use_tree
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.rows import TextImageRow

from .collators import ParallelBatch, PassCounts
from .forward_passes import Needs, Passes, RowVectors, english_only, num_packs
from .image_sharing import share_images, sharing_blocker, texts_of
from .prefix_cache import OfBase, PrefixCache, join_rows, key_of, split_rows
from .teachers import TeacherError


class ActivatedPasses(Passes):
    """Runs a model with an activated adapter, or a wrapper around it, over batches of parallel rows.

    One pass of the base, without gradients, gives the English vectors, which are the targets, too, and the keys and
    values of what each row shares. The translations then run over these, with the adapter.

    Attributes:
        prefixes: Keeps what the base made of a row for the next epoch; may be set and removed at any time.
    """

    def __init__(self, embedder: XVLM2VecModel, needs: Needs, frozen_vision: bool) -> None:
        super().__init__(embedder, needs, frozen_vision)
        self.prefixes: PrefixCache | None = None
        self._base: tuple[ParallelBatch, RowVectors, dict[bool, PrefixStates]] | None = None

    @torch.no_grad()
    def embed_english(self, model: nn.Module, batch: ParallelBatch) -> RowVectors:
        """The English texts with their images, by the base; what they share is kept for the translations."""
        cache = self.prefixes
        pooled, means, kept = (
            self._run_base(model, batch) if cache is None else self._run_or_find_base(model, batch, cache)
        )
        vectors = RowVectors(self._fill_passes(model, batch, pooled, "english"), means)
        self._base = (batch, vectors, kept)
        return vectors

    def _run_base(self, model: nn.Module, batch: ParallelBatch) -> OfBase:
        """The base's pass over English texts, and what it made of their prefixes."""
        kept: dict[bool, PrefixStates] = {}
        pooled, means = self._packed(
            model,
            english_only(batch.groups or []),
            self._images(batch),
            lambda pack: {"keep": kept.setdefault(self._is_beyond(pack), PrefixStates())},
        )
        return pooled, means, kept

    def _run_or_find_base(self, model: nn.Module, batch: ParallelBatch, cache: PrefixCache) -> OfBase:
        """As `_run_base`, but rows that an earlier epoch kept are read, and the others kept for the next."""
        groups, device = batch.groups or [], self.embedder.device
        keys = [key_of(group, digest) for group, digest in zip(groups, batch.digests, strict=True)]
        rows = {number: row for number, key in enumerate(keys) if (row := cache.get(key, device)) is not None}
        unknown = [number for number in range(len(groups)) if number not in rows]
        if unknown:
            digests = [batch.digests[number] for number in unknown]
            part = replace(batch, groups=[groups[number] for number in unknown], digests=digests)
            for number, row in zip(unknown, split_rows(*self._run_base(model, part)), strict=True):
                cache.put(keys[number], row)
                rows[number] = row
        return join_rows([rows[number] for number in range(len(groups))])

    def embed_texts(self, model: nn.Module, batch: ParallelBatch) -> RowVectors:
        """The English texts by the base, and the translations with the adapter."""
        english, kept = self._take_base(model, batch)
        groups = batch.groups or []
        numbers = [number for number, group in enumerate(groups) if len(group.texts) > 1]
        translated = [groups[number].some(range(1, len(groups[number].texts))) for number in numbers]
        states = {beyond: part.renumbered(numbers) for beyond, part in kept.items()}
        names = [adapter_that_learns(self.embedder, language) for language in batch.languages]

        def over(pack: Pack) -> dict[str, Any]:
            prefixes = states.setdefault(self._is_beyond(pack), PrefixStates())
            self._run_lacking(model, batch, pack, prefixes, numbers)
            return {"over": prefixes, "adapters": [names[row] for row in pack.rows]}

        pooled, means = self._packed(model, translated, None, over)
        lacking = 0 if batch.passes is None else batch.passes.texts - self.counts(batch).texts
        for _ in range(lacking):
            pooled = pooled + 0 * self._packed(model, translated[:1], None, over)[0].sum()
        return RowVectors(english.english, english.english_image, pooled, means)

    def _take_base(self, model: nn.Module, batch: ParallelBatch) -> tuple[RowVectors, dict[bool, PrefixStates]]:
        """What the base made of a batch, now or just before; it is not held any longer."""
        if self._base is None or self._base[0] is not batch:
            self.embed_english(model, batch)
        base, self._base = self._base, None
        return base[1:]  # type: ignore[index]  # it was just set

    def counts(self, batch: ParallelBatch) -> PassCounts:
        """How many passes of the base, and of the adapter, a batch takes by itself."""
        limit = rope_limit_of(self.embedder.backbone.config)
        groups = batch.groups or []
        translated = [group.some(range(1, len(group.texts))) for group in groups if len(group.texts) > 1]
        return PassCounts(num_packs(english_only(groups), limit), num_packs(translated, limit))

    @torch.no_grad()
    def _run_lacking(
        self, model: nn.Module, batch: ParallelBatch, pack: Pack, prefixes: PrefixStates, numbers: Sequence[int]
    ) -> None:
        """Runs prefixes that are not kept, as their English text has other RoPE factors than the translations."""
        lacking = {m.number: m.group for m in pack.members if m.number not in prefixes.hidden}
        if not lacking:
            return
        images = self._images(batch)
        rows = {place: numbers[number] for place, number in enumerate(lacking)}
        of_place = {place: images[row] for place, row in rows.items() if images and row in images}
        states = PrefixStates()
        groups = [group.some([0]) for group in lacking.values()]
        self._packed(model, groups, None if images is None else of_place, lambda pack: {"keep": states})
        prefixes.take(states, dict(enumerate(lacking)))

    def _is_beyond(self, pack: Pack) -> bool:
        """Whether the rows of a pack are so long that the backbone uses other RoPE factors."""
        limit = rope_limit_of(self.embedder.backbone.config)
        return limit is not None and min(pack.row_lengths) > limit


class BaseTeacher:
    """The base below an activated adapter: its English vectors are by-products of the step.

    Args:
        model: The student.
        passes: Run it.
    """

    def __init__(self, model: nn.Module, passes: ActivatedPasses) -> None:
        self.model, self.passes = model, passes

    def vectors(self, batch: ParallelBatch) -> RowVectors:
        """The English vectors of a batch."""
        return self.passes.embed_english(self.model, batch)


def share_rows(
    setting: str,
    model: nn.Module,
    passes: Passes,
    processor: XVLM2VecProcessor,
    row: dict[str, Any] | None,
    with_images: bool = True,
) -> bool:
    """As `share_images`, but an activated adapter cannot do without.

    Raises:
        TeacherError: The backbone cannot share what texts have in common; the message says why.
    """
    if not isinstance(passes, ActivatedPasses):
        return share_images(setting, model, passes, processor, row, with_images)
    if setting not in ("auto", "tree"):
        raise TeacherError(
            f"sharing={setting!r} does not go with an activated adapter, whose texts run over what the base made of "
            "their prefix; leave it out."
        )
    sample = texts_of(row, with_images) if row is not None else []
    reason = sharing_blocker("tree", model, processor, sample) or kept_prefix_fault(model, processor, sample)
    reason = broadcast_object_list([reason])[0]
    if reason:
        raise TeacherError(
            "An activated adapter runs translations over the prefix that the base made, and this backbone cannot share "
            f"prefixes: {reason}. Use --adapter lora."
        )
    use_tree(passes.embedder.backbone)
    return True


@torch.no_grad()
def kept_prefix_fault(model: nn.Module, processor: XVLM2VecProcessor, sample: Sequence[TextImageRow]) -> str:
    """What shows that texts over a kept prefix have other vectors than in one pass with it; empty if nothing does.

    Layers that mix tokens by something else than keys and values, such as a recurrent state, are found so.

    Args:
        model: The model, or a wrapper around it.
        processor: Its processor.
        sample: Texts of one row with its image; without any, nothing is compared.
    """
    if not sample:
        return ""
    embedder = embedder_of(model)
    (group,), _ = token_groups(processor, [sample], starts=True)
    with evaluation_mode(model):
        for pack in embedder.pack([group], len(group)):
            kept = PrefixStates()
            expected = model(pack=pack, keep=kept).pooler_output
            try:
                result = model(pack=pack, over=kept, adapters=[None] * len(pack.rows)).pooler_output
            except (ValueError, RuntimeError) as error:
                return f"its prefixes cannot be kept ({error})"
            worst = ((result - expected).abs().max() / expected.abs().max()).item()
            if not worst <= TOLERANCE[expected.dtype]:
                return f"texts over a kept prefix have other vectors than in one pass with it (by {worst:.1e})"
    return ""


def passes_for(embedder: XVLM2VecModel, needs: Needs, frozen_vision: bool, other: Any) -> Passes:
    """What runs a student, an activated adapter's if it has one.

    Args:
        embedder: The `XVLM2VecModel` itself.
        needs: What the loss wants.
        frozen_vision: Whether the vision tower is frozen.
        other: Another model that teaches, if there is one.

    Raises:
        TeacherError: The loss or the teacher does not go with an activated adapter.
    """
    if not embedder.language_adapters:
        return Passes(embedder, needs, frozen_vision)
    check_activated(needs, other, frozen_vision)
    return ActivatedPasses(embedder, needs, frozen_vision)


def count_pairs(batches: Sequence[ParallelBatch], embedder: XVLM2VecModel) -> int:
    """The pairs of a step, over all processes; adapters note what languages they learn by them."""
    counted = [batch for batch in batches if batch.weight]
    languages = {language for batch in counted for language in batch.languages} if embedder.language_adapters else set()
    seen = gather_object([(sum(batch.pairs for batch in counted), sorted(languages))])
    for language in sorted({language for _, languages in seen for language in languages}):
        adapter = embedder.language_adapters[adapter_that_learns(embedder, language)]
        if language not in adapter.languages:
            adapter.languages.append(language)
    return sum(count for count, _ in seen)


def adapter_that_learns(embedder: XVLM2VecModel, language: str) -> str:
    """The name of the adapter that learns a language: its own if it has one."""
    names = {comparable_code(name): name for name in embedder.language_adapters}
    return names.get(comparable_code(language), DEFAULT)


def check_activated(needs: Needs, other: Any, frozen: bool) -> None:
    """Raises where a loss or a teacher does not go with an activated adapter.

    Raises:
        TeacherError: The loss wants images or translations by themselves, another model is the teacher, or the vision
            tower is to be trained.
    """
    if needs.unimodal:
        raise TeacherError(
            "This loss compares images and translations by themselves, which no pass of an activated adapter embeds; "
            "use another loss, or --adapter lora."
        )
    if other is not None:
        raise TeacherError(
            "An activated adapter learns the vectors of its own base, which the same pass gives; leave --teacher-model "
            "out, or use --adapter lora."
        )
    if not frozen:
        raise TeacherError(
            "An activated adapter leaves images their vectors, so the vision tower must be frozen: leave "
            "--freeze-vision false out."
        )
