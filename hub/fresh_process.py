"""Loads a release in a fresh process where this package cannot be imported, and gets its vectors back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file

from .golden import Golden

SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")

Vectors = dict[str, dict[str, torch.Tensor]]
"""For each dtype the vectors `(N, D)` of each way to batch the rows."""


class LoadingFailed(RuntimeError):
    """A release could not be loaded in one way; the message is the output of the process."""


def loader_job(
    golden: Golden,
    source: str,
    loader: str,
    dtypes: Sequence[str],
    device: str,
    *,
    revision: str | None = None,
    base: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """What a process is to do.

    Args:
        golden: The rows to embed, and how they were embedded when they were written down.
        source: Folder or Hub id of the release.
        loader: How it is loaded, one of `loader_check.LOADERS`.
        dtypes: In which dtypes.
        device: Where.
        revision: Revision of a Hub id.
        base: Folder of the model below an adapter.
        cache_dir: Where a Hub id was downloaded to.
    """
    return {
        "source": source,
        "revision": revision,
        "base": base,
        "cache": str(cache_dir or constants.HF_HUB_CACHE),
        "loader": loader,
        "dtypes": list(dtypes),
        "device": device,
        "threads": torch.get_num_threads(),
        "images": sorted({name for row in golden.rows for name in row.images}),
        "rows": [asdict(row) for row in golden.rows],
        "languages": golden.checked_languages,
        "two_towers": golden.made_with.get("two_towers", False),
        "padding_side": golden.made_with.get("padding_side"),
        "text_first": golden.made_with.get("text_first", False),
    }


def run_job(job: dict[str, Any], images: Mapping[str, Image.Image]) -> tuple[Vectors, dict[str, Any]]:
    """Does a job in a process of its own.

    Args:
        job: What `loader_job` made.
        images: The images of the rows by their names.

    Returns:
        The vectors, and facts about the model.

    Raises:
        LoadingFailed: The release does not load in this way.
    """
    with tempfile.TemporaryDirectory(prefix="xvlm2vec-verify-") as name:
        workplace = Path(name)
        for title, image in images.items():
            image.save(workplace / f"{title}.png")
        (workplace / "job.json").write_text(json.dumps(job), encoding="utf-8")
        child = _start(workplace, job["cache"])
        if child.returncode != 0:
            output = f"{child.stdout}{child.stderr}".strip()
            raise LoadingFailed(f"loading by {job['loader']} failed with exit code {child.returncode}:\n{output}")
        vectors = {dtype: load_file(workplace / f"{dtype}.safetensors") for dtype in job["dtypes"]}
        return vectors, json.loads((workplace / "result.json").read_text(encoding="utf-8"))


def _start(workplace: Path, cache: str) -> subprocess.CompletedProcess[str]:
    """Starts `loader_check.py` by its path in an isolated interpreter: no `PYTHONPATH`, no script folder."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES},
        "HF_HUB_CACHE": cache,
        "HF_TOKEN_PATH": str(workplace / "no-token"),  # the code of a release has no use for one
        "HF_HUB_OFFLINE": "1",  # a release must be complete in itself
        "HF_MODULES_CACHE": str(workplace / "modules"),  # code cached by an earlier load must not stand in
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-I", str(Path(__file__).with_name("loader_check.py")), str(workplace)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
