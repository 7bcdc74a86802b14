"""Documented modules that have moved: for one release the old name still leads to the new one."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "xvlm2vec.modeling.packed": "xvlm2vec.modeling.packing",
    "xvlm2vec.modeling.pictures": "xvlm2vec.modeling.images",
    "xvlm2vec.modeling.vlm2vec": "xvlm2vec.modeling.published_checkpoints",
    "xvlm2vec.trainer.contrastive": "xvlm2vec.trainer.contrastive_trainer",
    "xvlm2vec.trainer.student": "xvlm2vec.trainer.forward_passes",
    "xvlm2vec.trainer.tiny": "xvlm2vec.corpus.emoji.tiny_model",
    "xvlm2vec.trainer.vision": "xvlm2vec.trainer.vision_parameters",
    "xvlm2vec.corpus.emoji_training": "xvlm2vec.corpus.emoji.training",
    "xvlm2vec.corpus.emoji_world": "xvlm2vec.corpus.emoji.world",
    "xvlm2vec.eval.exported": "xvlm2vec.eval.benchmarks.exported",
    "xvlm2vec.eval.mmmeb": "xvlm2vec.eval.benchmarks.mmmeb",
}


class _Moved(MetaPathFinder, Loader):
    """Finds a module under its old name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A specification for the old names alone."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Puts the module of the new name in the place of the empty one that Python made for the old name."""
        old, new = module.__name__, MOVED[module.__name__]
        warnings.warn(f"{old} is {new} now; the old name goes with the next release", DeprecationWarning, stacklevel=5)
        sys.modules[old] = importlib.import_module(new)


def read_old_names() -> None:
    """Makes the old names importable in this process."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
