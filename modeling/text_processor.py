"""The processor of a backbone that reads texts only: its tokenizer."""

from __future__ import annotations

from typing import Any

from transformers import BatchFeature, ProcessorMixin


class TextProcessor(ProcessorMixin):
    """A tokenizer in the form in which other backbones have a processor.

    Args:
        tokenizer: The backbone's tokenizer.
    """

    image_token: str | None = None
    image_processor = None

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)

    def __call__(self, text: Any = None, **options: Any) -> BatchFeature:
        """Calls the tokenizer."""
        return self.tokenizer(text, **options)
