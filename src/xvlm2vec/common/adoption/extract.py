"""Reads an embedder's recipe from its loaded `SentenceTransformer`: rendering, pooling, heads, prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from xvlm2vec.modeling.families import family_of
from xvlm2vec.modeling.heads import activation_of
from xvlm2vec.modeling.recipe import KINDS, WITH_INSTRUCTION, Recipe
from xvlm2vec.modeling.rows import TextImageRow

from .oracle import Oracle
from .sources import AdoptionError, BeyondRecipeError, Source, read_object

TEXT, INSTRUCTION = "Qxtextqx", "Qxinstructionqx."
"""Stand for a text and an instruction while the slots of a template are looked for; they begin with a capital letter,
and the instruction ends in a full stop, so that what a template does to either shows."""
DYNAMIC = "transformers_modules."
"""Where transformers puts the code of a model's folder."""
BLANK = Image.new("RGB", (56, 56), (90, 120, 150))


@dataclass(frozen=True)
class EmbedderRecipe:
    """All that an embedder does to a row.

    Args:
        writing: How rows are written.
        pooling: As `XVLM2VecConfig.pooling`.
        heads: As `XVLM2VecConfig.heads`.
        normalize: Whether vectors have length 1 at the end.
        prompts: Named prompts.
        max_length: Tokens of a row, or `None` without a limit.
        matryoshka_dims: Sizes to which vectors may be cut.
        layout: As `XVLM2VecConfig.layout`.
        notes: What a user should know.
    """

    writing: Recipe
    pooling: str = "lasttoken"
    heads: tuple[dict[str, Any], ...] = ()
    normalize: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    max_length: int | None = None
    matryoshka_dims: tuple[int, ...] = ()
    layout: str | None = None
    notes: tuple[str, ...] = ()


def extract_recipe(oracle: Oracle, source: Source) -> EmbedderRecipe:
    """The recipe of an embedder.

    Raises:
        BeyondRecipeError: It does something that a recipe cannot say; the message names it.
        AdoptionError: It cannot be taken over at all.
    """
    modules = list(oracle.model)
    two_towers = not hasattr(modules[0], "modality_config") or modules[0].module_output_name == "sentence_embedding"
    pooling, behind = _pooling(modules, two_towers, source)
    heads = [_head(module, folder, source) for module, folder in behind]
    normalize = bool(heads) and heads[-1]["type"] == "normalize"
    writing = _towers(oracle, source) if two_towers else _writing(oracle)
    model = oracle.model
    default = model.default_prompt_name
    prompts = {name: prompt for name, prompt in model.prompts.items() if prompt}
    writing = replace(writing, image_options=oracle.options.get("image", {}))
    return EmbedderRecipe(
        writing=writing if default is None else _with_default(writing, model.prompts[default]),
        pooling=pooling,
        heads=tuple(heads[:-1] if normalize else heads),
        normalize=normalize,
        prompts=prompts,
        max_length=_limit(oracle),
        matryoshka_dims=(oracle.truncate_dim,) if oracle.truncate_dim else (),
    )


def check_known(oracle: Oracle, source: Source) -> None:
    """Raises where a chain is none of those that a recipe describes, whatever its settings.

    Raises:
        BeyondRecipeError: A module's code is not that of the libraries, or the first one is no transformer.
    """
    modules = list(oracle.model)
    if source.foreign_types:
        raise BeyondRecipeError(f"its modules {', '.join(source.foreign_types)} are code of its own")
    own = {type(part).__name__ for module in modules for part in module.modules() if runs_own_code(part)}
    if own:
        raise BeyondRecipeError(f"its folder has code of its own ({', '.join(sorted(own))})")
    names = [type(module).__name__ for module in modules]
    if "Router" in names:
        raise BeyondRecipeError("it has a Router, which sends rows to several models")
    if names[0] not in ("Transformer", "CLIPModel"):
        raise BeyondRecipeError(f"it begins with a {names[0]}, and a recipe says what a Transformer does")


def runs_own_code(module: Any) -> bool:
    """Whether a module's class came out of a model's folder."""
    return type(module).__module__.startswith(DYNAMIC)


def with_own_heads(recipe: EmbedderRecipe, oracle: Oracle, source: Source) -> EmbedderRecipe:
    """A recipe by hand with the heads of the embedder's own folder, whose weights only that has."""
    modules = list(oracle.model)
    two_towers = recipe.writing.two_towers
    _, behind = _pooling(modules, two_towers, source)
    heads = [_head(module, folder, source) for module, folder in behind]
    normalize = bool(heads) and heads[-1]["type"] == "normalize"
    return replace(recipe, heads=tuple(heads[:-1] if normalize else heads))


def _with_default(writing: Recipe, instruction: str) -> Recipe:
    return replace(writing, default_instruction=instruction)


def _pooling(modules: list[Any], two_towers: bool, source: Source) -> tuple[str, list[tuple[Any, str]]]:
    """The pooling, and the modules behind it with their folders."""
    names = [type(module).__name__ for module in modules]
    folders = [str(module.get("path") or "") for module in source.modules] or [""] * len(modules)
    folders += [""] * (len(modules) - len(folders))
    pairs = list(zip(modules, folders, strict=False))
    if two_towers:
        return "lasttoken", pairs[1:]
    if len(names) < 2 or names[1] != "Pooling":
        raise BeyondRecipeError(f"it is made of {', '.join(names)}; a recipe says what a Transformer and a Pooling do")
    pooling = modules[1]
    if not pooling.include_prompt and "message" not in modules[0].modality_config:
        raise BeyondRecipeError("it leaves the tokens of a prompt out of its pooling (include_prompt: false)")
    modes = (pooling.pooling_mode,) if isinstance(pooling.pooling_mode, str) else pooling.pooling_mode
    return "+".join(modes), pairs[2:]


def _head(module: Any, folder: str, source: Source) -> dict[str, Any]:
    """A module behind the pooling as plain data."""
    name = type(module).__name__
    places = {getattr(module, key, None) for key in ("module_input_name", "module_output_name")}
    if places - {None, "sentence_embedding"}:
        raise BeyondRecipeError(f"its {name} works on {places.pop()!r}, and a recipe knows vectors of rows only")
    if name == "Normalize":
        return {"type": "normalize", "folder": folder}
    if name == "LayerNorm":
        return {"type": "layer_norm", "folder": folder, "dimension": module.dimension}
    if name != "Dense":
        raise BeyondRecipeError(f"it has a {name} behind its pooling")
    stored = read_object(source.folder / folder / "config.json").get("activation_function")
    activation = stored or class_path(module.activation_function)
    try:
        activation_of(activation)
    except ValueError as error:
        raise AdoptionError(
            f"{source.name}: {error} sentence-transformers puts Tanh in its place, with a warning only."
        ) from error
    return {
        "type": "dense",
        "folder": folder,
        "in_features": module.in_features,
        "out_features": module.out_features,
        "bias": module.bias if isinstance(module.bias, bool) else module.linear.bias is not None,
        "activation": activation,
        "use_residual": bool(getattr(module, "use_residual", False)),
    }


def class_path(value: Any) -> str:
    """Where the class of an object lies."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _towers(oracle: Oracle, source: Source) -> Recipe:
    """The writing of a model with a tower for texts and one for images."""
    options = oracle.options.get("text", {})
    pad_to = None
    if options.get("padding") == "max_length":
        pad_to = int(options.get("max_length") or oracle.transformer.max_seq_length)
    tokenizer = oracle.transformer.processor.tokenizer
    return Recipe(
        forms={"text": "{instruction}{text}", "image": ""},
        two_towers=True,
        pad_to=pad_to,
        attend_padding=pad_to is not None and "attention_mask" not in tokenizer.model_input_names,
    )


def _writing(oracle: Oracle) -> Recipe:
    """The writing of a model with one transformer: by its chat template, or the text as it stands."""
    if not oracle.is_chat:
        return Recipe(forms={"text": "{instruction}{text}"})
    return _chat_writing(oracle)


def _chat_writing(oracle: Oracle) -> Recipe:
    processor = oracle.transformer.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    model_type = oracle.transformer.config.model_type
    kinds = [kind for kind in KINDS if "image" in oracle.transformer.modality_config or kind == "text"]
    image, between = None, ""
    if len(kinds) > 1:
        image, between = _image_mark(oracle, family_of(model_type).image or getattr(processor, "image_token", None))
    forms: dict[str, str] = {}
    for kind in kinds:
        plain, instructed = _form(oracle, kind, "", image, between), _form(oracle, kind, INSTRUCTION, image, between)
        forms[kind] = plain
        if instructed.replace("{instruction}", "") == plain and "{instruction}" in instructed:
            forms[kind] = instructed
        else:
            forms[kind + WITH_INSTRUCTION] = instructed
    string = oracle.render(TextImageRow(TEXT, (), ""))
    before, _, behind = string.partition(TEXT if TEXT in string else TEXT.lower())
    empty = oracle.render(TextImageRow("", (), ""))
    bos = tokenizer.bos_token
    adds = processor is not tokenizer and not (bos is not None and string.startswith(bos))
    return Recipe(
        forms=forms,
        image=image,
        between_images=between,
        empty_text=empty.removeprefix(before).removesuffix(behind),
        strip_text=f"  {TEXT}  " not in oracle.render(TextImageRow(f"  {TEXT}  ", (), "")),
        lower_text=TEXT not in string,
        strip_instruction=f"  {INSTRUCTION}  " not in oracle.render(TextImageRow(TEXT, (), f"  {INSTRUCTION}  ")),
        end_of_instruction=_end_of_instruction(oracle),
        special_tokens=adds,
    )


def _end_of_instruction(oracle: Oracle) -> str:
    """What the template puts behind an instruction that ends without a punctuation mark."""
    bare = INSTRUCTION.rstrip(".")
    string = oracle.render(TextImageRow(TEXT, (), bare))
    with_stop = oracle.render(TextImageRow(TEXT, (), INSTRUCTION))
    return "." if string == with_stop else ""


def _image_mark(oracle: Oracle, mark: str | None) -> tuple[str, str]:
    """What stands for one image in the template's strings, and what stands between two."""
    string = oracle.render(TextImageRow(TEXT, (BLANK, BLANK), ""))
    if not mark or string.count(mark) != 2:
        raise AdoptionError(f"its chat template writes two images as {string!r}, and what stands for one is not known.")
    return mark, string.split(mark)[1]


def _form(oracle: Oracle, kind: str, instruction: str, image: str | None, between: str) -> str:
    """The string of a kind of rows with slots in it."""
    text = TEXT if "text" in kind else ""
    string = oracle.render(TextImageRow(text, (BLANK,) if "image" in kind else (), instruction))
    slots = {"{text}": text, "{instruction}": instruction, "{images}": image if "image" in kind else None}
    for slot, content in slots.items():
        if not content:
            continue
        # A template that changes its texts (trims, lowers) still holds the letters.
        places = re.findall(re.escape(content), string, flags=re.IGNORECASE)
        if len(places) != 1:
            raise AdoptionError(
                f"its chat template writes the {slot[1:-1]} {len(places)} times in {string!r}; a recipe writes it once."
            )
        string = string.replace(places[0], slot)
    return string


def _limit(oracle: Oracle) -> int | None:
    """Tokens of a row, as sentence-transformers cuts it; `None` without a limit."""
    options = oracle.options
    limits = [options.get(key, {}).get("max_length") for key in ("chat_template", "text", "common")]
    limit = next((limit for limit in limits if limit), None) or oracle.transformer.max_seq_length
    return int(limit) if limit and limit < 10**9 else None
