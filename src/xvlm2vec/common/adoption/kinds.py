"""Kinds of models that say by their `model_type` alone how they embed."""

from __future__ import annotations

# One tower for texts and one for images: sentence-transformers reads them as they are published.
TWO_TOWERS = frozenset({"align", "altclip", "chinese_clip", "clip", "metaclip_2", "siglip", "siglip2"})
