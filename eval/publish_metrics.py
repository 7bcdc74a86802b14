"""The metrics of this package as modules of the `evaluate` library: self-contained folders, here or on the Hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

MODULES = ("hit_at_k", "mean_rank_variance", "parity_gap")
_SOURCE = Path(__file__).with_name("modules")
_SHARED = (_SOURCE / "app.py", _SOURCE / "requirements.txt", Path(__file__).with_name("metrics.py"))


def write_metric_module(name: str, folder: str | Path) -> Path:
    """Write a metric as a folder that `evaluate.load` takes, without this package.

    Args:
        name: One of `MODULES`.
        folder: Where; the module becomes `folder/name/name.py`, beside its card and the page it has on the Hub.

    Returns:
        `folder/name`, ready for `evaluate.load` and for the Hub.

    Raises:
        ValueError: There is no such metric.
        FileExistsError: There is something of this name already.
    """
    if name not in MODULES:
        raise ValueError(f"there is no metric {name!r}; choose from {', '.join(MODULES)}")
    target = Path(folder) / name
    if target.exists():
        raise FileExistsError(f"{target} is there already; remove it or choose another folder")
    shutil.copytree(_SOURCE / name, target, ignore=shutil.ignore_patterns("__pycache__"))
    for shared in _SHARED:
        shutil.copy(shared, target / shared.name)
    return target


def push_metric_module(name: str, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a metric to the Hub as a Space, the form in which `evaluate.load(repo_id)` looks for it.

    Args:
        name: One of `MODULES`.
        repo_id: `namespace/name`; the name must be that of the metric, because `evaluate` looks for `name.py`.
        private: Whether only the namespace may see it, if it is new.
        token: Token of the Hub (default: that of the login).

    Returns:
        Address of the Space.

    Raises:
        ValueError: There is no such metric, or the Space is named otherwise.
    """
    from huggingface_hub import HfApi

    if repo_id.rpartition("/")[2] != name:
        raise ValueError(f"the Space must be named {name!r}, as in NAMESPACE/{name}, not {repo_id!r}")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_metric_module(name, scratch)
        url = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repo_id, repo_type="space", commit_message=f"Metric {name}")
    return str(url)
