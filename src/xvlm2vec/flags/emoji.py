"""The emoji world as the commands make it from their flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xvlm2vec.corpus.emoji.world import EmojiWorld


def emoji_world(
    languages: Sequence[str] | None, concepts: int, image_size: int, seed: int, controls: Sequence[str] | None = None
) -> EmojiWorld:
    """A world that teaches some languages and keeps tr and ko, unless they are among these, as controls.

    Args:
        languages: Codes to teach; None stands for the world's own.
        concepts: How many emoji.
        image_size: Side of the images in pixels.
        seed: Of everything.
        controls: Codes that are measured and never taught; None stands for the world's own. Taught ones are left out.

    Raises:
        ValueError: A language is unknown, or a number does not fit.
    """
    from xvlm2vec.corpus.emoji.text import check_languages
    from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig

    usual = EmojiWorldConfig()
    taught = check_languages(languages or usual.taught_languages, [code for code in usual.languages if code != "en"])
    controls = tuple(code for code in controls or usual.control_languages if code not in taught)
    return EmojiWorld.load(
        EmojiWorldConfig(
            concepts=concepts,
            image_size=image_size,
            seed=seed,
            languages=("en", *taught, *controls),
            taught_languages=taught,
            control_languages=controls,
        )
    )
