"""Takes over an embedder: reads its recipe, copies it, and proves the copy before anybody gets it."""

from __future__ import annotations

import copy
import gc
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from xvlm2vec.modeling.adopted import load_transformer
from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.rows import TextImageRow
from xvlm2vec.modeling.text_processor import TextProcessor

from .black_box import black_box, kinds_of_modules, recipe_of_kinds
from .extract import EmbedderRecipe, check_known, extract_recipe, with_own_heads
from .golden_rows import golden_rows
from .kinds import TWO_TOWERS
from .oracle import Oracle, load_oracle
from .padding import pad_as_trained
from .proof import Proof, ask, ask_again, check_loaded_anew, distance, prove, prove_passes
from .sources import AdoptionError, BeyondRecipeError, Source, open_source

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adopted:
    """An embedder that was taken over.

    Attributes:
        model: The copy, an `XVLM2VecModel` in evaluation mode.
        processor: Its processor.
        recipe: What was read from the original, or given by hand.
        proof: That the copy has the original's vectors; `None` of a plain model with a recipe by hand, of which there
            is no `SentenceTransformer` to compare with.
        source: The original.
    """

    model: XVLM2VecModel
    processor: XVLM2VecProcessor
    recipe: EmbedderRecipe
    proof: Proof | None
    source: Source

    @property
    def is_black_box(self) -> bool:
        """Whether the vectors come from its own code, as no recipe describes it."""
        return self.model.is_black_box

    def save(self, folder: str | Path, by_reference: bool = False) -> None:
        """Writes what `XVLM2VecModel.from_pretrained` loads.

        Args:
            folder: Where to.
            by_reference: Whether the weights stay where they are, and are looked for there.

        Raises:
            AdoptionError: It is a black box, which has no form but its own.
        """
        if self.is_black_box:
            raise AdoptionError(
                f"{self.source.name} runs by its own code and has no form but that in which it came, so there is "
                "nothing to write; `xvlm2vec distill` teaches it as it is, and gives it back like that."
            )
        if by_reference:
            save_reference(self.model, folder)
        else:
            self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def adopt(
    name: str,
    *,
    revision: str | None = None,
    recipe: EmbedderRecipe | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    trust_remote_code: bool = False,
    image_first: bool = True,
    pooling: str | None = None,
) -> Adopted:
    """Takes over an embedder as it is.

    Args:
        name: Folder or Hub id of a `SentenceTransformer`, or of a CLIP, SigLIP or another two-tower model.
        revision: Branch, tag or commit of a Hub id.
        recipe: A recipe instead of the one that would be read; it is proven like that. Of a plain model it is taken on
            its word, and `Adopted.proof` is `None`.
        dtype: In which both sides of the proof are computed, and the copy is loaded.
        device: Where they are computed.
        trust_remote_code: Whether code in the embedder's folder may be run.
        image_first: Whether the image stands before the text in rows of both, as in `{"image": ..., "text": ...}`.
        pooling: How the states of a plain model of transformers, whose files do not say it, become a vector; its rows
            are written by its chat template, and its vectors have length 1.

    Raises:
        AdoptionError: It cannot be taken over, or a row of the proof differs.
        FileNotFoundError: There is no such folder or repository.
    """
    source = open_source(name, revision)
    if recipe is not None and source.form == "plain" and source.model_type not in TWO_TOWERS:
        return _by_hand(source, recipe, dtype, device)
    check_adoptable(source, pooling)
    load = partial(
        load_oracle,
        source,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        image_first=image_first,
        pooling=pooling,
    )
    oracle = load()
    try:
        check_known(oracle, source)
        notes = _pad(oracle)
        recipe = with_own_heads(recipe, oracle, source) if recipe else extract_recipe(oracle, source)
    except BeyondRecipeError as reason:
        if recipe is not None or source.form == "plain":
            raise AdoptionError(f"{source.name} is beyond a recipe: {reason}.") from reason
        return _as_black_box(oracle, load, source, reason, dtype)
    notes += _cut_note(oracle)
    recipe = replace(recipe, notes=(*recipe.notes, *notes))
    rows = golden_rows(kinds_of(recipe), recipe.prompts, _takes_instructions(recipe), recipe.max_length)
    truths = ask(oracle, rows)
    inner, model_class = _inner_processor(oracle), type(oracle.transformer.auto_model)
    heads = [module for module in list(oracle.model)[1 if recipe.writing.two_towers else 2 :] if _has_weights(module)]
    states, truncate_dim = [module.state_dict() for module in heads], oracle.truncate_dim
    del oracle, heads
    gc.collect()
    model, processor = _copy(source, recipe, inner, model_class, states, dtype, device)
    model.config.adopted["truncate_dim"] = truncate_dim
    proof = prove(model, processor, truths)
    if proof.batch_dependent:
        recipe = replace(recipe, notes=(*recipe.notes, _batch_note(proof)))
    return Adopted(model, processor, recipe, proof, source)


def _as_black_box(
    oracle: Oracle, load: Callable[[], Oracle], source: Source, reason: BeyondRecipeError, dtype: torch.dtype
) -> Adopted:
    """An embedder that runs by its own code, as no recipe describes it."""
    modules = oracle.model.to(dtype)
    prompts = {name: prompt for name, prompt in modules.prompts.items() if prompt}
    kinds = kinds_of_modules(modules)
    limit = modules.max_seq_length
    rows = golden_rows(kinds, prompts, instructions=False, limit=limit)
    truths = ask_again(oracle, rows)
    again = load()
    again.model.to(dtype)
    check_loaded_anew(again, truths)
    del again
    model, processor = black_box(oracle, len(truths[0].vector), prompts, source.origin())
    notes = (f"it is a black box: {reason}. Its vectors come from its own code", *_route_note(modules))
    recipe = EmbedderRecipe(
        recipe_of_kinds(kinds),
        normalize=False,
        prompts=prompts,
        max_length=limit,
        notes=(*(f"{note}." for note in notes), *_cut_note(oracle)),
    )
    return Adopted(model, processor, recipe, prove_passes(model, processor, truths), source)


def _route_note(modules: Any) -> list[str]:
    """Where a Router sends rows that name no task, as those of a training do."""
    routes = [module for module in modules if type(module).__name__ == "Router"]
    names = [router.default_route for router in routes if router.default_route]
    return [f"rows that name no task, and no kind of their own, take its route {name!r}" for name in names]


def _by_hand(source: Source, recipe: EmbedderRecipe, dtype: torch.dtype, device: str) -> Adopted:
    """A plain model of transformers with the recipe that somebody wrote for it."""
    plain = XVLM2VecProcessor.from_pretrained(source.folder, layout=recipe.layout, max_length=recipe.max_length)
    writing = recipe.writing
    if writing.image is None and "image" in writing.forms:
        writing = replace(writing, image=plain.recipe.image)
    recipe = replace(recipe, writing=writing)
    model, processor = _copy(source, recipe, plain.inner, AutoModel, [], dtype, device)
    return Adopted(model, processor, recipe, None, source)


def save_reference(model: XVLM2VecModel, folder: str | Path) -> None:
    """Writes the configuration of an untaught copy, which names where its weights lie."""
    config = copy.deepcopy(model.config)
    config.adopted["by_reference"] = True
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def check_adoptable(source: Source, pooling: str | None = None) -> None:
    """Raises for a model that says too little of itself: sentence-transformers would guess, and may guess wrongly."""
    says_it = source.form == "sentence-transformers" or source.model_type in TWO_TOWERS
    if says_it and pooling is not None:
        raise AdoptionError(f"{source.name} says itself how its states become a vector; leave --pooling out.")
    if says_it or pooling is not None:
        return
    raise AdoptionError(
        f"{source.name} has no modules.json, so nothing says how its states become a vector: sentence-transformers "
        "would take their mean. Pass --pooling (its rows are then written by its chat template) or --recipe, or wrap "
        "it by XVLM2VecModel.from_backbone and train it with `xvlm2vec contrast`."
    )


def kinds_of(recipe: EmbedderRecipe) -> frozenset[str]:
    """The kinds of rows that a recipe writes."""
    return frozenset(name.removesuffix("+instruction") for name in recipe.writing.forms)


def _takes_instructions(recipe: EmbedderRecipe) -> bool:
    return any("{instruction}" in form for form in recipe.writing.forms.values())


def _pad(oracle: Oracle) -> list[str]:
    """Gives SigLIP the padding that it was trained with, and says what that changes."""
    row = TextImageRow("a red bicycle leans against the wall")
    saved = oracle.vector(row) if oracle.transformer.config.model_type.startswith("siglip") else None
    pad_to = pad_as_trained(oracle.transformer)
    if pad_to is None or saved is None:
        return []
    far = distance(saved, oracle.vector(row))
    return [
        f"it pools the last of {pad_to} places, and its folder pads texts to their batch only, so that a text's vector "
        f"depends on the texts beside it. Here every text is padded to {pad_to}, as in its training: {row.text!r} then "
        f"has a cosine of {1 - far:.3f} to its vector from the folder as saved."
    ]


def _cut_note(oracle: Oracle) -> list[str]:
    size = oracle.truncate_dim
    return [] if size is None else [
        f"its folder cuts vectors to {size} values; `encode(dim={size})` does. What is compared and taught is whole."
    ]  # fmt: skip


def _batch_note(proof: Proof) -> str:
    return (
        "in its own SentenceTransformer a row's vector depends on the rows beside it (1 - cosine up to "
        f"{proof.batch_dependent:.1e}); the copy has the vectors of rows that are encoded alone."
    )


def _inner_processor(oracle: Oracle) -> Any:
    """The embedder's own processor, as sentence-transformers set it up."""
    processor = copy.deepcopy(oracle.transformer.processor)
    tokenizer = getattr(processor, "tokenizer", processor)
    side = oracle.options.get("text", {}).get("padding_side")
    if side:
        tokenizer.padding_side = side
    return processor if tokenizer is not processor else TextProcessor(processor)


def _has_weights(module: Any) -> bool:
    return bool(module.state_dict())


def _copy(
    source: Source,
    recipe: EmbedderRecipe,
    inner: Any,
    model_class: type[Any],
    states: list[dict[str, torch.Tensor]],
    dtype: torch.dtype,
    device: str,
) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
    """The copy, loaded from the original's files with every weight accounted for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backbone = load_transformer(source.transformer, model_class, source.name, dtype=dtype)
    config = XVLM2VecConfig(
        vlm_config=backbone.config,
        dtype=dtype,
        pooling=recipe.pooling,
        normalize=recipe.normalize,
        prompts=recipe.prompts,
        matryoshka_dims=list(recipe.matryoshka_dims) or None,
        recipe=recipe.writing,
        heads=[dict(head) for head in recipe.heads],
        layout=recipe.layout,
        adopted=source.origin(),
    )
    model: Any = XVLM2VecModel(config, backbone=backbone)
    model.to(dtype)
    weighted = [head for head in model.heads if _has_weights(head)]
    for head, state in zip(weighted, states, strict=True):
        head.load_state_dict(state)
    model_type = recipe.layout or backbone.config.model_type
    processor = XVLM2VecProcessor(inner, model_type, max_length=recipe.max_length, recipe=recipe.writing)
    model.processor = processor
    model.config.name_or_path = model.name_or_path = source.name
    return model.to(device).eval(), processor
