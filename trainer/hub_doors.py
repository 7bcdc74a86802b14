"""What a trainer leaves on the Hub: at every push a repository that loads, with a card that says how."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from xvlm2vec.trainer.sharding import ShardingTrainer

logger = logging.getLogger(__name__)

COMPANIONS = ("*.py", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
"""What a saved model needs beside weights and configuration, and transformers does not copy from a checkpoint."""
TAGS = ("sentence-transformers", "transformers", "xvlm2vec", "feature-extraction", "multimodal", "multilingual")


class PushingTrainer(ShardingTrainer):
    """A trainer whose pushes, also those during the training, can be loaded through every door.

    A model is pushed whole, with its code, its processor and the files of sentence-transformers. A model with an
    adapter is pushed as the adapter alone, which `PeftModel` puts on the base that it names.

    Attributes:
        distillation_loss: What the card names.
    """

    distillation_loss: nn.Module

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Pushes a checkpoint; its code and the files of sentence-transformers are part of the push."""
        if self.is_world_process_zero():
            copy_companions(Path(checkpoint_folder), Path(str(self.args.output_dir)))
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
        if base and not is_hub_id(base):
            logger.warning(
                "The adapter is pushed, but its base is the folder %s, which nobody else has: push the base, too, or "
                "use `xvlm2vec release --adapter`, which does.",
                base,
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
    what = f"An adapter (PEFT) on `{base}`" if base else "An embedding model for text and pictures"
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
            'embeddings = model.encode(["ein rotes Bild", "a red picture"])'
        )
    return (
        f"# {name}\n\n{what}, made multilingual by self-knowledge distillation (`{loss}`, "
        f"[arXiv 2503.09313](https://arxiv.org/abs/2503.09313)).\n\n```python\n{code}\n```\n"
    )
