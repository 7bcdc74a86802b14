"""What a trainer leaves on the Hub: at every push a repository that loads, with a card that says how."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData
from transformers import TrainingArguments

from xvlm2vec.common.pickles import is_named_pickle, pickle_patterns
from xvlm2vec.common.templates import render_template
from xvlm2vec.modeling.hub_ids import is_path

from .checkpoints import LAST_FILE, PROCESSES_FILE

logger = logging.getLogger(__name__)

NOT_OF_THE_MODEL = (LAST_FILE, PROCESSES_FILE, "README.md")
"""Files of a checkpoint that stay there; its card is PEFT's, of an adapter of nothing in particular."""
TAGS = ("sentence-transformers", "transformers", "xvlm2vec", "feature-extraction", "multimodal", "multilingual")


@cache
def hub() -> HfApi:
    """The Hub that all pushes go through: one `HfApi` sends what runs in the background one after the other.

    Two uploads at a time to a repository may refuse each other.
    """
    return HfApi()


def upload(folder: str | Path, repo_id: str, args: TrainingArguments, message: str, **options: Any) -> Any:
    """Uploads a folder of a training, but for its checkpoints and all pickles.

    What resuming needs (optimizer, random states, `training_args.bin`) are pickles and stays on this machine.

    Args:
        folder: Folder of the model, or of one checkpoint.
        repo_id: A repository that is there.
        args: Give token and revision, if `options` do not.
        message: What the commit says.
        **options: What else `HfApi.upload_folder` takes.

    Returns:
        The commit, or, with `run_as_future`, the upload that goes on.
    """
    ignored = ["_*", "checkpoint-*", *pickle_patterns(Path(folder))]
    places = {"token": args.hub_token, "revision": args.hub_revision, **options}
    return hub().upload_folder(
        repo_id=repo_id, folder_path=str(folder), commit_message=message, ignore_patterns=ignored, **places
    )


def upload_checkpoint(checkpoint: Path, repo_id: str, args: TrainingArguments, message: str) -> list[Any]:
    """Uploads the model of a checkpoint, and what `hub_strategy` wants of the checkpoint itself, in the background.

    Returns:
        The uploads that go on; the folders must stay as they are until these are done.
    """
    output = Path(str(args.output_dir))
    for path in checkpoint.iterdir():
        if path.is_file() and path.name not in NOT_OF_THE_MODEL and not is_named_pickle(path):
            shutil.copyfile(path, output / path.name)
    jobs = [upload(output, repo_id, args, message, run_as_future=True)]
    place = {"checkpoint": "last-checkpoint", "all_checkpoints": checkpoint.name}.get(args.hub_strategy)
    if place is not None:
        message = f"{message}, checkpoint"
        jobs.append(upload(checkpoint, repo_id, args, message, path_in_repo=place, run_as_future=True))
    return jobs


def uploads_what_is_deleted(args: TrainingArguments) -> bool:
    """Whether checkpoints themselves are uploaded, and old ones are deleted to keep `save_total_limit`."""
    return args.hub_strategy in {"checkpoint", "all_checkpoints"} and args.save_total_limit is not None


def report_failures(jobs: Sequence[Any], repo_id: str) -> None:
    """Logs each upload of the background that has failed: a training goes on without it."""
    for job in jobs:
        error = job.exception()
        if error is not None:
            name = type(error).__name__
            logger.error("A push to %s failed: %s: %s. push_to_hub() pushes again.", repo_id, name, error)


def adapter_base(model: Any) -> str | None:
    """Folder or Hub id of the model below an adapter; `None` for a model without one."""
    beside = list(getattr(model, "language_adapters", {}).values())
    if beside:
        return str(beside[0].config["base_model_name_or_path"])
    configs = getattr(model, "peft_config", None)
    return str(next(iter(configs.values())).base_model_name_or_path) if configs else None


def write_card(folder: str | Path, name: str, place: str, base: str | None, loss: str, **data: Any) -> None:
    """Writes a card that says what there is and how to load it; what is not known is left out.

    Args:
        folder: Where `README.md` goes.
        name: Title of the card.
        place: Id of the repository, by which the model is loaded.
        base: Folder or Hub id of the model below an adapter; `None` for a model without one.
        loss: Name of the loss.
        **data: What `ModelCardData` takes; `tags` and `base_model` are completed.
    """
    data["tags"] = list(dict.fromkeys([*TAGS, *(data.get("tags") or ())]))
    data["base_model"] = data.get("base_model") or (base if base and not is_path(base) else None)
    header = ModelCardData(
        library_name="peft" if base else "sentence-transformers", pipeline_tag="feature-extraction", **data
    )
    text = render_template("checkpoint.md", title=name, place=place, base=base, loss=loss)
    ModelCard(f"---\n{header.to_yaml()}\n---\n\n{text}").save(Path(folder) / "README.md")
