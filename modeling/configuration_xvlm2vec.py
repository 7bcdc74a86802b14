"""Configuration of an embedding model wrapped around any vision-language backbone.

transformers reads which files belong to a file of remote code from lines like those below, wherever they stand, and
keeps one class for all releases whose folders are called alike and whose files here are the same. The next lines make
all files of a release count: otherwise a model whose code changed elsewhere would run the code of the first that was
loaded. They import nothing.

    from .modeling_xvlm2vec import XVLM2VecModel
    from .processing_xvlm2vec import XVLM2VecProcessor
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_phi3_v import Phi3VConfig
from .families import check_image_settings, check_layout
from .heads import check_heads, width_behind
from .pooling import check_pooling
from .recipe import Recipe

OWN_CONFIGS: dict[str, type[PreTrainedConfig]] = {Phi3VConfig.model_type: Phi3VConfig}

# transformers no longer runs this backbone: ours has to be known wherever its configuration is read. That table is
# for all releases in a process: the first stays, and a nested configuration is made of this release's own class.
if Phi3VConfig.model_type not in CONFIG_MAPPING:
    AutoConfig.register(Phi3VConfig.model_type, Phi3VConfig)


class XVLM2VecConfig(PreTrainedConfig):
    """What an `XVLM2VecModel` is made of.

    Args:
        vlm_config: Configuration (or its dictionary) of the backbone, any vision-language model of transformers.
        pooling: `"lasttoken"` (hidden state of the last attended token), `"mean"` (mean over attended tokens), or
            another of `pooling.POOLINGS`; several joined by `+` give their vectors side by side.
        normalize: Whether `embeddings` have length 1.
        prompts: Named instructions, for example `{"query-de": "...", "document": "..."}`; `encode` and
            sentence-transformers put them before the text.
        matryoshka_dims: Sizes to which an embedding may be truncated, longest first; `None` when the model was not
            trained for that. `encode` warns of other sizes.
        layout: Name in `families` of how prompts are written where it is not the backbone's usual way; see
            `XVLM2VecModel.from_vlm2vec`.
        image_settings: Settings of the processor that change what the model sees of an image (`square`,
            `num_crops`), as in training; `encode` warns of a processor with others. Empty where any will do.
        recipe: How rows are written where it is not the backbone's or the layout's way, see `recipe.Recipe`.
        heads: What stands between pooling and the last normalisation, see `heads.make_heads`; each a dictionary with a
            `type`, and `folder`, where the embedder that it was taken from keeps its weights.
        adopted: Where an embedder was taken over from: `source`, `revision` and `digest` of its files.

    Raises:
        ValueError: For an unknown pooling, layout or image setting, or Matryoshka sizes beyond the hidden size.
    """

    model_type = "xvlm2vec"
    sub_configs: ClassVar[dict[str, type]] = {"vlm_config": AutoConfig}
    is_composition = True

    def __init__(
        self,
        vlm_config: PreTrainedConfig | dict[str, Any] | None = None,
        pooling: str = "lasttoken",
        normalize: bool = True,
        prompts: dict[str, str] | None = None,
        matryoshka_dims: list[int] | None = None,
        layout: str | None = None,
        image_settings: dict[str, int] | None = None,
        recipe: Recipe | dict[str, Any] | None = None,
        heads: list[dict[str, Any]] | None = None,
        adopted: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(vlm_config, dict):
            if "model_type" not in vlm_config:
                raise ValueError("`vlm_config` names no `model_type`, so its backbone is unknown.")
            values = {key: value for key, value in vlm_config.items() if key != "model_type"}
            config_class = OWN_CONFIGS.get(vlm_config["model_type"])
            vlm_config = (
                config_class(**values) if config_class else AutoConfig.for_model(vlm_config["model_type"], **values)
            )
        self.vlm_config = vlm_config
        self.pooling = check_pooling(pooling)
        self.heads = check_heads(heads or ())
        self.recipe = recipe.to_dict() if isinstance(recipe, Recipe) else recipe
        if self.recipe is not None:
            Recipe.from_dict(self.recipe)
        self.adopted = dict(adopted or {})
        self.normalize = normalize
        self.prompts = dict(prompts or {})
        self.matryoshka_dims = sorted(matryoshka_dims, reverse=True) if matryoshka_dims else None
        self.layout = check_layout(layout) if layout is not None else None
        if "picture_settings" in kwargs:
            _warn_of_old_name()
            image_settings = image_settings or kwargs["picture_settings"]
            del kwargs["picture_settings"]
        self.image_settings = check_image_settings(image_settings or {})
        # The base class sets the attention implementation of all sub-configurations: hand on what the backbone has.
        kwargs.setdefault("attn_implementation", getattr(vlm_config, "_attn_implementation", None))
        super().__init__(**kwargs)
        self._check_matryoshka_dims()

    def _check_matryoshka_dims(self) -> None:
        if self.matryoshka_dims and self.vlm_config is not None:
            misfits = [size for size in self.matryoshka_dims if not 0 < size <= self.hidden_size]
            if misfits:
                raise ValueError(f"matryoshka_dims {misfits} do not fit a hidden size of {self.hidden_size}.")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The configuration of the backbone's language model (the default would return the wrapper itself)."""
        if self.vlm_config is None:
            return self
        return self.vlm_config.get_text_config()

    @property
    def two_towers(self) -> bool:
        """Whether texts and images have a tower each."""
        return bool((self.recipe or {}).get("two_towers"))

    @property
    def legacy_rope_by_batch(self) -> bool:
        """Whether a Phi-3.5-V backbone has the RoPE fault of the original; kept in `vlm_config`, which it reads.

        Raises:
            ValueError: On setting it for another backbone, which would not act on it.
        """
        return getattr(self.vlm_config, "legacy_rope_by_batch", False)

    @legacy_rope_by_batch.setter
    def legacy_rope_by_batch(self, value: bool) -> None:
        if self.vlm_config is None or self.vlm_config.model_type != Phi3VConfig.model_type:
            raise ValueError("Only a Phi-3.5-V backbone has a `legacy_rope_by_batch`.")
        self.vlm_config.legacy_rope_by_batch = value

    @property
    def picture_settings(self) -> dict[str, int]:
        """The old name of `image_settings`."""
        _warn_of_old_name()
        return self.image_settings

    @property
    def hidden_size(self) -> int:
        """Width of `pooler_output` and of an uncut embedding; sentence-transformers reads it."""
        return width_behind(self.heads, self._pooled_size())

    def _pooled_size(self) -> int:
        """Values of a vector behind the pooling."""
        if self.two_towers:
            projected = getattr(self.vlm_config, "projection_dim", None)
            return projected or self.vlm_config.text_config.projection_size  # type: ignore[union-attr]
        return self.get_text_config().hidden_size * len(self.pooling.split("+"))


def _warn_of_old_name() -> None:
    warnings.warn(
        "`picture_settings` is now `image_settings`; the old name, in config.json, too, is read for one release.",
        DeprecationWarning,
        stacklevel=3,
    )
