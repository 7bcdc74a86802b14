"""What is particular to a family of backbones, as data: one entry each, no special cases elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Family:
    """How prompts of one family are written and what its backbone needs beside the tokens.

    The padding side is always the tokenizer's own: vectors do not depend on it.

    Args:
        image: What stands for one image in a prompt, before the family's own processor expands it. `None` takes the
            processor's `image_token`.
        after_images: What separates the images from the text.
        before_text: What the family's processor puts before the text of a row with images by itself, and a row
            without images needs too.
        after_text: As `before_text`, after the text.
        reserved: Further tokens that a user's text must not contain.
        marked: Whether the config's `vision_start_token_id` must (or must not) stand right before an image's tokens;
            `None` where a backbone has no such mark, or does not mind.
        first_position: Position of a row's first token where the backbone counts tokens; the wrapper then passes
            positions that do not depend on padding. `None` leaves positions to the backbone (M-RoPE).
        required: Inputs without which vectors would silently be other ones.
        required_with_images: The same for batches that hold images.
        row_inputs: Image inputs with one entry per row of the batch, also for rows without images.
        blank_is_padding: Whether the backbone takes an all-zero image for padding and drops it.
        max_pixels: Budget of pixels per image; larger images are made smaller by the family's image processor.
        max_aspect_ratio: The longest side may be this many times the shortest; longer images are an error.
        texts_by_processor: Whether rows without images need the family's processor, too, because it writes tokens
            that its tokenizer does not. Elsewhere they never meet it: some mistreat them among rows with images.
        processor: Name of the processor class where it is not the one that transformers has for the `model_type`.
        causal: Whether every token sees only what stands before it: rows that begin alike can then share that part.
        not_causal: The reason why tokens see what follows, where that is known.
    """

    image: str | None = None
    after_images: str = ""
    before_text: str = ""
    after_text: str = ""
    reserved: tuple[str, ...] = ()
    marked: bool | None = None
    first_position: int | None = None
    required: tuple[str, ...] = ()
    required_with_images: tuple[str, ...] = ()
    row_inputs: tuple[str, ...] = ()
    blank_is_padding: bool = False
    max_pixels: int | None = None
    max_aspect_ratio: float | None = None
    texts_by_processor: bool = False
    processor: str | None = None
    causal: bool = False
    not_causal: str = ""


_QWEN = Family(
    image="<|vision_start|><|image_pad|><|vision_end|>",
    reserved=("<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"),
    marked=True,
    # M-RoPE is computed from the token types; Qwen2.5-VL falls back to one-dimensional positions without a word.
    required_with_images=("mm_token_type_ids",),
    max_pixels=1280 * 28 * 28,
    max_aspect_ratio=200.0,
    causal=True,
)
_LLAVA = Family(image="<image>", after_images="\n", first_position=0, causal=True)
_IDEFICS = Family(
    image="<image>",
    reserved=("<fake_token_around_image>", "<global-img>"),
    first_position=0,
    row_inputs=("pixel_values", "pixel_attention_mask"),
    blank_is_padding=True,
    processor="Idefics3Processor",  # SmolVLM's own wants num2words, for videos only; the prompts are the same
    causal=True,
)

FAMILIES: dict[str, Family] = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "qwen2_vl": _QWEN,
    # VLM2Vec was trained without the marks around an image, and M-RoPE, which looks for them, then counts tokens.
    "qwen2_vl-vlm2vec": replace(
        _QWEN, image="<|image_pad|>", after_images="\n", marked=False, first_position=0, required_with_images=()
    ),
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": _QWEN,
    "llava_next": _LLAVA,
    "llava_onevision": Family(
        image="<image>",
        after_images="\n",
        reserved=("<video>",),
        first_position=0,
        row_inputs=("batch_num_images",),
        causal=True,
    ),
    "internvl": Family(
        image="<IMG_CONTEXT>",
        after_images="\n",
        reserved=("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        first_position=0,
        causal=True,
    ),
    "gemma3": Family(
        image="<start_of_image>",
        reserved=("<image_soft_token>", "<end_of_image>"),
        first_position=0,
        # Images attend in both directions where the token types say so.
        required_with_images=("token_type_ids",),
        not_causal="the tokens of an image attend in both directions",
    ),
    "paligemma": Family(
        image="<image>",
        before_text="<bos>",
        after_text="\n",
        first_position=1,
        # The whole prompt attends in both directions where the token types are 0.
        required=("token_type_ids",),
        not_causal="the whole prompt attends in both directions (a prefix language model)",
    ),
    # Texts only; their positions are counted from the first token, wherever padding stands.
    **dict.fromkeys(
        ("bert", "electra", "albert"), Family(first_position=0, not_causal="texts are read in both directions")
    ),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), Family(first_position=0, causal=True)),
    # Positions are the backbone's own: it counts attended tokens by itself, and its RoPE wants to know row lengths.
    "phi3_v": Family(
        image="<|image|>",
        after_images="\n",
        reserved=("<|image_",),
        texts_by_processor=True,
        processor="Phi3VProcessor",
        causal=True,
    ),
}


def family_of(model_type: str) -> Family:
    """The entry of a backbone's `model_type` or of a layout, or the generic one."""
    return FAMILIES.get(model_type, Family())


def backbone_type(config: PreTrainedConfig) -> str:
    """What `family_of` takes: the layout of an `XVLM2VecConfig` if it has one, else its backbone's `model_type`."""
    if getattr(config, "layout", None) is not None:
        return check_layout(config.layout)
    return getattr(getattr(config, "vlm_config", None), "model_type", None) or config.model_type


def check_layout(layout: str) -> str:
    """The layout's name, or a `ValueError` if it is unknown: the generic layout would silently give other vectors."""
    if layout not in FAMILIES:
        raise ValueError(f"layout={layout!r} is unknown; choose one of {', '.join(FAMILIES)}.")
    return layout


IMAGE_SETTINGS = ("square", "num_crops")
"""Settings of a processor that change what a model sees of an image."""


def check_image_settings(settings: Mapping[str, int]) -> dict[str, int]:
    """The image settings as a `dict`, or a `ValueError` if one is unknown: images would look other than in training."""
    unknown = sorted(settings.keys() - set(IMAGE_SETTINGS))
    if unknown:
        raise ValueError(
            f"image_settings has {', '.join(map(repr, unknown))}, which this version does not know; it knows "
            f"{', '.join(IMAGE_SETTINGS)}. Was the model saved by a newer version?"
        )
    return dict(settings)
