"""What a script costs: the tokens of texts, and how many of them stand for no whole character."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # how SentencePiece names the token of a byte


@dataclass(frozen=True)
class TokenCounts:
    """Counts of single texts, each `(n,)`.

    Attributes:
        characters: Code points.
        tokens: Tokens, without those that mark begin and end.
        unknown: Tokens that stand for what the vocabulary lacks.
        pieces: Tokens that are a byte, or bytes that are no whole characters.
    """

    characters: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    unknown: npt.NDArray[np.int64]
    pieces: npt.NDArray[np.int64]


class TokenCounter:
    """Counts the tokens of texts.

    Args:
        tokenizer: Of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._pieces = np.array(sorted(piece_ids(tokenizer)), dtype=np.int64)

    def count(self, texts: Sequence[str]) -> TokenCounts:
        """Counts for each of the texts, of any length."""
        # verbose: a text above the model's limit is no mistake here
        options = {"add_special_tokens": False, "truncation": False, "verbose": False}
        encoded = self.tokenizer(list(texts), **options)["input_ids"] if texts else []  # which tokenizers may not take
        unknown = self.tokenizer.unk_token_id
        ids = [np.asarray(row, dtype=np.int64) for row in encoded]
        return TokenCounts(
            np.array([len(text) for text in texts], dtype=np.int64),
            np.array([len(row) for row in ids], dtype=np.int64),
            np.array([0 if unknown is None else np.count_nonzero(row == unknown) for row in ids], dtype=np.int64),
            np.array([np.count_nonzero(np.isin(row, self._pieces)) for row in ids], dtype=np.int64),
        )


def encoder_tokenizer(encoder: Any) -> Any:
    """The tokenizer that an encoder tells of; None where it tells of none, as a function does unless it has one."""
    tokenizer = getattr(encoder, "tokenizer", None)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has it inside
    return tokenizer if callable(tokenizer) and hasattr(tokenizer, "unk_token_id") else None


def piece_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokens that are bytes, or parts of a character; none where a tokenizer knows no bytes."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    ids = {number for token, number in vocabulary.items() if _BYTE.fullmatch(token)}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and "ByteLevel" in f"{backend.decoder!r} {backend.pre_tokenizer!r}":
        suffix = getattr(backend.model, "end_of_word_suffix", None) or ""
        added = set(tokenizer.added_tokens_decoder)
        ids |= {n for token, n in vocabulary.items() if n not in added and not _is_whole(token.removesuffix(suffix))}
    return ids


def _is_whole(token: str) -> bool:
    """Whether the bytes that a token of a byte-level vocabulary spells are whole characters."""
    try:
        bytes(_byte_of()[letter] for letter in token).decode()
    except UnicodeDecodeError:
        return False
    except KeyError:  # no byte is spelt so
        return True
    return True


@cache
def _byte_of() -> dict[str, int]:
    """The byte behind each letter of a byte-level vocabulary."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}
