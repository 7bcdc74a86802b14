"""Contrastive training on several processes: what torch and accelerate do not do there by themselves."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle


def use_all_weights(model: nn.Module) -> RemovableHandle:
    """Adds zero times every trained weight to the vectors of each pass of an embedder.

    A step takes a pass for each side. torch's data parallelism looks at the last one before the backward pass for what
    needs no gradient; without this it would fail where queries have images and positives have none.
    """

    def add_nothing(module: Any, args: Any, output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if torch.is_grad_enabled():
            vectors = output["sentence_embedding"]
            nothing: Any = 0 * sum(weight.sum() for weight in model.parameters() if weight.requires_grad)
            output["sentence_embedding"] = vectors + nothing.to(vectors.dtype)
        return output

    return model.register_forward_hook(add_nothing)


def tell_epochs(loader: DataLoader) -> DataLoader:
    """Hands the number of an epoch on to a sampler of batches that accelerate has divided among processes.

    accelerate tells it to samplers of rows alone, and transformers to the sampler that accelerate has divided, but not
    where batches of a resumed epoch are skipped: that epoch would have the batches of the first one.
    """
    shard: Any = loader.batch_sampler
    if isinstance(shard, BatchSamplerShard) and hasattr(shard.batch_sampler, "set_epoch"):
        shard.set_epoch = shard.batch_sampler.set_epoch
    return loader
