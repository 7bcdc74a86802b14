"""Where things lie in a model: the embedder inside wrappers, its language model, its token embeddings."""

from __future__ import annotations

from typing import Any

from torch import nn


def embedder_of(model: nn.Module) -> Any:
    """The `XVLM2VecModel` inside a `PeftModel`, a wrapped or a bare model.

    Classes are compared by name, as remote code is a second copy of these files, and subclasses count, as sharding
    makes one.

    Raises:
        ValueError: There is none.
    """
    for module in model.modules():
        if any(base.__name__ == "XVLM2VecModel" for base in type(module).__mro__):
            return module
    raise ValueError(f"A {type(model).__name__} holds no XVLM2VecModel; wrap a backbone with from_backbone first.")


def path_of_embeddings(embedder: Any) -> str:
    """Where the token embeddings lie in an `XVLM2VecModel`."""
    embeddings = embedder.get_input_embeddings()
    return next(name for name, module in embedder.named_modules() if module is embeddings)


def language_model_path(embedder: Any) -> str:
    """Path of the innermost module that holds the token embeddings and the layers behind them."""
    path = path_of_embeddings(embedder).rpartition(".")[0]
    while "." in path and not _has_layers(embedder.get_submodule(path)):
        path = path.rpartition(".")[0]
    return path


def language_model(embedder: Any) -> Any:
    """The language model of an `XVLM2VecModel`, of transformers and without its head; of two towers, that of texts."""
    return embedder.get_submodule(language_model_path(embedder))


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(part, nn.ModuleList) and len(part) for part in module.modules())
