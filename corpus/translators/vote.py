"""Several translators beside each other: of each text the best translation is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from xvlm2vec.corpus.rows import ENGLISH

from .engine import Answer, Engine, asks_again
from .judging import Verdict, verdicts

Embed = Callable[[list[str]], npt.NDArray[np.float32]]
"""Gives a vector of length 1 for each text."""


class Vote:
    """Translators of which the one whose translation has the fewest faults wins, text by text.

    Faults are those that the rules of `corpus check` find. Among translations with equally few the one wins that an
    embedder finds most similar to the English text, if there is an embedder, else that of the translator named first.

    Args:
        engines: The translators by name; those that cannot translate into a language are not asked for it.
        embed: A multilingual embedder.
    """

    def __init__(self, engines: Mapping[str, Engine], embed: Embed | None = None) -> None:
        self.engines, self.embed = dict(engines), embed
        self.batch_size = max(engine.batch_size for engine in self.engines.values())
        self.asks_again = any(asks_again(engine) for engine in self.engines.values())

    def check(self, languages: Sequence[str]) -> None:
        """See `Engine`: one translator for each language will do."""
        able = {language: self._able(language) for language in languages}
        for name, engine in self.engines.items():  # a model of one pair would take any single language for its own
            engine.check([language for language, engines in able.items() if name in engines])

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """See `Engine`."""
        able = self._able(language)
        for start in range(0, len(texts), self.batch_size):
            part = list(texts[start : start + self.batch_size])
            candidates: list[dict[str, str]] = [{} for _ in part]
            problems: list[list[str]] = [[] for _ in part]
            for name, engine in able.items():
                for number, translation, problem in engine.translate(part, language, source):
                    if translation is None:
                        problems[number].append(f"{name}: {problem}")
                    else:
                        candidates[number][name] = translation
            for number, verdict in enumerate(self._best(part, candidates, language)):
                if verdict is None:
                    yield start + number, None, "; ".join(problems[number])
                elif verdict.faults:
                    yield start + number, None, "; ".join([*problems[number], verdict.faults[0]])
                else:
                    yield start + number, verdict.text, ""

    def _able(self, language: str) -> dict[str, Engine]:
        """The translators of a language.

        Raises:
            ValueError: There is none; says why.
        """
        able, reasons = {}, []
        for name, engine in self.engines.items():
            try:
                engine.check([language])
                able[name] = engine
            except ValueError as error:
                reasons.append(f"{name}: {error}")
        if not able:
            raise ValueError(f"no translator is left for {language!r}: {'; '.join(reasons)}")
        return able

    def _best(
        self, texts: Sequence[str], candidates: Sequence[Mapping[str, str]], language: str
    ) -> list[Verdict | None]:
        """The best candidate of each text as the rules have it; None where there is none."""
        places = [(number, text) for number, found in enumerate(candidates) for text in dict.fromkeys(found.values())]
        judged = verdicts([texts[number] for number, _ in places], [text for _, text in places], language)
        of_text: list[list[Verdict]] = [[] for _ in texts]
        for (number, _), verdict in zip(places, judged, strict=True):
            of_text[number].append(verdict)
        fewest = [_with_fewest_faults(found) for found in of_text]
        return [found[0] if found else None for found in self._by_similarity(texts, fewest)]

    def _by_similarity(self, texts: Sequence[str], found: list[list[Verdict]]) -> list[list[Verdict]]:
        """Candidates with the most similar one first, where there are several."""
        several = [number for number, verdicts_ in enumerate(found) if len(verdicts_) > 1]
        if self.embed is None or not several:
            return found
        english = self.embed([texts[number] for number in several])
        vectors = self.embed([verdict.text for number in several for verdict in found[number]])
        place = 0
        for row, number in enumerate(several):
            count = len(found[number])
            scores = vectors[place : place + count] @ english[row]
            found[number] = [found[number][best] for best in np.argsort(-scores, kind="stable")]
            place += count
        return found


def _with_fewest_faults(found: list[Verdict]) -> list[Verdict]:
    least = min((len(verdict.faults) for verdict in found), default=0)
    return [verdict for verdict in found if len(verdict.faults) == least]
