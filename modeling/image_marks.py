"""How a checkpoint writes an image: what its chat template puts around one, or else the entry of its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .family_entry import TYPES, Family
from .loading import CheckpointError

TEXT = "Qxtextqx"
"""Stands for a user's text while its place in a rendered template is looked for."""
_PLAIN = {"pad_token", "bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token"}


def marked_family(family: Family, inner: Any, name: str, reads_template: bool = True) -> Family:
    """The entry of a family with what the checkpoint's own processor says: marks, BOS, tokens that texts must not hold.

    Args:
        family: The entry, or the generic one.
        inner: The backbone's processor.
        name: How errors call the checkpoint.
        reads_template: Whether its chat template counts; not where a recipe or a layout says all.

    Raises:
        CheckpointError: Its chat template raises whatever it is given.
    """
    family = replace(
        family,
        before_images=family.before_images.replace("{bos}", inner.tokenizer.bos_token or ""),
        before_text=fill_tokens(family.before_text, inner.tokenizer),
        after_text=fill_tokens(family.after_text, inner.tokenizer),
    )
    if inner.image_processor is None:
        return family
    if family == Family():  # an unknown one may want what others do
        family = replace(family, required_with_images=(TYPES,))
    marks = marks_of_template(inner, family, name) if reads_template else None
    if marks is not None and family.template:
        family = replace(family, image=marks[0], after_images=marks[1])
    return replace(family, reserved=tuple(dict.fromkeys((*family.reserved, *media_tokens(inner)))))


def fill_tokens(string: str, tokenizer: Any) -> str:
    """The string with the tokenizer's own special tokens for `{bos}`, `{eos}` and `{sep}`.

    Empty where it has none, or writes this token around every text by itself.
    """
    for name in ("bos", "eos", "sep"):
        if f"{{{name}}}" in string:
            token = getattr(tokenizer, f"{name}_token", None)
            ids = tokenizer("a")["input_ids"]
            own = token is not None and tokenizer.convert_tokens_to_ids(token) in (ids[0], ids[-1])
            string = string.replace(f"{{{name}}}", "" if own else token or "")
    return string


def media_tokens(inner: Any) -> list[str]:
    """Tokens that a processor or its tokenizer has by name for images, videos and sound, such as `boi_token`."""
    named = {**getattr(inner.tokenizer, "special_tokens_map", {}), **vars(inner.tokenizer), **vars(inner)}
    values = [value for name, value in named.items() if name.endswith("_token") and name not in _PLAIN]
    common = {getattr(inner.tokenizer, name, None) for name in _PLAIN}
    # Not settings such as `add_bos_token`; some tokens are objects with their text inside.
    texts = [getattr(value, "content", value) for value in values]
    return [text for text in texts if isinstance(text, str) and text and text not in common]


def marks_of_template(inner: Any, family: Family, name: str) -> tuple[str, str] | None:
    """What a checkpoint's chat template writes for each image, and behind all of them; `None` if it tells nothing.

    Raises:
        CheckpointError: It raises even for a single user's text.
    """
    template = getattr(inner, "chat_template", None) or getattr(inner.tokenizer, "chat_template", None)
    template = template.get("default") if isinstance(template, Mapping) else template
    if not template:
        return None
    plain, one = (_before_text(inner.tokenizer, template, images) for images in (0, 1))
    if isinstance(one, Exception):
        # Older templates take strings only; one that raises for these, too, is broken.
        text = _render(inner.tokenizer, template, TEXT)
        if isinstance(text, Exception):
            raise CheckpointError(
                f"{name} has a chat template that raises {type(text).__name__}: {str(text)[:200]}. Mend "
                "`chat_template.jinja`, or take it away."
            ) from text
        return None
    if isinstance(plain, Exception):
        return None
    two = _before_text(inner.tokenizer, template, 2)
    first = _added_part(plain, one)
    if not any(token in first for token in _placeholders(inner, family)):
        return None
    both = "" if isinstance(two, Exception) else _added_part(plain, two)
    image = both[: len(both) - len(first)]
    if image and first.startswith(image) and both == image + first:
        return image, first[len(image) :]
    return first, ""


def _placeholders(inner: Any, family: Family) -> list[str]:
    """Strings that stand for an image in a rendered template."""
    names = ("image_token", "image_placeholder_token", "fake_image_token")
    result = [str(getattr(inner, name)) for name in names if getattr(inner, name, None)]
    return [*result, *([family.image] if family.image else [])]


def _before_text(tokenizer: Any, template: str, images: int) -> str | Exception:
    """What a template writes up to the text of a user's turn with images."""
    parts = [*([{"type": "image"}] * images), {"type": "text", "text": TEXT}]
    rendered = _render(tokenizer, template, parts)
    return rendered if isinstance(rendered, Exception) else rendered.partition(TEXT)[0]


def _render(tokenizer: Any, template: str, content: Any) -> str | Exception:
    try:
        turns = [{"role": "user", "content": content}]
        return str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))
    except Exception as error:  # a template raises whatever its author and Jinja raise
        return error


def _added_part(plain: str, rendered: str) -> str:
    """What a string has more than another: without what both begin with, then without what both end with."""
    start = next((n for n, (a, b) in enumerate(zip(plain, rendered, strict=False)) if a != b), len(plain))
    rest, left = rendered[start:], plain[start:]
    same = next((n for n, (a, b) in enumerate(zip(rest[::-1], left[::-1], strict=False)) if a != b), len(left))
    return rest[: len(rest) - same]
