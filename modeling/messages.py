"""Chat messages, as transformers and sentence-transformers take them, read as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .images import ImageError, decode_base64
from .rows import TextImageRow, make_row

IMAGE_KEYS = ("image", "url", "path", "base64")
"""Keys under which transformers looks for an image."""
_MESSAGE_KEYS = ("role", "content", "name")


def read_messages(index: int, messages: Sequence[dict[str, Any]]) -> TextImageRow:
    """The row that one conversation stands for.

    Args:
        index: Number of the row, for errors.
        messages: Messages with `role` and `content`; the text of `system` messages is the instruction. Images are
            parts of the type `image` with one of `IMAGE_KEYS`, or of the type `image_url` as OpenAI has them.

    Raises:
        ValueError: A message holds something that would be lost; the error names row, message and key.
    """
    instruction: list[str] = []
    texts: list[str] = []
    images: list[Any] = []
    for number, message in enumerate(messages):
        where = f"row {index}, message {number}"
        if not isinstance(message, Mapping):
            raise ValueError(f"{where} is a {type(message).__name__}, not a dictionary with `role` and `content`.")
        _refuse_others(message, _MESSAGE_KEYS, where, "a message has")
        for part in _parts(message.get("content"), where):
            kind, value = _read_part(part, where)
            if kind == "image":
                images.append(value)
            elif value is not None:
                (instruction if message.get("role") == "system" else texts).append(value)
    text = "".join(texts) if texts or instruction else None
    return make_row(index, text, images, "".join(instruction))


def _parts(content: Any, where: str) -> list[Mapping[str, Any]]:
    """The parts of a message; a string is one text."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f"{where}: its `content` must be a string, or a list of dictionaries.")
    return list(parts)


def _read_part(part: Mapping[str, Any], where: str) -> tuple[str, Any]:
    """The kind of a part, `"text"` or `"image"`, and its content."""
    kind = part.get("type")
    if kind == "image_url":
        _refuse_others(part, ("type", "image_url"), where, "a part of type 'image_url' has")
        address = part.get("image_url")
        address = address.get("url") if isinstance(address, Mapping) else address
        if not address:
            raise ValueError(f"{where}: its part of type 'image_url' has no `url`.")
        return "image", address
    if kind == "image":
        return "image", _image(part, where)
    if kind == "text":
        _refuse_others(part, ("type", "text"), where, "a part of type 'text' has")
        return "text", part.get("text")
    raise ValueError(f"{where}: a part of type {kind!r} cannot be embedded; text, image and image_url can.")


def _image(part: Mapping[str, Any], where: str) -> Any:
    """The image of a part, wherever it stands."""
    _refuse_others(part, ("type", *IMAGE_KEYS), where, "a part of type 'image' has its image under one of")
    keys_in_use = [key for key in IMAGE_KEYS if part.get(key) is not None]
    if not keys_in_use:
        keys = ", ".join(f"`{key}`" for key in part if key != "type")
        fault = f"{keys} is None" if keys else f"it has none of {', '.join(IMAGE_KEYS)}"
        raise ValueError(
            f"{where}: its part of type 'image' shows no image: {fault}. Leave a part without an image out; a row of "
            "sentence-transformers without an image has no key `image`."
        )
    if len(keys_in_use) > 1:
        several = ", ".join(keys_in_use)
        raise ValueError(f"{where}: its part of type 'image' has several ({several}); make a part of each.")
    value = part[keys_in_use[0]]
    if keys_in_use[0] != "base64" or not isinstance(value, str) or value[:5].lower() == "data:":
        return value
    try:
        return decode_base64(value)
    except ImageError as error:
        raise ImageError(f"{where}: `base64`: {error}") from error


def _refuse_others(given: Mapping[str, Any], known: Sequence[str], where: str, rule: str) -> None:
    """Raises where there is a value under a key that would not be read."""
    other = [key for key, value in given.items() if key not in known and value is not None]
    if other:
        raise ValueError(f"{where}: what stands under {other[0]!r} would be lost; {rule} {', '.join(known)}.")
