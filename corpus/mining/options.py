"""What counts as a hard negative."""

from __future__ import annotations

from dataclasses import dataclass

SEARCHES = ("query", "positive")
KINDS = ("same", "any", "text", "image", "both")
SAMPLES = ("top", "random")


@dataclass(frozen=True)
class MiningOptions:
    """Which candidates become negatives.

    Attributes:
        negatives: How many of a row are kept at most.
        search_with: Whether the nearest of the query or of its positive are looked at.
        candidates: Of which kind they are: `"same"` as the row's positive, `"any"`, or texts, images, or texts with an
            image.
        per_language: Whether a candidate must be in the language of the row.
        range_min: The nearest ones that are passed over.
        range_max: How many of the nearest are looked at.
        relative_margin: A candidate must score less than this share below the positive: 0.05 asks for less than 95%.
        absolute_margin: A candidate must score so much less than the positive.
        min_score: A candidate must score at least this.
        max_score: A candidate must score at most this.
        max_positive_similarity: A candidate must not be nearer than this to the positive itself.
        sample: `"top"` keeps the nearest of what is left, `"random"` draws.
        seed: Of the drawing.
    """

    negatives: int = 5
    search_with: str = "query"
    candidates: str = "same"
    per_language: bool = False
    range_min: int = 0
    range_max: int = 100
    relative_margin: float | None = 0.05
    absolute_margin: float | None = None
    min_score: float | None = None
    max_score: float | None = None
    max_positive_similarity: float | None = None
    sample: str = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise ValueError(f"negatives={self.negatives} must be at least 1.")
        if not 0 <= self.range_min < self.range_max:
            raise ValueError(f"the range from {self.range_min} to {self.range_max} holds no candidate.")
        for name in ("relative_margin", "absolute_margin"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name}={value} is below 0: what is nearer than the positive is likely right.")
        if None not in (self.min_score, self.max_score) and self.min_score > self.max_score:  # type: ignore[operator]
            raise ValueError(f"min_score={self.min_score} is above max_score={self.max_score}.")
