"""An embedder that no recipe describes, run by its own code: what a training needs of a model and a processor.

Its modules are somebody's own code, or stock ones in an order that a recipe does not know (a `Router`). Only a row and
its vector are known: nothing of a row is shared with another, and no state between the two can be asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from safetensors.torch import save_file
from torch import nn
from transformers import BatchFeature, PreTrainedConfig

from xvlm2vec.common.files import write_json
from xvlm2vec.modeling.concurrency import evaluation_mode
from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.families import Family
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.output import XVLM2VecOutput
from xvlm2vec.modeling.pooling import chosen_dim, truncate_embeddings
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.recipe import Recipe, kind_of
from xvlm2vec.modeling.rows import TextImageRow, make_rows

from .oracle import Oracle
from .sources import AdoptionError

KIND = "sentence_transformers"
"""What stands for the `model_type` of a backbone."""
WEIGHTS = "model.safetensors"
FORMS = {"text": "{instruction}{text}", "image": "{images}", "image+text": "{images}{text}"}
"""Stand for the kinds of rows that are taken; how they are written only the model's own code knows."""
IMAGE_TOKENS = 256
"""What an image is taken to cost, in tokens, where batches are sized."""


class ChainConfig(PreTrainedConfig):
    """What is known of a chain of modules: the size of its vectors.

    Args:
        hidden_size: Values of a vector.
    """

    model_type = KIND

    def __init__(self, hidden_size: int = 1, **kwargs: Any) -> None:
        self.hidden_size = hidden_size
        super().__init__(**kwargs)


class Chain(nn.Module):
    """A `SentenceTransformer` in the place of a backbone.

    Args:
        modules: The `SentenceTransformer`.
        hidden_size: Values of its vectors.
    """

    def __init__(self, modules: Any, hidden_size: int) -> None:
        super().__init__()
        self.modules_of_source = modules
        self.config = ChainConfig(hidden_size)

    def forward(self, features: Mapping[str, Any]) -> torch.Tensor:
        """Vectors `(B, D)` of rows of one kind. Modules write into what they get, so they get a copy."""
        copied = {name: value.clone() if torch.is_tensor(value) else value for name, value in features.items()}
        vectors: torch.Tensor = self.modules_of_source(copied)["sentence_embedding"]
        return vectors


@dataclass
class Parts:
    """A batch as the model's own code prepared it: rows of one kind and one prompt make a part.

    Attributes:
        features: What its `preprocess` gave for each part.
        places: The places of each part's rows in the batch.
    """

    features: list[dict[str, Any]]
    places: list[list[int]]

    @property
    def tokens(self) -> int:
        """Tokens of all rows, or the rows themselves where the code shows no tokens."""
        counts = [token_counts(part, len(rows)) for part, rows in zip(self.features, self.places, strict=True)]
        return sum(sum(count) for count in counts)

    def to(self, device: torch.device | str) -> Parts:
        """The same on another device."""
        return Parts([send_to_device(part, device) for part in self.features], self.places)


class BlackBoxModel(XVLM2VecModel):
    """An embedder whose vectors come from its own code, in the form in which trainers take one.

    Args:
        config: Its configuration.
        chain: Its modules.
    """

    is_black_box = True

    def __init__(self, config: XVLM2VecConfig, chain: Chain) -> None:
        super().__init__(config, chain)  # type: ignore[arg-type]  # no model of transformers, and needs to be none

    @property
    def modules_of_source(self) -> Any:
        """The `SentenceTransformer`."""
        return self.backbone.modules_of_source

    def init_weights(self) -> None:
        """Nothing: all weights are there, and transformers would draw those anew that it did not load itself."""

    def forward(self, parts: Parts, **inputs: Any) -> XVLM2VecOutput:  # type: ignore[override]
        """Embeds a batch as the processor made it, part by part.

        Args:
            parts: The batch.
            **inputs: Must be empty; the base class takes more.
        """
        vectors = torch.cat([self.backbone(part) for part in parts.to(self.device).features])
        order = torch.tensor([place for places in parts.places for place in places], device=vectors.device)
        return self._result(vectors[order.argsort()])

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Writes the weights alone, as checkpoints need them; a release gives back the embedder's own folder."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = kwargs.get("state_dict") or self.state_dict()
        # Tied weights share their memory, which safetensors refuses.
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in state.items()}, folder / WEIGHTS)

    def encode(  # type: ignore[override]
        self,
        text: str | Sequence[str | None] | None = None,
        images: Any = None,
        instruction: str | None = None,
        dim: int | None = None,
        truncate_dim: int | None = None,
        convert_to_tensor: bool = False,
        batch_size: int = 32,
    ) -> np.ndarray | torch.Tensor:
        """Embeds rows of text, images, or both, as `XVLM2VecModel.encode` does; other arguments have no meaning here.

        Args:
            text: As there, like the others.
            images: Likewise.
            instruction: Likewise; the model's own code says where it stands.
            dim: Likewise.
            truncate_dim: Likewise.
            convert_to_tensor: Likewise.
            batch_size: Rows of a forward pass.
        """
        dim = chosen_dim(dim, truncate_dim, self.config)
        rows, single = make_rows(text, images, self.config.prompts.get(instruction or "", instruction))
        parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        with torch.inference_mode(), evaluation_mode(self):
            embedded = [self(**self.processor.prepare(part)[0]).embeddings.float().cpu() for part in parts]
        vectors = torch.cat(embedded or [torch.zeros(0, self.config.hidden_size)])
        vectors = vectors if dim is None else truncate_embeddings(vectors, dim, self.config.normalize)
        result = vectors[0] if single else vectors
        return result if convert_to_tensor else result.numpy()


class NoTokenizer:
    """Stands where other processors have a tokenizer, of which trainers ask this."""

    bos_token_id = eos_token_id = pad_token_id = padding_side = None


class OwnCode:
    """Stands where others have a backbone's processor: the model's own code shows no tokenizer and none of images."""

    tokenizer = NoTokenizer()
    image_processor = None


class BlackBoxProcessor(XVLM2VecProcessor):
    """Prepares rows by the model's own `preprocess`.

    Args:
        oracle: The embedder.
        kinds: The kinds of rows that it takes.
        digest: SHA-256 of its files, code included.
    """

    def __init__(self, oracle: Oracle, kinds: frozenset[str], digest: str) -> None:
        super().__init__(OwnCode(), KIND, recipe=recipe_of_kinds(kinds))  # type: ignore[arg-type]
        self.oracle, self.digest = oracle, digest

    @cached_property
    def family(self) -> Family:
        """None that is known."""
        return Family()

    def prepare(
        self,
        rows: Sequence[TextImageRow],
        *,
        numbers: Sequence[Any] | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> tuple[BatchFeature, int]:
        """Prepares a batch; what the model's own code cuts, nobody counts.

        Args:
            rows: The rows.
            numbers: How errors number the rows; by default from 0.
            max_length: Only `None`: the model's own code cuts where it cuts.
            **options: None is known.

        Returns:
            `parts`, see `Parts`, and 0.

        Raises:
            ValueError: A row is of a kind that the model does not take, or an option is given.
            ImageError: An image cannot be read.
        """
        if max_length is not None or options:
            raise ValueError(f"this model prepares rows by its own code, which takes no {[*options] or 'max_length'}.")
        numbers = range(len(rows)) if numbers is None else numbers
        alike: dict[tuple[str, str | None], list[int]] = {}
        for place, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            alike.setdefault((self._kind(row, number), self.oracle.prompt(row)), []).append(place)
        features = [
            self._features([self._loaded(rows[place], numbers[place]) for place in places], prompt)
            for (_, prompt), places in alike.items()
        ]
        return BatchFeature({"parts": Parts(features, list(alike.values()))}), 0

    def row_lengths(self, rows: Sequence[TextImageRow]) -> list[int]:
        """Tokens of each row as far as the model's own code shows them, a guess for images; batches are sized by it."""
        texts = [TextImageRow(row.text or "-", (), row.instruction) for row in rows]
        counts = [0] * len(rows)
        parts: Parts = self.prepare(texts)[0]["parts"]
        for features, places in zip(parts.features, parts.places, strict=True):
            for place, count in zip(places, token_counts(features, len(places)), strict=True):
                counts[place] = count + IMAGE_TOKENS * len(rows[place].images)
        return counts

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Writes which embedder's code prepares the rows: that code lies in its own folder."""
        path = Path(save_directory) / "black_box.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"digest": self.digest})
        return [str(path)]

    def _kind(self, row: TextImageRow, number: Any) -> str:
        kind = kind_of(row)
        if kind not in self.recipe.forms:
            raise ValueError(
                f"row {number} is of the kind {kind!r}, and this model takes {', '.join(self.recipe.forms)}."
            )
        return kind

    def _loaded(self, row: TextImageRow, number: Any) -> Any:
        """A row as sentence-transformers takes it, its images read."""
        return self.oracle.row(TextImageRow(row.text, tuple(self._load(row, number)), row.instruction))

    def _features(self, rows: list[Any], prompt: str | None) -> dict[str, Any]:
        with self.lock:
            return dict(self.oracle.model.preprocess(rows, prompt=prompt))


def token_counts(features: Mapping[str, Any], rows: int) -> list[int]:
    """Tokens of each row of a part, by its mask, else by its width; 1 where the code shows no tokens."""
    mask, ids = features.get("attention_mask"), features.get("input_ids")
    if torch.is_tensor(mask) and mask.ndim == 2 and len(mask) == rows:
        return [int(count) for count in mask.sum(dim=1)]
    if torch.is_tensor(ids) and ids.ndim == 2 and len(ids) == rows:
        return [ids.shape[1]] * rows
    if torch.is_tensor(ids):  # of all rows in one line, as bags of words are
        return [-(-ids.numel() // rows)] * rows
    return [1] * rows


def recipe_of_kinds(kinds: frozenset[str]) -> Recipe:
    """A recipe that says no more than which kinds of rows there are."""
    return Recipe({kind: form for kind, form in FORMS.items() if kind in kinds})


def kinds_of_modules(modules: Any) -> frozenset[str]:
    """The kinds of rows that a `SentenceTransformer` says it takes.

    Raises:
        AdoptionError: It takes no texts.
    """
    both = modules.supports(("image", "text")) or modules.supports(("text", "image"))
    known = {"text": modules.supports("text"), "image": modules.supports("image"), "image+text": both}
    if not known["text"]:
        raise AdoptionError(f"it takes {', '.join(map(str, modules.modalities))}, and no texts.")
    return frozenset(kind for kind, is_taken in known.items() if is_taken)


def black_box(
    oracle: Oracle, hidden_size: int, prompts: dict[str, str], adopted: dict[str, Any]
) -> tuple[BlackBoxModel, BlackBoxProcessor]:
    """The model and the processor around an embedder, which share its modules.

    Args:
        oracle: The embedder.
        hidden_size: Values of its vectors.
        prompts: Its named prompts.
        adopted: As `XVLM2VecConfig.adopted`.
    """
    kinds = kinds_of_modules(oracle.model)
    chain = Chain(oracle.model, hidden_size)
    config = XVLM2VecConfig(
        vlm_config=chain.config,
        normalize=False,
        prompts=prompts,
        recipe=recipe_of_kinds(kinds),
        adopted={**adopted, "truncate_dim": oracle.truncate_dim},
    )
    model = BlackBoxModel(config, chain)
    model.processor = processor = BlackBoxProcessor(oracle, kinds, adopted["digest"])
    model.config.name_or_path = model.name_or_path = adopted["source"]
    model.eval()
    return model, processor
