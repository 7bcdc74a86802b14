"""Turns rows of text and pictures into a backbone's inputs, the picture always before the text."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, BatchFeature, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import cached_file

from .families import Family, backbone_type, family_of
from .pictures import load_picture
from .rows import TextImageRow, make_rows

PROCESSOR_FILE = "processor_config.json"
_HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class XVLM2VecProcessor(ProcessorMixin):
    """Wraps the processor of any vision-language model and writes its prompts.

    Args:
        inner: The backbone's own processor.
        model_type: `model_type` of the backbone; names its entry in `families`.
        allow_urls: Whether http(s) addresses are fetched as pictures.
    """

    def __init__(self, inner: ProcessorMixin, model_type: str, allow_urls: bool = False) -> None:
        self.inner = inner
        self.model_type = model_type
        self.allow_urls = allow_urls
        self.chat_template = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"XVLM2VecProcessor(model_type={self.model_type!r}, inner={type(self.inner).__name__})"

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The wrapper holds one whole processor rather than the parts transformers would look for."""
        return []

    @property
    def family(self) -> Family:
        """How this backbone's prompts are written."""
        return family_of(self.model_type)

    @property
    def model_input_names(self) -> list[str]:
        """Names of what a call may return."""
        return self.inner.model_input_names

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> XVLM2VecProcessor:  # type: ignore[override]
        """Loads a saved `XVLM2VecProcessor`, or wraps the processor of a plain vision-language checkpoint.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            **kwargs: `allow_urls`, and what the backbone's processor and tokenizer take.
        """
        kwargs.pop("_from_auto", None)
        settings = {"allow_urls": kwargs.pop("allow_urls")} if "allow_urls" in kwargs else {}
        hub = {key: kwargs[key] for key in _HUB_KEYS if kwargs.get(key) is not None}
        saved = _read_json(pretrained_model_name_or_path, PROCESSOR_FILE, hub)
        name = saved.get("inner_class")
        if name is None:
            config = AutoConfig.from_pretrained(
                pretrained_model_name_or_path, trust_remote_code=kwargs.get("trust_remote_code"), **hub
            )
            model_type = backbone_type(config)
            name = saved.get("processor_class") or _processor_class_name(config)
        else:
            model_type = saved["xvlm2vec"]["model_type"]
            settings = {"allow_urls": saved["xvlm2vec"]["allow_urls"], **settings}
        inner_class = _pictures_only(getattr(transformers, name))
        return cls(inner_class.from_pretrained(pretrained_model_name_or_path, **kwargs), model_type, **settings)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Writes the backbone's processor files, and into `processor_config.json` what rebuilds this wrapper."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.inner.save_pretrained(folder)
        path = folder / PROCESSOR_FILE
        content = json.loads(path.read_text(encoding="utf-8"))
        content |= {
            "processor_class": type(self).__name__,
            "auto_map": {"AutoProcessor": f"processing_xvlm2vec.{type(self).__name__}"},
            "inner_class": type(self.inner).__name__,
            "xvlm2vec": {"model_type": self.model_type, "allow_urls": self.allow_urls},
        }
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        custom_object_save(self, folder)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        return [str(path)]

    def __call__(  # type: ignore[override]
        self,
        text: str | Sequence[str | None] | None = None,
        images: Any = None,
        padding_side: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepares a batch; rows may mix text, pictures, and both.

        Args:
            text: One string, or one string or `None` per row.
            images: One picture, or per row a picture, a list of pictures, or `None`.
            padding_side: `"left"` or `"right"`; by default the tokenizer's. Vectors do not depend on it.
            **kwargs: Further arguments of the backbone's processor.

        Returns:
            `input_ids` and `attention_mask` `(B, L)` int64, and the pictures as the backbone takes them.

        Raises:
            ValueError: A row is empty, or its text holds one of the backbone's picture tokens.
            PictureError: A picture cannot be read; the message names the row.
        """
        texts, pictures = self._rows(text, images)
        kwargs = {"padding": True, "return_tensors": "pt", **kwargs}
        if padding_side is not None:
            kwargs["padding_side"] = padding_side
        prompts = [self.prompt(t, len(p), row) for row, (t, p) in enumerate(zip(texts, pictures, strict=True))]
        if any(pictures):
            batch = self.inner(text=prompts, images=pictures, **kwargs)
        else:
            batch = BatchFeature(dict(self.inner.tokenizer(prompts, **kwargs)))
        batch.pop("token_type_ids", None)
        return batch

    def prompt(self, text: str, pictures: int, row: int = 0) -> str:
        """The string that stands for a row: its pictures' placeholders, then its text.

        Raises:
            ValueError: The text holds a token that would be taken for a picture.
        """
        placeholder = self.family.image or self.inner.image_token
        reserved = {placeholder, *self.family.reserved}
        found = [token for token in reserved if token in text]
        if found:
            raise ValueError(f"row {row}: the text holds {found[0]!r}, which stands for a picture; take it out.")
        return placeholder * pictures + (self.family.after_images if pictures else "") + text

    def row_lengths(self, rows: Sequence[TextImageRow]) -> list[int]:
        """Tokens of each row, pictures estimated from one call of the backbone's processor per picture size."""
        texts = self.inner.tokenizer([row.text for row in rows], add_special_tokens=True)["input_ids"] if rows else []
        per_picture = self._tokens_per_picture()
        return [len(ids) + per_picture * len(row.images) for ids, row in zip(texts, rows, strict=True)]

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """What sentence-transformers calls: messages in, a batch out, without any chat mark-up.

        Args:
            conversation: One conversation or a list of them. A `system` message is the instruction; its text comes
                before the other texts. Contents are strings or lists of `{"type": "text" | "image", ...}`.
            *args: Ignored, as there is no template.
            **kwargs: `processor_kwargs` as transformers passes them; the rest is ignored.
        """
        conversations = [conversation] if conversation and isinstance(conversation[0], dict) else conversation
        rows = [_read_messages(messages) for messages in conversations]
        options = {}
        for bucket in ("common_kwargs", "text_kwargs", "images_kwargs"):
            options |= (kwargs.get("processor_kwargs") or {}).get(bucket) or {}
        known = {key: value for key, value in options.items() if key in {"padding", "return_tensors", "padding_side"}}
        return self(text=[text for text, _ in rows], images=[pictures for _, pictures in rows], **known)

    def _rows(self, text: Any, images: Any) -> tuple[list[str], list[list[Any]]]:
        rows, _ = make_rows(text, images)
        pictures = []
        for index, row in enumerate(rows):
            names = [f"row {index}, picture {number}" for number in range(len(row.images))]
            pictures.append(
                [
                    load_picture(picture, allow_urls=self.allow_urls, name=name)
                    for picture, name in zip(row.images, names, strict=True)
                ]
            )
        return [row.text for row in rows], pictures

    def _tokens_per_picture(self) -> int:
        return int(getattr(self.inner, "image_seq_len", None) or 256)


def _read_messages(messages: Sequence[dict[str, Any]]) -> tuple[str | None, list[Any]]:
    """The text (instruction first) and the pictures of one conversation."""
    texts: list[str] = []
    pictures: list[Any] = []
    for message in sorted(messages, key=lambda message: message.get("role") != "system"):
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image":
                pictures.append(part["image"])
            else:
                raise ValueError(f"A message part of type {part['type']!r} cannot be embedded; text and image can.")
    return ("".join(texts) if texts else None), pictures


def _read_json(source: str | os.PathLike[str], name: str, hub: dict[str, Any]) -> dict[str, Any]:
    path = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **hub)
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}


def _processor_class_name(config: Any) -> str:
    name = PROCESSOR_MAPPING_NAMES.get(config.model_type)
    if name is None:
        raise ValueError(f"transformers knows no processor for a {config.model_type!r} model.")
    return name


def _pictures_only(processor_class: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The same processor without its video part, which would need torchvision although no video is ever embedded."""
    names = [name for name in processor_class.get_attributes() if "video" not in name]
    if names == processor_class.get_attributes():
        return processor_class
    body = {"get_attributes": classmethod(lambda cls: names), "__module__": processor_class.__module__}
    return type(processor_class.__name__, (processor_class,), body)
