"""What a forward pass of the embedding model gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class XVLM2VecOutput(ModelOutput):
    """Output of `XVLM2VecModel`.

    Args:
        embeddings: `(B, D)`, the final vectors, of length 1 if `config.normalize`.
        pooler_output: `(B, H)`, pooled, through the heads, and un-normalised: what self-distillation compares.
        last_hidden_state: `(B, L, H)`; `None` of a model with two towers.
        image_means: `(B, H)`, only of a pack and if asked for: the mean state of each row's images and the token
            behind them; of its first token where there is no image.
    """

    embeddings: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    image_means: torch.Tensor | None = None
