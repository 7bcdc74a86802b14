"""Tiny random embedders as users have them on disk, by name.

Other folders of tests put this one on the path first: `sys.path.insert(0, "tests/adoption")`.
"""

from __future__ import annotations

from pathlib import Path

from black_box_forms import BLACK_BOX_FORMS
from text_forms import TEXT_FORMS
from tower_forms import TOWER_FORMS
from vision_language_forms import VISION_LANGUAGE_FORMS

FORMS = TEXT_FORMS | TOWER_FORMS | VISION_LANGUAGE_FORMS | BLACK_BOX_FORMS
# Their stock processors have a part for videos, which needs torchvision.
NEED_TORCHVISION = ["qwen3_vl", "qwen2_5_vl", "smolvlm", "qwen3_vl-embedding"]


def build_st(name: str, folder: Path) -> Path:
    """Writes the embedder of this name into the folder, and returns the folder."""
    FORMS[name](folder)
    return folder
