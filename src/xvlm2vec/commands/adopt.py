"""`xvlm2vec adopt`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from xvlm2vec.flags import console

logger = logging.getLogger(__name__)

ORDERS = ("image,text", "text,image")


def main(arguments: Sequence[str]) -> int:
    """Parses the flags; exit code 1 if the embedder cannot be taken over, or the proof fails."""
    flags = _parser().parse_args(console.with_help(arguments))
    console.set_up()
    if flags.output:
        _check_output(Path(flags.output))
    from xvlm2vec.common.adoption.describe import describe
    from xvlm2vec.common.adoption.recipe_files import read_recipe, write_recipe
    from xvlm2vec.flags.adoption import adopt_with_flags

    recipe = read_recipe(flags.recipe) if flags.recipe else None
    logger.info("Loading %s with sentence-transformers, which says what is right, and then its copy", flags.model)
    adopted = adopt_with_flags(flags, recipe)
    console.show(describe(adopted))
    if flags.save_recipe and adopted.is_black_box:
        raise ValueError(f"{flags.model} runs by its own code, which no recipe describes; leave --save-recipe out.")
    if flags.save_recipe:
        write_recipe(adopted.recipe, Path(flags.save_recipe))
        console.show(f"The recipe is in {flags.save_recipe}.")
    if flags.output:
        adopted.save(flags.output, by_reference=flags.reference)
        console.show(
            f"{flags.output} is an XVLM2VecModel now: `xvlm2vec distill --model {flags.output} ...` teaches it."
        )
    return 0


def _check_output(folder: Path) -> None:
    """Raises where something else would be overwritten."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise FileExistsError(f"{folder} holds something that is no model; name another folder with --output.")


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "adopt",
        "Takes over the embedder that you run, as it is: reads from its own files how it writes a row (chat template, "
        "system turn, prompts), how it pools, and what stands behind that; prints that in plain words with an example "
        "of each kind of row; and proves it: rows in many scripts, images, both, with and without prompts, empty and "
        "long, must have the tokens and the vectors of its own SentenceTransformer.encode to a cosine of 0.99999, "
        "alone and among others. Otherwise it stops and names the first row and the first token that differ. What runs "
        "by code of its own (--trust-remote-code) or sends rows through a Router is a black box: proven is that a row "
        "has one vector, alone, a second time, among others and loaded anew."
        "\n\n"
        "distill, verify and release take such a MODEL, too, and prove it in the same way first; encode, evaluate and "
        "demo run it by its own SentenceTransformer.",
        "xvlm2vec adopt sentence-transformers/all-MiniLM-L6-v2\n"
        "xvlm2vec adopt ./my-embedder --output adopted/my-embedder\n"
        "xvlm2vec adopt ./a-plain-checkpoint --recipe qwen3-vl-embedding --output adopted/qwen",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder or Hub id of a SentenceTransformer, or of a CLIP or SigLIP; with --recipe or --pooling also of "
        "a plain model of transformers",
    )
    parser.add_argument("--output", metavar="DIR", help="write it as a folder that XVLM2VecModel.from_pretrained loads")
    parser.add_argument(
        "--reference",
        action="store_true",
        help="write no weights there: they stay in MODEL, at the same commit, and are loaded from it as long as its "
        "files do not change",
    )
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="a recipe in YAML, or the name of a shipped one, instead of what MODEL says of itself; proven in the same "
        "way where MODEL is a SentenceTransformer",
    )
    parser.add_argument(
        "--pooling",
        metavar="NAME",
        help="of a plain model of transformers, whose files do not say how states become a vector: lasttoken, mean, "
        "...; its rows are written by its chat template",
    )
    parser.add_argument("--save-recipe", metavar="FILE", help="write the recipe as YAML, to read or to change")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a Hub id")
    parser.add_argument(
        "--order",
        choices=ORDERS,
        metavar="image,text|text,image",
        default=ORDERS[0],
        help="what stands first in rows of both, which for most chat templates are two different prompts (default "
        "image,text)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of both sides of the proof, and of what is written (default float32)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code from MODEL's folder, as "
                        "one needs that brings modules of its own")  # fmt: skip
    return parser
