"""The embedder's own `SentenceTransformer`, which says what is right."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING

from xvlm2vec.modeling.rows import TextImageRow

from .sources import AdoptionError, Source, read_object

MISSING_LIBRARY = (
    "its processor needs torchvision, which does not import here: pip install 'xvlm2vec[vision]' into an environment "
    "whose torch has a torchvision (say torch 2.14.1 with torchvision 0.29.1)"
)


@dataclass
class Oracle:
    """An embedder as sentence-transformers runs it, one row at a time.

    Attributes:
        model: The `SentenceTransformer`.
        image_first: Whether the image stands before the text in rows of both.
        truncate_dim: The size to which the folder cuts vectors; the proof compares whole ones.
        trust_remote_code: Whether code in its folder may be run.
    """

    model: Any
    image_first: bool = True
    truncate_dim: int | None = None
    trust_remote_code: bool = False

    @property
    def transformer(self) -> Any:
        """The first module."""
        return self.model[0]

    @property
    def is_chat(self) -> bool:
        """Whether rows go through a chat template."""
        return "message" in self.transformer.modality_config

    @property
    def options(self) -> dict[str, Any]:
        """The defaults of the processor's calls, by modality."""
        return {key: dict(value) for key, value in (self.transformer.processing_kwargs or {}).items()}

    def row(self, row: TextImageRow) -> Any:
        """A row as `encode` takes it."""
        if not row.images:
            return row.text
        shown: Any = list(row.images) if len(row.images) > 1 else row.images[0]
        if not row.text:
            return {"image": shown}
        parts = {"image": shown, "text": row.text}
        return parts if self.image_first else dict(reversed(parts.items()))

    def vector(self, row: TextImageRow, batch: list[TextImageRow] | None = None) -> torch.Tensor:
        """The row's vector `(D,)` float32, whole, from `encode` alone, or as the first of a batch."""
        rows = [self.row(each) for each in (row, *(batch or ()))]
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            vectors = self.model.encode(
                rows,
                batch_size=len(rows),
                convert_to_tensor=True,
                show_progress_bar=False,
                **self._prompt(row),
            )
        return vectors[0].float().cpu()

    def ids(self, row: TextImageRow) -> list[int] | None:
        """The tokens that the row becomes; `None` where there are none to see, as of an image in a tower of its own."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            features = self.transformer.preprocess([self.row(row)], prompt=self.prompt(row))
        if "input_ids" not in features:
            return None
        ids = features["input_ids"][0]
        mask = features.get("attention_mask")
        return (ids if mask is None else ids[mask[0].bool()]).tolist()

    def prompt(self, row: TextImageRow) -> str | None:
        """The prompt that a row is encoded with: its own, or the default one."""
        if row.instruction is not None:
            return row.instruction
        name = self.model.default_prompt_name
        return self.model.prompts[name] if name else None

    def render(self, row: TextImageRow) -> str:
        """The string of a row before images are expanded, from the chat template."""
        formatter, transformer = self.transformer.input_formatter, self.transformer
        modality, inputs, _ = formatter.parse_inputs([self.row(row)])
        _, inputs = formatter.batch_to_message(modality, inputs)
        messages, prompt = inputs["message"], self.prompt(row)
        if prompt:
            messages = formatter.prepend_prompt_to_messages(messages, prompt)
        dropped = {"restore_suffix", "truncation", "max_length", "padding", "return_tensors"}
        chat = {key: value for key, value in self.options.get("chat_template", {}).items() if key not in dropped}
        return transformer.processor.apply_chat_template(messages[0], tokenize=False, **chat)

    def _prompt(self, row: TextImageRow) -> dict[str, Any]:
        return {} if row.instruction is None else {"prompt": row.instruction}


def load_oracle(
    source: Source,
    *,
    dtype: torch.dtype,
    device: str,
    trust_remote_code: bool,
    image_first: bool,
    pooling: str | None = None,
) -> Oracle:
    """Loads an embedder with sentence-transformers, in one dtype.

    Args:
        source: The embedder.
        dtype: Of all its modules.
        device: Where it runs.
        trust_remote_code: Whether code in its folder may be run.
        image_first: Whether the image stands before the text in rows of both.
        pooling: Of a plain model, whose files do not say it; vectors then have length 1.

    Raises:
        AdoptionError: sentence-transformers cannot load it; the message says what would help.
    """
    from sentence_transformers import SentenceTransformer

    _check_modules(source, trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if pooling is None:
                model = SentenceTransformer(str(source.folder), device=device, model_kwargs={"dtype": dtype}, **options)
            else:
                model = SentenceTransformer(modules=_stock_modules(source, pooling, dtype, options), device=device)
    except ImportError as error:
        if "torchvision" not in str(error).lower():
            raise
        raise AdoptionError(f"{source.name} cannot be proven, so it is not adopted: {MISSING_LIBRARY}.") from error
    except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        if "torchvision" in str(error).lower():
            raise AdoptionError(f"{source.name} cannot be proven, so it is not adopted: {MISSING_LIBRARY}.") from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise AdoptionError(f"sentence-transformers cannot load {source.name}: {reason}") from error
    size, model.truncate_dim = model.truncate_dim, None
    return Oracle(model.eval(), image_first, size, trust_remote_code)


def _stock_modules(source: Source, pooling: str, dtype: torch.dtype, options: dict[str, Any]) -> list[Any]:
    """A plain model of transformers with this pooling behind it, as sentence-transformers would put it together."""
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.base.modules.transformer import Transformer
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling

    load = {"model_kwargs": {"dtype": dtype, **options}, "processor_kwargs": dict(options)}
    transformer = Transformer(str(source.folder), **load, config_kwargs=dict(options))
    return [transformer, Pooling(transformer.get_embedding_dimension(), tuple(pooling.split("+"))), Normalize()]


def _check_modules(source: Source, trust_remote_code: bool) -> None:
    """Raises for what would run a stranger's code, before any is run."""
    if trust_remote_code:
        return
    strange = list(source.foreign_types)
    if source.begins_with_transformer and source.model_type not in CONFIG_MAPPING:
        strange += [str(path) for path in (source.config.get("auto_map") or {}).values()]
    if strange:
        raise AdoptionError(
            f"{source.name} has modules with code of their own ({', '.join(strange)}): pass --trust-remote-code if you "
            "trust it."
        )
    for path in source.folder.rglob("config.json") if not source.begins_with_transformer else ():
        activation = read_object(path).get("activation_function")
        if isinstance(activation, str) and not activation.startswith("torch."):
            raise AdoptionError(
                f"{source.name}: {activation} is no activation of torch, and sentence-transformers puts Tanh in its "
                "place, with a warning only. Pass --trust-remote-code if you trust it."
            )
