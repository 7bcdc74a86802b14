"""What is particular to a family of backbones, as data: one entry each, no special cases elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Family:
    """How prompts of one family are written.

    Args:
        image: What stands for one picture in a prompt, before the family's own processor expands it. `None` takes the
            processor's `image_token`.
        after_images: What separates the pictures from the text.
        reserved: Further tokens that a user's text must not contain.
    """

    image: str | None = None
    after_images: str = ""
    reserved: tuple[str, ...] = ()


_QWEN = Family(
    image="<|vision_start|><|image_pad|><|vision_end|>",
    reserved=("<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"),
)
_LLAVA = Family(image="<image>", after_images="\n")
_IDEFICS = Family(image="<image>", reserved=("<fake_token_around_image>", "<global-img>"))

FAMILIES: dict[str, Family] = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "llava_next": _LLAVA,
    "llava_onevision": _LLAVA,
}


def family_of(model_type: str) -> Family:
    """The entry of a backbone's `model_type`, or the generic one."""
    return FAMILIES.get(model_type, Family())


def backbone_type(config: PreTrainedConfig) -> str:
    """`model_type` of the backbone below an `XVLM2VecConfig` (or of a bare backbone's configuration)."""
    return getattr(getattr(config, "vlm_config", None), "model_type", None) or config.model_type
