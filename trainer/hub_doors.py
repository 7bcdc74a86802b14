"""What a trainer leaves on the Hub: at every push a repository that loads, with a card that says how."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import transformers.trainer as stock
from huggingface_hub import HfApi, ModelCard, ModelCardData
from torch import nn

from xvlm2vec.common.pickles import pickle_patterns

from .sharding import ShardingTrainer

logger = logging.getLogger(__name__)

COMPANIONS = ("*.py", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
"""What a saved model needs beside weights and configuration, and transformers does not copy from a checkpoint."""
TAGS = ("sentence-transformers", "transformers", "xvlm2vec", "feature-extraction", "multimodal", "multilingual")


class PicklelessApi(HfApi):
    """A client of the Hub that leaves pickles where they are."""

    def upload_folder(  # type: ignore[override]
        self, *, folder_path: str | Path, ignore_patterns: list[str] | None = None, **other: Any
    ) -> Any:
        """Uploads what is no pickle."""
        ignored = [*(ignore_patterns or []), *pickle_patterns(Path(folder_path))]
        return super().upload_folder(folder_path=folder_path, ignore_patterns=ignored, **other)


@contextmanager
def without_pickles() -> Iterator[None]:
    """Lets the pushes of transformers leave pickles out, for which it has no setting."""
    given = stock.hf_api
    stock.hf_api = _pickleless_api
    try:
        yield
    finally:
        stock.hf_api = given


@lru_cache(maxsize=1)
def _pickleless_api() -> PicklelessApi:
    """One client for all pushes, which it makes one after the other."""
    logger.info(
        "Pickles are not pushed: what resuming needs (optimizer, random states, training_args.bin) stays in the output "
        "folder of this machine."
    )
    return PicklelessApi()


class PushingTrainer(ShardingTrainer):
    """A trainer whose pushes, also those during the training, can be loaded through every door.

    A model is pushed whole, with its code, its processor and the files of sentence-transformers. A model with an
    adapter is pushed as the adapter alone, which `PeftModel` puts on the base that it names. Pickles are never pushed.

    Attributes:
        distillation_loss: What the card names.
    """

    distillation_loss: nn.Module

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository, unless nobody could load what would be pushed there.

        Raises:
            ValueError: The model below the adapter is a folder here, whose path would be published.
        """
        base = adapter_base(self.trained)
        if base and not is_hub_id(base):
            raise ValueError(
                f"the base of the adapter is the folder {base}, which nobody else has: push the base first and load it "
                "by its id, or train without push_to_hub and use `xvlm2vec release`, which pushes both."
            )
        super().init_hf_repo(token=token, private=private)

    def push_to_hub(self, *arguments: Any, **settings: Any) -> Any:
        """Pushes the model as it is now, without pickles; see `transformers.Trainer.push_to_hub`.

        Raises:
            ValueError: The model below the adapter is a folder here.
        """
        with without_pickles():
            return super().push_to_hub(*arguments, **settings)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Pushes a checkpoint; its code and the files of sentence-transformers are part of the push."""
        if self.is_world_process_zero():
            copy_companions(Path(checkpoint_folder), Path(str(self.args.output_dir)))
        with without_pickles():
            super()._push_from_checkpoint(checkpoint_folder)

    def create_model_card(  # type: ignore[override]
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        **other: Any,
    ) -> None:
        """Writes a card that says what there is and how to load it; what is not known is left out.

        Args:
            language: Codes of the languages that it is meant for.
            license: Of the weights, as the Hub spells it.
            tags: Further tags.
            model_name: Its name; by default that of the repository.
            **other: What else `transformers.Trainer` takes; `dataset` and `finetuned_from` are used.
        """
        if not self.is_world_process_zero():
            return
        given = [tags] if isinstance(tags, str) else list(tags or [])
        base = adapter_base(self.trained)
        place = getattr(self, "hub_model_id", None) or model_name or Path(str(self.args.output_dir)).name
        data = ModelCardData(
            language=language,
            license=license,
            library_name="peft" if base else "sentence-transformers",
            pipeline_tag="feature-extraction",
            base_model=other.get("finetuned_from") or (base if base and is_hub_id(base) else None),
            datasets=other.get("dataset"),
            tags=list(dict.fromkeys([*TAGS, *given])),
        )
        text = card_text(model_name or place.rpartition("/")[2], place, base, type(self.distillation_loss).__name__)
        ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").save(Path(str(self.args.output_dir)) / "README.md")


def copy_companions(checkpoint: Path, folder: Path) -> None:
    """Copies what a saved model needs beside weights and configuration."""
    for pattern in COMPANIONS:
        for path in checkpoint.glob(pattern):
            shutil.copyfile(path, folder / path.name)


def adapter_base(model: Any) -> str | None:
    """Folder or Hub id of the model below an adapter; `None` for a model without one."""
    configs = getattr(model, "peft_config", None)
    return str(next(iter(configs.values())).base_model_name_or_path) if configs else None


def is_hub_id(place: str) -> bool:
    """Whether a place is an id on the Hub rather than a folder."""
    return place.count("/") == 1 and not place.startswith((".", "/", "~")) and not Path(place).exists()


def card_text(name: str, place: str, base: str | None, loss: str) -> str:
    """The text of a training's card: what it is, and the lines that load it."""
    what = f"An adapter (PEFT) on `{base}`" if base else "An embedding model for text and images"
    if base:
        code = (
            "from peft import PeftModel\nfrom transformers import AutoModel, AutoProcessor\n\n"
            f'base = AutoModel.from_pretrained("{base}", trust_remote_code=True)\n'
            f'processor = AutoProcessor.from_pretrained("{base}", trust_remote_code=True)\n'
            f'model = PeftModel.from_pretrained(base, "{place}").eval()\n'
            'embeddings = model(**processor(text=["ein rotes Bild"])).embeddings'
        )
    else:
        code = (
            "from sentence_transformers import SentenceTransformer\n\n"
            f'model = SentenceTransformer("{place}", trust_remote_code=True)\n'
            'embeddings = model.encode(["ein rotes Bild", "a red image"])'
        )
    return (
        f"# {name}\n\n{what}, made multilingual by self-knowledge distillation (`{loss}`, "
        f"[arXiv 2503.09313](https://arxiv.org/abs/2503.09313)).\n\n```python\n{code}\n```\n"
    )
