"""xVLM2Vec: image and text search in every language.

Public names are loaded on first use, so that ``import xvlm2vec`` and ``xvlm2vec --help`` stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.old_modules import read_old_names

if TYPE_CHECKING:
    from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel, XVLM2VecOutput
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
    from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
    from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer

__version__ = "0.1.0"

_HOMES = {
    "XVLM2VecConfig": "xvlm2vec.modeling.configuration_xvlm2vec",
    "XVLM2VecModel": "xvlm2vec.modeling.modeling_xvlm2vec",
    "XVLM2VecOutput": "xvlm2vec.modeling.modeling_xvlm2vec",
    "XVLM2VecProcessor": "xvlm2vec.modeling.processing_xvlm2vec",
    "SelfDistillationConfig": "xvlm2vec.trainer.distillation_config",
    "SelfDistillationTrainer": "xvlm2vec.trainer.distillation_trainer",
}

__all__ = [
    "SelfDistillationConfig",
    "SelfDistillationTrainer",
    "XVLM2VecConfig",
    "XVLM2VecModel",
    "XVLM2VecOutput",
    "XVLM2VecProcessor",
    "__version__",
]

read_old_names()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xvlm2vec' has no attribute {name!r}; public names: {', '.join(__all__)}")
    importlib.import_module("xvlm2vec.modeling")  # registers the Auto classes beside whatever is asked for
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
