"""The forward passes of a distillation step: all texts of a row over one pass of their image, or each text whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import ImageStates, Pack, TokenGroup, image_states, rope_limit_of

from .collators import Inputs, ParallelBatch, PassCounts
from .image_cache import ImageCache


@dataclass(frozen=True)
class Needs:
    """What a loss compares beside the pooled vectors of English and translated texts.

    Attributes:
        image_means: The mean state of the image's positions.
        unimodal: The image without a text, and the translation without the image.
    """

    image_means: bool = False
    unimodal: bool = False


def needs_of(loss: nn.Module) -> Needs:
    """Reads from the keywords of a loss, and of the losses inside it, what it needs."""
    names = {name for part in loss.modules() for name in inspect.signature(part.forward).parameters}
    return Needs("teacher_en_image" in names, "teacher_image" in names)


@dataclass(frozen=True)
class RowVectors:
    """Un-normalised vectors of a batch's texts.

    Attributes:
        english: `(G, H)`, pooled.
        english_image: `(G, H)`, mean state of the image's positions; `None` if not needed.
        translated: `(P, H)`, pooled; `None` where only English was asked for.
        translated_image: The same for the translations, `(P, H)`.
        translated_only: `(P, H)`, pooled, of the translations without their images; `None` if not needed.
        image_only: `(G, H)`, pooled, of the images without a text (anything where there is none); `None` if not
            needed.
    """

    english: torch.Tensor
    english_image: torch.Tensor | None = None
    translated: torch.Tensor | None = None
    translated_image: torch.Tensor | None = None
    translated_only: torch.Tensor | None = None
    image_only: torch.Tensor | None = None


class Passes:
    """Runs a model, or a wrapper around it (DDP, FSDP, an adapter), over batches of parallel rows.

    Every pass of the language model goes through the `forward` of what is given, where wrappers gather weights and
    gradients. Where another process takes more passes for its batch (`ParallelBatch.passes`), because it has images
    to see alone, or rows on both sides of a RoPE limit, one text runs again with weight zero for each pass that lacks.

    Args:
        embedder: The `XVLM2VecModel` itself.
        needs: What the loss wants.
        frozen_vision: Whether teacher and student have the same vision tower, which then sees an image once.

    Attributes:
        dense: Whether packs run one masked attention over all tokens.
        cache: Keeps what a frozen vision tower made of the images; may be set and removed at any time.
    """

    def __init__(self, embedder: XVLM2VecModel, needs: Needs, frozen_vision: bool) -> None:
        self.embedder = embedder
        self.needs = needs
        self.frozen_vision = frozen_vision
        self.dense = False
        self.cache: ImageCache | None = None
        self._seen: tuple[ParallelBatch, dict[int, ImageStates]] | None = None

    def embed_english(self, model: nn.Module, batch: ParallelBatch) -> RowVectors:
        """The English texts with their images, and the images alone if a loss needs them: a teacher's part."""
        if batch.groups is None:
            pooled, means = self._whole(model, batch.english)
        else:
            pooled, means = self._packed(model, english_only(batch.groups), self._images(batch))
            pooled = self._fill_passes(model, batch, pooled, "english")
        image_only = None
        if self.needs.unimodal:
            image_only = self._unimodal(model, batch, pooled, batch.has_image, "images_only")
        return RowVectors(pooled, means, image_only=image_only)

    def embed_texts(self, model: nn.Module, batch: ParallelBatch) -> RowVectors:
        """The English texts and all translations, without images, too, if a loss needs that: the student's part."""
        if batch.groups is None:
            english, english_image = self._whole(model, batch.english)
            translated, translated_image = self._whole(model, batch.translated)
        else:
            pooled, means = self._packed(model, batch.groups, self._images(batch))
            pooled = self._fill_passes(model, batch, pooled, "texts")
            first, rest = first_and_others([len(group.texts) for group in batch.groups], pooled.device)
            english, translated = pooled[first], pooled[rest]
            english_image, translated_image = (None, None) if means is None else (means[first], means[rest])
        translated_only = None
        if self.needs.unimodal:
            with_image = batch.has_image[batch.row_of_pair]
            translated_only = self._unimodal(model, batch, translated, with_image, "translations_only")
        return RowVectors(english, english_image, translated, translated_image, translated_only)

    def counts(self, batch: ParallelBatch) -> PassCounts:
        """How many passes of the language model a batch takes by itself."""
        unimodal = int(batch.images_only is not None), int(batch.translations_only is not None)
        if batch.groups is None:
            return PassCounts(1, 2, *unimodal)
        limit = rope_limit_of(self.embedder.backbone.config)
        english, texts = (num_packs(groups, limit) for groups in (english_only(batch.groups), batch.groups))
        return PassCounts(english, texts, *unimodal)

    def _fill_passes(self, model: nn.Module, batch: ParallelBatch, vectors: torch.Tensor, kind: str) -> torch.Tensor:
        """The vectors, after the passes of a kind that only other processes need, with gradients of zero."""
        if batch.passes is None:
            return vectors
        for _ in range(getattr(batch.passes, kind) - getattr(self.counts(batch), kind)):
            vectors = vectors + 0 * self._filler(model, batch).sum()
        return vectors

    def _filler(self, model: nn.Module, batch: ParallelBatch) -> torch.Tensor:
        """Vectors `(B, H)` from one pass over little."""
        if batch.groups is None:
            return self._whole(model, batch.english)[0]
        sizes = [len(group) for group in batch.groups]
        least = sizes.index(min(sizes))
        images = self._images(batch)
        if images is not None:
            images = {0: images[least]} if least in images else {}
        return self._packed(model, english_only([batch.groups[least]]), images)[0]

    def _packed(
        self,
        model: nn.Module,
        groups: Sequence[TokenGroup],
        images: dict[int, ImageStates] | None,
        options_of: Callable[[Pack], dict[str, Any]] = lambda pack: {},
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Vectors `(R, H)` of all texts of groups, group by group, in as few packs as their positions allow.

        `options_of` gives what else the model takes with a pack.
        """
        rows: list[int] = []
        pooled, means = [], []
        for pack in self.embedder.pack(groups, sum(map(len, groups))):
            states = None if images is None else [images[number] for number in pack.groups if number in images]
            options = {"image_states": states, "image_means": self.needs.image_means, "dense": self.dense}
            output = model(pack=pack, **options, **options_of(pack))
            rows += pack.rows
            pooled.append(output.pooler_output)
            means.append(output.image_means)
        order = torch.tensor(rows, device=pooled[0].device).argsort()
        return torch.cat(pooled)[order], torch.cat(means)[order] if self.needs.image_means else None

    def _whole(self, model: nn.Module, inputs: Inputs | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Vectors `(B, H)` of rows as the processor made them."""
        if inputs is None:
            raise ValueError("There are no texts to embed.")
        output = model(**inputs)
        if not self.needs.image_means:
            return output.pooler_output, None
        token = getattr(self.embedder.backbone.config, "image_token_id", None)
        chosen = image_part(inputs["input_ids"], inputs["attention_mask"], token)
        return output.pooler_output, masked_mean(output.last_hidden_state, chosen)

    def _images(self, batch: ParallelBatch) -> dict[int, ImageStates] | None:
        """What a frozen vision tower makes of the images of a batch, by the number of their row."""
        if not self.frozen_vision or batch.groups is None:
            return None
        if self._seen is None or self._seen[0] is not batch:
            self._seen = (batch, self._look(batch.groups, batch.digests))
        return self._seen[1]

    @torch.no_grad()
    def _look(self, groups: Sequence[TokenGroup], digests: Sequence[bytes | None]) -> dict[int, ImageStates]:
        """The states of all images: those of the cache, the others from one pass of the vision tower, each once."""
        names = {number: digest for number, digest in enumerate(digests) if digest and groups[number].images}
        kept = {name: self.cache.get(name, self.embedder.device) for name in set(names.values())} if self.cache else {}
        images = {name: states for name, states in kept.items() if states is not None}
        first = {name: number for number, name in reversed(names.items()) if name not in images}
        numbers = sorted(first.values())
        unseen = english_only([groups[number] for number in numbers])
        for pack in self.embedder.pack(unseen, sum(map(len, unseen))) if unseen else ():
            for place, states in zip(pack.groups, image_states(self.embedder.backbone, pack), strict=True):
                name = names[numbers[place]]
                images[name] = states
                if self.cache is not None:
                    self.cache.put(name, states)
        return {number: images[name] for number, name in names.items()}

    def _unimodal(
        self, model: nn.Module, batch: ParallelBatch, vectors: torch.Tensor, with_image: torch.Tensor, kind: str
    ) -> torch.Tensor:
        """Vectors of rows, those with an image replaced by vectors of the image or of the text by itself."""
        inputs: Inputs | None = getattr(batch, kind)
        if inputs is not None:
            vectors = vectors.index_copy(0, with_image.nonzero()[:, 0], model(**inputs).pooler_output)
        return self._fill_passes(model, batch, vectors, kind)


def loss_inputs(batch: ParallelBatch, student: RowVectors, teacher: RowVectors) -> dict[str, Any]:
    """What losses are called with, one entry for each of the `P` pairs.

    Returns:
        `student_en`, `student_lang`, `teacher_en` `(P, H)`, `row_of_pair` `(P,)` and `languages`; for losses that need
        them also `student_en_image`, `student_lang_image`, `teacher_en_image` (means of the image's states), or
        `student_lang_alone`, `teacher_image` `(P, H)`, `image_of_pair` and `has_image` `(P,)`.
    """
    row = batch.row_of_pair
    inputs: dict[str, Any] = {
        "student_en": student.english[row],
        "student_lang": student.translated,
        "teacher_en": teacher.english[row],
        "row_of_pair": row,
        "languages": batch.languages,
    }
    if student.english_image is not None and teacher.english_image is not None:
        inputs |= {
            "student_en_image": student.english_image[row],
            "student_lang_image": student.translated_image,
            "teacher_en_image": teacher.english_image[row],
        }
    if teacher.image_only is not None:
        inputs |= {
            "student_lang_alone": student.translated_only,
            "teacher_image": teacher.image_only[row],
            "image_of_pair": batch.image_numbers[row],
            "has_image": batch.has_image[row],
        }
    return inputs


def align_batches(batches: list[ParallelBatch], passes: Passes) -> list[ParallelBatch]:
    """Gives all processes as many batches and passes as the one with the most: FSDP's collective operations must meet.

    Batches that are added weigh nothing.
    """
    everyone = gather_object([[passes.counts(batch) for batch in batches]])
    if len(everyone) == 1:
        return batches
    most = max(map(len, everyone))
    places = zip(*(counts + counts[-1:] * (most - len(counts)) for counts in everyone), strict=True)
    together = [PassCounts(*map(max, *(astuple(counts) for counts in place))) for place in places]
    filled = batches + [replace(batches[-1], weight=0.0)] * (most - len(batches))
    return [replace(batch, passes=counts) for batch, counts in zip(filled, together, strict=True)]


def english_only(groups: Sequence[TokenGroup]) -> list[TokenGroup]:
    """Groups without their translations."""
    return [group.some([0]) for group in groups]


def num_packs(groups: Sequence[TokenGroup], rope_limit: int | None) -> int:
    """Packs that groups take without a budget: 2 where rows lie on both sides of a RoPE limit."""
    if rope_limit is None:
        return 1
    return len({len(group.prefix) + len(text) > rope_limit for group in groups for text in group.texts})


def first_and_others(counts: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of each group's first text `(G,)`, and of all others, where groups of so many texts follow each other."""
    sizes = torch.tensor(counts, device=device)
    first = sizes.cumsum(0) - sizes
    is_other = torch.ones(int(sizes.sum()), dtype=torch.bool, device=device)
    is_other[first] = False
    return first, is_other.nonzero()[:, 0]


def image_part(input_ids: torch.Tensor, attention_mask: torch.Tensor, image_token: int | None) -> torch.Tensor:
    """Which tokens of padded rows belong to the image part: through the one behind the last image.

    Of a row without an image it is the first token, as in the image loss of arXiv 2503.09313.

    Args:
        input_ids: `(B, L)` int64.
        attention_mask: `(B, L)`, 1 at tokens.
        image_token: Id of an image's token; backbones without one have negative ids there.

    Returns:
        `(B, L)` bool.
    """
    attended = attention_mask.bool()
    is_image = (input_ids < 0) | (input_ids == image_token if image_token is not None else False)
    place = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    start = attended.int().argmax(dim=1)
    last = place.masked_fill(~(is_image & attended), -1).amax(dim=1)
    end = torch.where(last >= 0, last + 1, start)
    return attended & (place <= end[:, None])


def masked_mean(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mean `(B, H)` of the chosen states `(B, L, H)`, at least in float32, in their dtype."""
    weights = chosen.to(torch.promote_types(states.dtype, torch.float32))[..., None]
    return ((states * weights).sum(dim=1) / weights.sum(dim=1)).to(states.dtype)
