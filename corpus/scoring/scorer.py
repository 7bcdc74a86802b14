"""The kept rows of a check, scored: each translation beside its English text, and what it is translated back into."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.files import replaced_file
from xvlm2vec.common.image_marks import strip_marks
from xvlm2vec.common.texts import is_blank
from xvlm2vec.corpus.checking.chunks import Judged
from xvlm2vec.corpus.rows import ENGLISH

from .report import Means, Scored, ScoreReport
from .shuffled import Compared, EnglishTexts, Vectors, share_of, share_table

SUSPECT = 0.05
"""A pair is suspected if more than this share of the language's shuffled pairs are as good."""
_WORST = 5
"""Rows of each language that are kept as examples."""

Embed = Callable[[Sequence[str], str], Vectors]
"""Takes texts and the code of their language, and gives a vector for each."""
_Counts = dict[str, npt.NDArray[np.int64]]


class BackTranslator(Protocol):
    """What is needed of a translator (see `corpus.translation`)."""

    def translate(
        self, texts: Sequence[str], language: str, source: str = ENGLISH
    ) -> Iterator[tuple[int, str | None, str]]:
        """Gives the number of each text, its translation or None, and what is wrong."""
        ...


class Scorer:
    """Takes rows chunk by chunk, and gives their scores when all are known; to be used as a context.

    Scores wait in a temporary file, as shares are those of a language's shuffled pairs in the whole corpus.

    Args:
        model: Name of the model, for reports.
        embed: Embeds texts.
        back: Translates back into English, if that is wanted.
        threshold: From which share of shuffled pairs a pair is suspected.
    """

    def __init__(
        self, model: str, embed: Embed, back: BackTranslator | None = None, threshold: float = SUSPECT
    ) -> None:
        self.report = ScoreReport(model, threshold)
        self._embed, self._back = embed, back
        self._english = EnglishTexts()
        self._counts: _Counts = {}
        self._back_counts: _Counts = {}
        self._rows: IO[str]

    def __enter__(self) -> Scorer:
        self._rows = tempfile.TemporaryFile("w+", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def add(self, judged: Judged) -> None:
        """Takes the kept rows of a chunk that have a translation."""
        batch = judged.batch
        english: dict[int, str] = {}
        texts: dict[int, str] = {}
        for row, kept in enumerate(judged.kept):
            pair = strip_marks(batch.english.texts[row]) or "", strip_marks(batch.text.texts[row]) or ""
            if kept and not any(map(is_blank, pair)):
                english[row], texts[row] = pair
        if not texts:
            return
        distinct = list(dict.fromkeys(english.values()))
        self._english.add(distinct, _unit(self._embed(distinct, ENGLISH)))
        for code in dict.fromkeys(batch.codes[row] for row in texts):
            rows = [row for row in texts if batch.codes[row] == code]
            self._language(judged, code, rows, [english[row] for row in rows], [texts[row] for row in rows])

    def finish(self, path: Path | None = None) -> Iterator[Scored]:
        """Gives every row's scores, fills the report, and writes the scores as JSON lines.

        Args:
            path: The file, if it is wanted.
        """
        if path is None:
            yield from self._finished()
            return
        with replaced_file(path) as draft, open(draft, "w", encoding="utf-8") as file:
            for row in self._finished():
                file.write(json.dumps(row.as_json(), ensure_ascii=False) + "\n")
                yield row

    def _finished(self) -> Iterator[Scored]:
        report, not_scored = self.report, Counter[str]()
        tables = {code: share_table(counts) for code, counts in self._counts.items()}
        back_tables = {code: share_table(counts) for code, counts in self._back_counts.items()}
        self._rows.seek(0)
        for line in self._rows:
            values = json.loads(line)
            margin, shuffled, back = values.pop("margin"), values.pop("shuffled"), values.pop("back_scores", None)
            code = values["language"]
            if margin is None:
                not_scored[code] += 1
                continue
            share = round(share_of(margin, tables[code]), 6)
            if back is not None and back["margin"] is not None:
                values["back_share"] = round(share_of(back["margin"], back_tables[code]), 6)
                report.back.setdefault(code, Means(report.threshold)).add(
                    back["similarity"], back["shuffled"], values["back_share"]
                )
            row = Scored(**values, share=share)
            report.languages.setdefault(code, Means(report.threshold)).add(row.similarity, shuffled, share)
            self._keep_worst(row)
            yield row
        report.not_scored = dict(not_scored)

    def _keep_worst(self, row: Scored) -> None:
        worst = self.report.worst.setdefault(row.language, [])
        if row.share > self.report.threshold:
            self.report.worst[row.language] = sorted([*worst, row], key=lambda one: -one.share)[:_WORST]

    def _language(self, judged: Judged, code: str, rows: list[int], english: list[str], texts: list[str]) -> None:
        """Scores rows of one language, and keeps them in the file."""
        pairs = self._compare(english, texts, code, code, self._counts)
        backs = self._translated_back(texts, code)
        places = {number: place for place, number in enumerate(backs)}
        back = None
        if backs:
            originals = [english[number] for number in backs]
            back = self._compare(originals, list(backs.values()), ENGLISH, code, self._back_counts)
        for number, row in enumerate(rows):
            values = {"place": judged.chunk.places[row], "id": judged.chunk.ids[row], "language": code,
                      "english": english[number], "text": texts[number], **_values(pairs, number)}  # fmt: skip
            if back is not None and number in backs:
                values |= {"back": backs[number], "back_scores": _values(back, places[number])}
            self._rows.write(json.dumps(values) + "\n")

    def _compare(self, english: list[str], texts: list[str], spoken: str, code: str, counts: _Counts) -> Compared:
        """Compares texts in a language with their English ones, and counts shuffled pairs under a code."""
        found = self._english.compare(english, _unit(self._embed(texts, spoken)))
        counts[code] = counts.get(code, 0) + found.counts
        return found

    def _translated_back(self, texts: list[str], code: str) -> dict[int, str]:
        """The English of texts, by their numbers; those that cannot be translated are counted."""
        if self._back is None:
            return {}
        try:
            answers = list(self._back.translate(texts, ENGLISH, source=code))
        except ValueError as error:  # it does not have the language
            self.report.not_from[code] = str(error)
            answers = []
        found = {number: text for number, text, _ in answers if text is not None and not is_blank(text)}
        lost = len(texts) - len(found)
        if lost:
            self.report.not_translated[code] = self.report.not_translated.get(code, 0) + lost
        return found


def spooled(rows: Iterable[Scored]) -> Iterator[Scored]:
    """The same rows, the first one only when the last one is known; they wait in a temporary file."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
        file.seek(0)
        yield from (Scored(**json.loads(line)) for line in file)


def _values(pairs: Compared, number: int) -> dict[str, Any]:
    """A pair's scores as the file holds them."""
    values = {"similarity": pairs.cosines, "margin": pairs.margins, "shuffled": pairs.shuffled}
    return {name: None if np.isnan(array[number]) else round(float(array[number]), 6) for name, array in values.items()}


def _unit(vectors: Vectors) -> Vectors:
    """Rows of length 1; a row of zeros stays zero."""
    array = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return np.divide(array, norms, out=np.zeros_like(array), where=norms > 0)
