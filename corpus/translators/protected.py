"""Keeps from a translator what it must not touch: marks of images, line breaks, markup, and fields to be filled in.

Every translator breaks them in its way: rule-based ones translate within `<|image_1|>` and let words cross the ends of
lines, models drop tags or translate the names of fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from xvlm2vec.common.image_marks import MARK, strip_marks
from xvlm2vec.common.texts import is_blank
from xvlm2vec.corpus.rows import ENGLISH

from .engine import Answer, Engine

_TAG = r"</?[A-Za-z][^<>\n]*>|<!--[^\n]*?-->|&(?:#\d+|#x[0-9a-fA-F]+|[A-Za-z]+\d*);"
_FIELD = r"\{\{[^{}\n]{0,40}\}\}|\$?\{[^{}\n]{0,40}\}|%\([^()\s]{1,40}\)[sdf]|(?<![\d%])%[sd]\b"
_BETWEEN = re.compile(rf"((?:{MARK.pattern}|<\|[^<>|\n]{{1,30}}\|>|\n)+)")
"""What parts a text into pieces that have nothing to do with each other."""
_WITHIN = re.compile(rf"({_TAG}|{_FIELD})")
"""What stands within a sentence, and stays at its place in it."""
_SIGNS = re.compile(r"[<\[{%&\n]")
"""A text without any of these has nothing that must stay."""
_NAME, _NAMES = "XQ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MADE_NAME = rf"{_NAME}[{_NAMES}]"
STANDING_IN = re.compile(rf"[*#@]?{_NAME}([{_NAMES}])")
"""The made names that stand in for what is taken out; rule-based translators mark them as unknown words."""


class Piece(NamedTuple):
    """A part of a text that is translated alone.

    Attributes:
        text: What the translator is given.
        kept: What the made names in it stand for.
    """

    text: str
    kept: tuple[str, ...] = ()

    def restored(self, answer: str) -> str | None:
        """A translation with what was taken out of its text; None unless each made name is in it just once."""
        if not self.kept:
            return answer
        numbers = [_NAMES.index(name) for name in STANDING_IN.findall(answer)]
        if sorted(numbers) != list(range(len(self.kept))):
            return None
        return STANDING_IN.sub(lambda match: self.kept[_NAMES.index(match[1])], answer)


def dissected(text: str, within: bool = True) -> list[str | Piece]:
    """The parts of a text: pieces to translate, and strings that stay as they are.

    Args:
        text: The text.
        within: Whether made names stand in for markup and fields within a sentence; else it is cut there, too.
    """
    if not _SIGNS.search(text):
        return [Piece(text)] if text[:1].isalpha() and not text[-1].isspace() else list(filter(None, _sentence([text])))
    parts: list[str | Piece] = []
    for number, part in enumerate(_BETWEEN.split(text)):
        parts += [part] if number % 2 else _line(part, within)
    return [part for part in parts if part]


def _line(text: str, within: bool) -> list[str | Piece]:
    cut = _WITHIN.split(text)
    if within and len(cut) // 2 <= len(_NAMES) and not STANDING_IN.search(text):
        return _sentence(cut)
    parts: list[str | Piece] = []
    for number, part in enumerate(cut):
        parts += [part] if number % 2 else _sentence([part])
    return parts


def _sentence(cut: Sequence[str]) -> list[str | Piece]:
    """A line as what stands before it, the piece, and what stands behind it.

    Args:
        cut: Texts and, between them, what is taken out.
    """
    said = [number for number, part in enumerate(cut) if number % 2 == 0 and any(map(str.isalpha, part))]
    if not said:
        return ["".join(cut)]
    core = list(cut[said[0] : said[-1] + 1])
    before = core[0][: len(core[0]) - len(core[0].lstrip())]
    after = core[-1][len(core[-1].rstrip()) :]
    kept = tuple(core[1::2])
    core[1::2] = [f"{_NAME}{_NAMES[number]}" for number in range(len(kept))]
    piece = Piece("".join(core).strip(), kept)
    return ["".join(cut[: said[0]]) + before, piece, after + "".join(cut[said[-1] + 1 :])]


@dataclass(slots=True)
class _Work:
    """A text on its way.

    Attributes:
        parts: Its parts.
        missing: Pieces that are not translated yet, in their order.
        has_pieces: Whether there is anything to translate.
    """

    parts: list[str | Piece]
    missing: dict[str, None] = field(init=False)
    has_pieces: bool = field(init=False)

    def __post_init__(self) -> None:
        self.missing = {part.text: None for part in self.parts if isinstance(part, Piece)}
        self.has_pieces = bool(self.missing)

    def joined(self, done: dict[str, tuple[str | None, str]]) -> tuple[str | None, str, bool]:
        """The translation, what is wrong, and whether something that was taken out did not come back."""
        if not self.has_pieces and is_blank(strip_marks("".join(map(str, self.parts)))):
            return None, "the English text is empty", False
        texts = []
        for part in self.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            answer, problem = done[part.text]
            if answer is None:
                return None, problem, False
            restored = part.restored(answer)
            if restored is None:
                return None, "markup or fields are lost in the translation", True
            if "\n" in restored:
                return None, f"the translation of one line has several: {restored!r:.80}", False
            texts.append(restored)
        return "".join(texts), "", False


class Protected:
    """An engine that is given only what it may translate.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """Translates texts with what must stay in them; each text when its last piece is translated.

        A sentence whose markup does not come back is translated once more in parts, with the markup between them.

        Args:
            texts: The texts.
            language: Code of the language into which they are translated.
            source: Code of their own language.
        """
        lost: list[int] = []
        ask = partial(self.engine.translate, language=language, source=source)
        for number, answer in self._pass(dict(enumerate(texts)), ask, within=True):
            if answer[2]:
                lost.append(number)
            else:
                yield number, answer[0], answer[1]
        for number, answer in self._pass({number: texts[number] for number in lost}, ask, within=False):
            yield number, answer[0], answer[1]

    def _pass(
        self, texts: dict[int, str], ask: Callable[[Sequence[str]], Iterator[Answer]], within: bool
    ) -> Iterator[tuple[int, tuple[str | None, str, bool]]]:
        works = {number: _Work(dissected(text, within)) for number, text in texts.items()}
        waiting: dict[str, list[int]] = {}
        done: dict[str, tuple[str | None, str]] = {}
        for number, work in works.items():
            for piece in work.missing:
                waiting.setdefault(piece, []).append(number)
            if not work.missing:
                yield number, work.joined(done)
        pieces = list(waiting)
        for place, translation, problem in ask(pieces) if pieces else ():
            piece = pieces[place]
            done[piece] = translation, problem
            for number in waiting.pop(piece):
                del works[number].missing[piece]
                if not works[number].missing:
                    yield number, works.pop(number).joined(done)
