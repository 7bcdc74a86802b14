"""Published VLM2Vec and xVLM2Vec checkpoints: what one consists of, found out without loading its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from .adapters import ADAPTER_CONFIG, MissingBaseError, base_options, read_adapter
from .hub_files import hub_kwargs
from .loading import CheckpointError
from .lora_weights import Adapter
from .published_backbones import PublishedBackbone, published_backbone


@dataclass(frozen=True)
class Published:
    """What a published checkpoint consists of.

    Args:
        backbone: Folder or Hub id of the backbone's weights.
        options: Arguments to load the backbone with.
        adapter: The adapter to merge into the backbone, if any.
        entry: What is known of checkpoints on this backbone.
    """

    backbone: str | os.PathLike[str]
    options: dict[str, Any]
    adapter: Adapter | None
    entry: PublishedBackbone


def find_published(
    source: str | os.PathLike[str], base: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> Published:
    """Finds out what a checkpoint consists of, from the arguments of `from_vlm2vec`, without loading the backbone.

    Raises:
        CheckpointError: It is no published checkpoint, or a part of it is missing.
    """
    adapter = read_adapter(source, base, hub_kwargs(options))
    if adapter is None and base is not None:
        raise CheckpointError(
            f"{os.fspath(source)!r} has no {ADAPTER_CONFIG}, so it is no adapter and needs no base={os.fspath(base)!r}."
        )
    backbone = source if adapter is None else adapter.base
    load_options = dict(options) if adapter is None else base_options(adapter, options)
    trusted = options.get("trust_remote_code")
    try:
        config = AutoConfig.from_pretrained(backbone, trust_remote_code=trusted, **hub_kwargs(load_options))
    except (OSError, ValueError) as error:
        if adapter is None:
            raise
        raise MissingBaseError(adapter.source, adapter.base, adapter.base_revision, error) from error
    return Published(backbone, load_options, adapter, published_backbone(config.model_type, os.fspath(backbone)))
