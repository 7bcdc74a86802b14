"""Arguments of a processor's calls: none is swallowed in silence."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from transformers import ProcessorMixin

CALL_ARGUMENTS = ("text", "images", "instruction", "max_length", "padding", "padding_side", "pad_to_multiple_of")
_BUCKETS = ("common_kwargs", "text_kwargs", "images_kwargs")
# What changes nothing where there is neither a template nor sound nor a video.
_WITHOUT_EFFECT = frozenset({"tokenize", "return_dict", "add_generation_prompt", "continue_final_message"})
_WITHOUT_EFFECT |= {"load_audio_from_video", "audio_kwargs", "videos_kwargs"}


def check_options(inner: ProcessorMixin, options: Collection[str]) -> None:
    """Raises where a backbone's processor would not look at an argument.

    Raises:
        TypeError: The processor does not take one of the `options`; the message says which may be meant instead.
    """
    taken = image_options(inner) if options else frozenset()
    unknown = [name for name in options if name not in taken]
    if unknown:
        near = difflib.get_close_matches(unknown[0], [*CALL_ARGUMENTS, *sorted(taken)], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"{type(inner).__name__} takes no argument {unknown[0]!r}, so it would be ignored.{hint}")


def image_options(inner: ProcessorMixin) -> frozenset[str]:
    """Names of the arguments that a backbone's processor takes for images."""
    parameters = inspect.signature(type(inner).__call__).parameters.values()
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        return frozenset(parameter.name for parameter in parameters) - {"self", *CALL_ARGUMENTS}
    of_processor = inner.valid_processor_kwargs.__annotations__.get("images_kwargs")
    of_image_processor = getattr(inner.image_processor, "valid_kwargs", None)
    kinds = (of_processor, of_image_processor)
    return frozenset().union(*(getattr(kind, "__annotations__", ()) for kind in kinds)) | {"images_kwargs"}


def template_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What arguments of `apply_chat_template`, also those in its `processor_kwargs`, mean for a call of the processor.

    Raises:
        ValueError: An argument has no meaning without a chat template.
    """
    options = {**given, **(given.get("processor_kwargs") or {})}
    for bucket in _BUCKETS:
        options |= options.pop(bucket, None) or {}
    for name in (*_WITHOUT_EFFECT, "processor_kwargs"):
        options.pop(name, None)
    options.pop("truncation", None)  # texts are always cut at max_length, and nothing else ever is
    lost = [name for name in ("chat_template", "tools", "documents") if options.pop(name, None)]
    if lost or not given.get("tokenize", True):
        name = lost[0] if lost else "tokenize=False"
        raise ValueError(f"Prompts are written without a chat template, so {name!r} has no meaning here.")
    return options
