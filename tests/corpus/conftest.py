from __future__ import annotations

import pytest

from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig


@pytest.fixture(scope="session")
def world() -> EmojiWorld:
    return EmojiWorld.load()


@pytest.fixture(scope="session")
def small_world() -> EmojiWorld:
    return EmojiWorld.load(EmojiWorldConfig(concepts=64, image_size=32, languages=("en", "de", "ja", "ko")))
