"""Configuration of Phi-3.5-V: the fields of the original ``config.json``, with the CLIP part made explicit."""

import logging
from typing import Any, ClassVar

from transformers import CLIPVisionConfig, Phi3Config
from transformers.configuration_utils import SubConfigSpec

logger = logging.getLogger(__name__)

VIT_L_14_336: dict[str, Any] = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
"""The vision tower that the original model builds whatever its ``config.json`` says."""

_SUPPORTED_EMBEDDING: dict[str, tuple[Any, ...]] = {
    "embedding_cls": ("image",),
    "hd_transform_order": ("sub_glb",),
    "projection_cls": ("mlp",),
    "use_hd_transform": (True,),
    "with_learnable_separator": (True,),
}


class Phi3VConfig(Phi3Config):
    """Configuration of a Phi-3.5-V embedding backbone.

    The text fields are those of ``Phi3Config``; the original's ``rope_scaling`` of type ``su`` is read as ``longrope``.

    Args:
        vision_config: The CLIP vision tower. Absent: ViT-L/14 at 336 pixels, which the original always builds.
        embd_layer: The original's description of the image embedding. Only the published layout is supported.
        img_processor: The original's description of the image features: ``layer_idx`` (default -2) is the CLIP layer
            that is read, ``image_dim_out`` its width.
        legacy_rope_by_batch: Choose the long or short RoPE factors by the padded length of the batch, as the original
            does. An embedding then depends on its batch: for comparison only.

    Raises:
        ValueError: ``embd_layer`` or ``img_processor`` asks for something that the published models do not use.
    """

    model_type = "phi3_v"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(CLIPVisionConfig, init_kwargs=VIT_L_14_336)
    }

    vision_config: Any = None  # a dictionary, a CLIPVisionConfig or None going in; always a CLIPVisionConfig afterwards
    embd_layer: dict | str | None = None
    img_processor: dict | None = None
    embd_pdrop: float | int = 0.0
    use_cache: bool = False
    legacy_rope_by_batch: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        # The original's entry points to remote code that no longer runs; the classes of this file replace it.
        kwargs.pop("auto_map", None)
        self._mend_hidden_size(kwargs.get("rope_scaling") or self.rope_parameters or {})
        super().__post_init__(**kwargs)
        self._check_image_embedding()

    @property
    def vision_feature_layer(self) -> int:
        """Index of the CLIP hidden state that is read; 0 is the embedding output, -1 the last layer's."""
        return int((self.img_processor or {}).get("layer_idx", -2))

    def _mend_hidden_size(self, rope: Any) -> None:
        # The training code behind some published checkpoints writes hidden_size=4096 for a 3072-wide model. The RoPE
        # factors, one for two dimensions of a head, tell the true width.
        factors = {len(rope.get(name) or ()) for name in ("short_factor", "long_factor")}
        width = 2 * max(factors) * self.num_attention_heads
        if len(factors) == 1 and width not in (0, self.hidden_size):
            logger.warning(
                "hidden_size=%d does not fit the %d RoPE factors and %d heads of this configuration; %d is used.",
                self.hidden_size,
                max(factors),
                self.num_attention_heads,
                width,
            )
            self.hidden_size = width

    def _check_image_embedding(self) -> None:
        layer = self.embd_layer if isinstance(self.embd_layer, dict) else {}
        wrong = [
            f"embd_layer.{key}={layer[key]!r}"
            for key, ok in _SUPPORTED_EMBEDDING.items()
            if layer.get(key, ok[0]) not in ok
        ]
        image = self.img_processor or {}
        if image.get("type_feature", "patch") != "patch":
            wrong.append(f"img_processor.type_feature={image['type_feature']!r}")
        if image.get("image_dim_out", self.vision_config.hidden_size) != self.vision_config.hidden_size:
            wrong.append(
                f"img_processor.image_dim_out={image['image_dim_out']} beside vision_config.hidden_size="
                f"{self.vision_config.hidden_size} (add the `vision_config` of the CLIP part to config.json)"
            )
        if wrong:
            raise ValueError(f"This Phi-3.5-V configuration is not supported: {'; '.join(wrong)}.")


__all__ = ["Phi3VConfig"]
