"""Apertium as a translator: rules and dictionaries, for the pairs of languages that are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from xvlm2vec.common.languages import comparable_code, normal_code
from xvlm2vec.corpus.rows import ENGLISH

from .engine import Answer
from .judging import accepted
from .protected import MADE_NAME, STANDING_IN

PROGRAM = "apertium"
_APART = "\n\n"
"""Between texts: words cross the end of a line, and never an empty one."""
_TOUCHING = re.compile(rf"(?<=\S)(?={MADE_NAME})|(?<={MADE_NAME})(?=\S)")
_WITH_BLANKS = re.compile(rf"( *)({MADE_NAME})( *)")
_TEXTS = 500
_SECONDS = 600


class Apertium:
    """The program `apertium`, which Debian has; each pair of languages is a package of its own.

    Words that it does not know are failures, as are other faults that the rules of `corpus check` find.

    Raises:
        FileNotFoundError: The program is not installed.
    """

    batch_size = _TEXTS

    def __init__(self) -> None:
        if shutil.which(PROGRAM) is None:
            raise FileNotFoundError(
                f"the program {PROGRAM} is not installed: apt install apertium, with a package for each pair of "
                "languages, such as apertium-eng-spa."
            )
        self._modes = self._installed()

    def check(self, languages: Sequence[str]) -> None:
        """See `Engine`."""
        for language in languages:
            self._mode(language)

    def has(self, language: str, source: str = ENGLISH) -> bool:
        """Whether this direction is installed."""
        return (comparable_code(source), comparable_code(language)) in self._modes

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """See `Engine`."""
        mode = self._mode(language, source)
        for start in range(0, len(texts), _TEXTS):
            part = [_spaced(text) for text in texts[start : start + _TEXTS]]
            answers = self._run(mode, part)
            if answers is None:  # one of them confuses it
                answers = [(self._run(mode, [text]) or [""])[0] for text in part]
            for number, (answer, problem) in enumerate(accepted(part, answers, language), start):
                yield number, None if answer is None else _rejoined(answer, texts[number]), problem

    def _mode(self, language: str, source: str = ENGLISH) -> str:
        """What Apertium calls the direction."""
        wanted = comparable_code(source), comparable_code(language)
        if wanted not in self._modes:
            known = ", ".join(sorted(target for start, target in self._modes if start == wanted[0])) or "none"
            raise ValueError(
                f"Apertium translates {source} into {known} here, not into {language!r}: install the package of the "
                f"pair (apt search apertium-), if there is one."
            )
        return self._modes[wanted]

    def _installed(self) -> dict[tuple[str, str], str]:
        """The directions by their languages."""
        listed = subprocess.run([PROGRAM, "-l"], capture_output=True, text=True, check=False).stdout.split()
        modes: dict[tuple[str, str], str] = {}
        for mode in sorted(listed, key=len):
            start, _, target = mode.partition("-")
            try:
                codes = comparable_code(normal_code(start)), comparable_code(normal_code(target))
            except ValueError:  # a variant that has no code of a language
                continue
            modes.setdefault(codes, mode)
        return modes

    def _run(self, mode: str, texts: Sequence[str]) -> list[str] | None:
        """The translations, or None if there are not as many as texts."""
        done = subprocess.run(
            [PROGRAM, mode], input=_APART.join(texts) + _APART, capture_output=True, text=True, encoding="utf-8",
            errors="replace", env={**os.environ, "LC_ALL": "C.UTF-8"}, timeout=_SECONDS, check=False,
        )  # fmt: skip
        answers = [STANDING_IN.sub(lambda match: match[0].lstrip("*#@"), text).strip()
                   for text in done.stdout.strip().split(_APART)]  # fmt: skip
        return answers if done.returncode == 0 and len(answers) == len(texts) else None


def _spaced(text: str) -> str:
    """A text with blanks around made names: one that touches a word would make it a word that nobody knows."""
    return _TOUCHING.sub(" ", text)


def _rejoined(answer: str, text: str) -> str:
    """A translation in which made names touch what they touch in the text."""

    def placed(match: re.Match[str]) -> str:
        place = text.find(match[2])
        before, after = text[max(0, place - 1) : place], text[place + len(match[2]) : place + len(match[2]) + 1]
        left, right = (blank if not sign.strip() else "" for blank, sign in ((match[1], before), (match[3], after)))
        return left + match[2] + right

    return _WITH_BLANKS.sub(placed, answer)
