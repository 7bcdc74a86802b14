"""Chat messages, as sentence-transformers passes them, read as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .rows import TextImageRow, make_row


def read_messages(index: int, messages: Sequence[dict[str, Any]]) -> TextImageRow:
    """The row that one conversation stands for.

    Args:
        index: Number of the row, for errors.
        messages: Messages with `role` and `content`; the text of `system` messages is the instruction.
    """
    instruction: list[str] = []
    texts: list[str] = []
    images: list[Any] = []
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            kind = part["type"]
            if kind not in {"text", "image"}:
                raise ValueError(
                    f"row {index}: a message part of type {kind!r} cannot be embedded; text and image can."
                )
            if kind == "image":
                images.append(next((part[key] for key in ("image", "url", "path") if key in part), None))
            elif part["text"] is not None:
                (instruction if message.get("role") == "system" else texts).append(part["text"])
    text = "".join(texts) if texts or instruction else None
    return make_row(index, text, images, "".join(instruction))
