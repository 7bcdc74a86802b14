"""The backbones of published VLM2Vec and xVLM2Vec checkpoints: old names of their modules, and image settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from .loading import CheckpointError


@dataclass(frozen=True)
class PublishedBackbone:
    """What is known of the published checkpoints on one backbone.

    Args:
        layout: The entry in `families` where prompts are not written in the backbone's usual way.
        renamings: Beginnings of module names, of older transformers classes and of today's base model.
        image_settings: Settings of the processor that the checkpoints were trained with, whatever its files say.
    """

    layout: str | None
    renamings: tuple[tuple[str, str], ...]
    image_settings: dict[str, int] = field(default_factory=dict)

    def new_names(self, old: str) -> list[str]:
        """What a module of the adapter may be called in the backbone."""
        return [old, *(new + old.removeprefix(prefix) for prefix, new in self.renamings if old.startswith(prefix))]

    def old_names(self, new: str) -> list[str]:
        """What a module of the backbone may have been called when the adapter was trained."""
        return [new, *(old + new.removeprefix(prefix) for old, prefix in self.renamings if new.startswith(prefix))]


SQUARE = 1344
"""Pixels of the square into which the original code squeezes every image, in training and evaluation."""

PUBLISHED: dict[str, PublishedBackbone] = {
    "phi3_v": PublishedBackbone(None, (("model.", ""),), {"num_crops": 4, "square": SQUARE}),
    "llava_next": PublishedBackbone(
        None,
        (
            ("language_model.model.", "language_model."),
            ("vision_tower.vision_model.", "vision_tower."),
            ("model.", ""),
        ),
        {"square": SQUARE},
    ),
    "qwen2_vl": PublishedBackbone(
        "qwen2_vl-vlm2vec",
        (("model.layers.", "language_model.layers."), ("model.", "")),
        {"square": SQUARE},
    ),
}
"""By the backbone's `model_type`."""
TODAY = PublishedBackbone(None, ())
"""An adapter of this package, on a whole embedding model: names are today's."""


def published_backbone(model_type: str, source: str) -> PublishedBackbone:
    """The entry of a backbone in `PUBLISHED`, or a `CheckpointError` if it has none."""
    if model_type == "xvlm2vec":
        raise CheckpointError(f"{source!r} is an embedding model of this package already: use from_pretrained.")
    if model_type not in PUBLISHED:
        raise CheckpointError(
            f"{source!r} is a {model_type!r} model; VLM2Vec checkpoints are known on {', '.join(PUBLISHED)}. Use "
            "XVLM2VecModel.from_backbone for others."
        )
    return PUBLISHED[model_type]
