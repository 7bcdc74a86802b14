"""Tokens of texts, with real tokenizers whose vocabularies are known."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xvlm2vec.eval.tokens import TokenCounter, encoder_tokenizer, piece_ids


def byte_level(merges: list[tuple[str, str]], suffix: str = "") -> PreTrainedTokenizerFast:
    """All 256 bytes and what the merges make; with `suffix` a word's last piece has it, as in CLIP."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + suffix for letter in letters if suffix), *(left + right for left, right in merges)]
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, merges, **({"end_of_word_suffix": suffix} if suffix else {})
    )
    inner = Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<é>", model_max_length=2)


def with_bytes() -> PreTrainedTokenizerFast:
    """Letters, and a token for each byte of what has none."""
    vocabulary = {"<unk>": 0, "a": 1, "b": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)), unk_token="<unk>"
    )


def test_bytes_of_characters_are_counted() -> None:
    tokenizer = byte_level([("Ã", "©")])
    assert tokenizer.eos_token_id not in piece_ids(tokenizer), "it spells no bytes"
    counts = TokenCounter(tokenizer).count(["ab", "é", "я", "aя"])
    assert counts.characters.tolist() == [2, 1, 1, 2]
    assert counts.tokens.tolist() == [2, 1, 2, 3], "nothing is cut at the model's limit"
    assert counts.pieces.tolist() == [0, 0, 2, 2], "é is one token, я is two bytes"
    assert counts.unknown.tolist() == [0, 0, 0, 0]


def test_a_suffix_of_words_is_no_byte() -> None:
    counts = TokenCounter(byte_level([], suffix="</w>")).count(["ab", "я"])
    assert counts.pieces.tolist() == [0, 2]


def test_byte_fallback() -> None:
    counts = TokenCounter(with_bytes()).count(["ab", "я"])
    assert (counts.tokens.tolist(), counts.pieces.tolist(), counts.unknown.tolist()) == ([2, 2], [0, 2], [0, 0])


def test_no_texts_have_no_tokens() -> None:
    assert not TokenCounter(with_bytes()).count([]).tokens.size


def test_unknown_words() -> None:
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "dog": 1}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    assert piece_ids(tokenizer) == set()
    counts = TokenCounter(tokenizer).count(["dog kurī", "dog"])
    assert counts.unknown.tolist() == [1, 0]


@pytest.mark.parametrize("tokenizer", [None, len, "words"])
def test_what_cannot_be_asked_is_no_tokenizer(tokenizer: object) -> None:
    def embed(texts: list, images: list) -> np.ndarray:
        return np.zeros((len(texts), 2))

    embed.tokenizer = tokenizer
    assert encoder_tokenizer(embed) is None
