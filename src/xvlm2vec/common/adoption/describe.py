"""A recipe in plain words, with an example of each kind of row."""

from __future__ import annotations

from collections.abc import Iterator

from xvlm2vec.modeling.recipe import Recipe
from xvlm2vec.modeling.rows import TextImageRow

from .adopt import Adopted
from .extract import EmbedderRecipe
from .proof import Proof

EXAMPLE = "a red bicycle"
QUERY, DOCUMENT = "query", "document"
_POOLINGS = {
    "lasttoken": "the state of the last token",
    "cls": "the state of the first token",
    "mean": "the mean of all states",
    "max": "the largest of each value over all states",
    "mean_sqrt_len_tokens": "the sum of all states over the root of their number",
    "weightedmean": "the mean of all states, later ones weighing more",
    "image_span": "the mean of an image's states, of all states where there is no image",
}


def describe(adopted: Adopted) -> str:
    """What an embedder does to a row, and the proof of it, as lines for a terminal."""
    recipe, proof = adopted.recipe, adopted.proof
    if adopted.is_black_box:
        return "\n".join(_of_black_box(adopted))
    lines = [f"{adopted.source.name}: {adopted.source.model_type}, taken over as it is", ""]
    lines += _lines_of(recipe, adopted)
    lines += ["", "Rows as they are written (line breaks as \\n):"]
    lines += [f"  {name:<15}{string}" for name, string in examples(recipe)]
    if recipe.notes:
        lines += ["", *(f"Note: {note}" for note in recipe.notes)]
    lines += ["", *_proof_lines(proof)]
    return "\n".join(lines)


def _of_black_box(adopted: Adopted) -> Iterator[str]:
    """What is known of an embedder that runs by its own code: its kinds of rows, its prompts and the proof."""
    recipe, proof = adopted.recipe, adopted.proof
    yield f"{adopted.source.name}: taken over as a black box"
    yield ""
    yield f"  vector         by its own code; {adopted.model.config.hidden_size} values"
    yield f"  rows           {', '.join(kind.replace('+', ' and ') for kind in recipe.writing.forms)}"
    for name, prompt in recipe.prompts.items():
        yield f"  prompt         {name}: {prompt!r}"
    yield ""
    yield from (f"Note: {note}" for note in recipe.notes)
    yield ""
    if proof is not None:
        yield (
            f"Proven: {proof.rows} rows have one vector in {proof.dtype} by its own code, alone, a second time, among "
            "others, and in the passes of a training. How it writes and pools a row is not looked into."
        )


def _lines_of(recipe: EmbedderRecipe, adopted: Adopted) -> Iterator[str]:
    config = adopted.model.config
    steps = [head["type"].replace("_", " ") for head in recipe.heads] + (["length 1"] if recipe.normalize else [])
    vector = "what each tower gives" if recipe.writing.two_towers else " beside ".join(
        _POOLINGS[mode] for mode in recipe.pooling.split("+")
    )  # fmt: skip
    yield f"  vector         {', then '.join([vector, *steps])}; {config.hidden_size} values"
    length = f"{recipe.max_length} tokens; longer texts lose their end" if recipe.max_length else "no limit"
    yield f"  length         {length}"
    if recipe.writing.pad_to:
        yield f"  padding        every text to {recipe.writing.pad_to} tokens"
    size = getattr(adopted.processor.inner.image_processor, "size", None)
    if size:
        yield f"  images         {', '.join(f'{key} {value}' for key, value in dict(size).items() if value)}"
    for name, prompt in recipe.prompts.items():
        default = ", taken where no other is named" if prompt == recipe.writing.default_instruction else ""
        yield f"  prompt         {name}: {prompt!r}{default}"
    if recipe.matryoshka_dims:
        yield f"  sizes          {', '.join(map(str, recipe.matryoshka_dims))}"


def examples(recipe: EmbedderRecipe) -> list[tuple[str, str]]:
    """A row of each kind as it is written, and a query and a document: what `encode_query` and so on make of a text."""
    writing = recipe.writing
    image = object()
    rows = {
        "text": TextImageRow(EXAMPLE),
        "image": TextImageRow("", (image,)),
        "image and text": TextImageRow(EXAMPLE, (image,)),
    }
    kinds = {"text": "text", "image": "image", "image and text": "image+text"}
    shown = {name: row for name, row in rows.items() if kinds[name] in writing.forms}
    for name in (QUERY, DOCUMENT):
        # sentence-transformers takes an empty prompt, which is none, where a model names no other.
        shown[name] = TextImageRow(EXAMPLE, (), recipe.prompts.get(name, ""))
    return [(name, _shown(writing, row)) for name, row in shown.items()]


def _shown(writing: Recipe, row: TextImageRow) -> str:
    if writing.two_towers and row.images:
        return "(the image alone)"
    return writing.render(row).string.replace("\n", "\\n")


def _proof_lines(proof: Proof | None) -> Iterator[str]:
    if proof is None:
        yield "Not proven: there is no SentenceTransformer of it to compare with. Its vectors are those of the recipe."
        return
    yield (
        f"Proven: {proof.rows} rows have the tokens and the vectors of its own SentenceTransformer in {proof.dtype}, "
        f"alone and among others; the largest 1 - cosine is {proof.worst:.1e} ({proof.worst_row})."
    )
