"""Embedders that are taken over by what a user calls them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from xvlm2vec.common.adoption.adopt import Adopted
    from xvlm2vec.common.adoption.extract import EmbedderRecipe

logger = logging.getLogger(__name__)


def adopt_with_flags(flags: argparse.Namespace, recipe: EmbedderRecipe | None) -> Adopted:
    """Takes an embedder over as the flags of `xvlm2vec adopt` say.

    Raises:
        ValueError: It cannot be taken over, or a row of the proof differs.
        FileNotFoundError: There is no such model.
    """
    import torch

    from xvlm2vec.common.adoption.adopt import adopt

    return adopt(
        flags.model,
        revision=flags.revision,
        recipe=recipe,
        dtype=getattr(torch, flags.dtype),
        device=flags.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        trust_remote_code=flags.trust_remote_code,
        image_first=flags.order.startswith("image"),
        pooling=flags.pooling,
    )


def adopt_model(source: str, revision: str | None = None, trust_remote_code: bool = False, **options: Any) -> Adopted:
    """Takes an embedder over before a command uses it, proven in float32, and says so in the log.

    Args:
        source: Folder or Hub id.
        revision: Branch, tag or commit of a Hub id.
        trust_remote_code: Whether code in its folder may be run.
        **options: Options of `from_pretrained`; of these `dtype`, to which the proven model is cast, is known.

    Raises:
        ValueError: It cannot be taken over, a row of the proof differs, or an option is unknown.
    """
    import torch

    from xvlm2vec.common.adoption.adopt import adopt

    dtype = options.pop("dtype", None)
    if options:
        raise ValueError(
            f"{source} is taken over as it is, which knows no {', '.join(options)}; `xvlm2vec adopt` it first."
        )
    adopted = adopt(source, revision=revision, trust_remote_code=trust_remote_code)
    for note in adopted.recipe.notes:
        logger.warning("%s: %s", source, note)
    if adopted.proof is not None:
        rows, worst = adopted.proof.rows, adopted.proof.worst
        logger.info("%s is taken over as it is, proven on %d rows (1 - cosine at most %.1e)", source, rows, worst)
    model: Any = adopted.model
    wanted = model.config.vlm_config.dtype if dtype in ("auto", None) else dtype
    model.to(getattr(torch, wanted) if isinstance(wanted, str) else wanted or torch.float32)
    return adopted
