"""What is particular to one family of backbones, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TYPES = "mm_token_type_ids"
"""The input that says which tokens are images: M-RoPE and attention in both directions are computed from it."""


@dataclass(frozen=True)
class Family:
    """How prompts of one family are written and what its backbone needs beside the tokens.

    The padding side is always the tokenizer's own: vectors do not depend on it.

    In `before_images`, `before_text` and `after_text`, `{bos}`, `{eos}` and `{sep}` are the tokenizer's own tokens;
    around texts they are left out where it writes them by itself.

    Args:
        image: What stands for one image in a prompt, before the family's own processor expands it. `None` where only
            the checkpoint's chat template can tell.
        after_images: What separates the images from the text.
        before_images: What stands before the images.
        before_text: What the family's processor puts before the text of a row with images by itself, and a row
            without images needs too.
        after_text: As `before_text`, after the text.
        template: Whether the checkpoint's chat template may write images in another way. Not where published
            embedders were trained as the entry says.
        reserved: Further tokens that a user's text must not contain.
        marked: Whether the config's `vision_start_token_id` must (or must not) stand right before an image's tokens;
            `None` where a backbone has no such mark, or does not mind.
        first_position: Position of a row's first token where the backbone counts tokens; the wrapper then passes
            positions that do not depend on padding. `None` leaves positions to the backbone (M-RoPE).
        required: Inputs without which vectors would silently be other ones.
        required_with_images: The same for batches that hold images.
        row_inputs: Image inputs with one entry per row of the batch, also for rows without images.
        mixes: What rows of one pass must have in common, because the backbone or its processor lets them depend on each
            other otherwise: the `"shapes"` of their image inputs, these and their `"lengths"`, or all (`"rows"`: each
            goes alone).
        most_images: Images that a row may have, where its processor takes no more.
        renamed: Names of inputs that its processor makes, and what the backbone calls them.
        flat_images: Whether its processor takes the images of all rows in one list.
        padded_right: Whether the backbone counts positions from the left, padding included, whatever it is given: rows
            are then moved to the left for it.
        images_of_one_row: Whether the vision tower takes the images of one row only, and not those of several as one
            batch along the first axis.
        images_in_dtype: Whether the vision tower takes images in the dtype of its weights only.
        blank_is_padding: Whether the backbone takes an all-zero image for padding and drops it.
        max_pixels: Budget of pixels per image; larger images are made smaller by the family's image processor.
        max_aspect_ratio: The longest side may be this many times the shortest; longer images are an error.
        texts_by_processor: Whether rows without images need the family's processor, too, because it writes tokens
            that its tokenizer does not. Elsewhere they never meet it: some mistreat them among rows with images.
        processor: Name of the processor class where it is not the one that transformers has for the `model_type`.
        causal: Whether every token sees only what stands before it, or, of its own image, everything: rows that begin
            alike can then share that part.
        image_layers: In which layers the tokens of an image, a run of its token, see each other in both directions:
            `"all"`, though no farther back than a sliding window reaches; `"any distance"`, as well, but beyond it;
            `"windows"`, those with a sliding window only; none if empty, or if the `use_bidirectional_attention` of
            the backbone's language model is `None`.
        not_causal: The reason why tokens see what follows, where that is known.
        refused: Why no embedder can be made of it.
    """

    image: str | None = None
    after_images: str = ""
    before_images: str = ""
    before_text: str = ""
    after_text: str = ""
    template: bool = True
    reserved: tuple[str, ...] = ()
    marked: bool | None = None
    first_position: int | None = None
    required: tuple[str, ...] = ()
    required_with_images: tuple[str, ...] = ()
    row_inputs: tuple[str, ...] = ()
    mixes: str = ""
    most_images: int | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    flat_images: bool = False
    padded_right: bool = False
    images_of_one_row: bool = False
    images_in_dtype: bool = False
    blank_is_padding: bool = False
    max_pixels: int | None = None
    max_aspect_ratio: float | None = None
    texts_by_processor: bool = False
    processor: str | None = None
    causal: bool = False
    image_layers: str = ""
    not_causal: str = ""
    refused: str = ""
