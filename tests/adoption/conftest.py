"""Tiny embedders in the saved form of sentence-transformers, built at first use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the builders are several files beside this one
from saved_forms import build_st


@pytest.fixture(scope="session")
def st_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a saved embedder; tests that change it copy it first."""
    built: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in built:
            built[name] = build_st(name, tmp_path_factory.mktemp("saved") / name)
        return built[name]

    return get


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Three noisy images of different shapes."""
    random = np.random.default_rng(0)
    shapes = [(40, 40, 3), (30, 60, 3), (64, 32, 3)]
    return [Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]
