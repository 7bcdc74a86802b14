"""Translations of a corpus, kept on disk as they are made, and the sequence-to-sequence models that make them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from xvlm2vec.common.languages import comparable_code

from .rows import ENGLISH, RejectedRow, rejection_report
from .schema import translation_fields
from .translators.engine import Engine, asks_again
from .translators.protected import Protected

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# NLLB and its kin name a language by FLORES-200's codes (https://github.com/facebookresearch/flores).
FLORES = {
    "ar": "arb_Arab", "bn": "ben_Beng", "cs": "ces_Latn", "da": "dan_Latn", "de": "deu_Latn", "el": "ell_Grek",
    "en": "eng_Latn", "es": "spa_Latn", "fa": "pes_Arab", "fi": "fin_Latn", "fr": "fra_Latn", "he": "heb_Hebr",
    "hi": "hin_Deva", "hu": "hun_Latn", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan", "ko": "kor_Hang",
    "nl": "nld_Latn", "no": "nob_Latn", "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn", "ru": "rus_Cyrl",
    "sv": "swe_Latn", "sw": "swh_Latn", "th": "tha_Thai", "tr": "tur_Latn", "uk": "ukr_Cyrl", "vi": "vie_Latn",
    "zh": "zho_Hans",
}  # fmt: skip
_ROWS = 1_000
_encoded = json.JSONEncoder(ensure_ascii=False).encode  # of single strings, which is far faster than of a mapping
IN_FRONT = ("<2", ">>")
"""How the tags begin that stand before the English text (MADLAD, Marian); others (NLLB, M2M100) begin the answer."""


@dataclass
class Outcome:
    """What `translate_corpus` could translate, and what not.

    Attributes:
        translated: Number of texts, by language.
        rejected: The texts that could not be.
    """

    translated: Counter[str] = field(default_factory=Counter)
    rejected: list[RejectedRow] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """Counts and every failure, as JSON takes it."""
        return rejection_report(self.rejected, "bad_texts", translated=dict(self.translated))


class Translator:
    """A sequence-to-sequence model of transformers: NLLB, M2M100, MADLAD, or Marian.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        tags: The model's name of a language where it does not follow from the code, such as `{"de": "deu_Latn"}`.
        batch_size: Texts at a time.
        num_beams: Width of the beam search; 1 is greedy.
        max_new_tokens: Most tokens of a translation; a longer one is a failure, never truncated in silence.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        tags: Mapping[str, str] | None = None,
        batch_size: int = 32,
        num_beams: int = 1,
        max_new_tokens: int = 256,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.tags = dict(tags or {})
        self.batch_size, self.num_beams, self.max_new_tokens = batch_size, num_beams, max_new_tokens
        self._vocabulary = tokenizer.get_vocab()
        limit = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
        self.limit = min(limit, 100_000)

    def tag(self, language: str) -> str | None:
        """The model's name of a language; `None` for a model that knows no names, being made for one pair.

        Raises:
            ValueError: The model knows names of languages, but none for this one.
        """
        if language in self.tags:
            if self.tags[language] not in self._vocabulary:
                raise ValueError(f"The model's vocabulary has no tag {self.tags[language]!r} (for {language}).")
            return self.tags[language]
        tag = next((name for name in _names(language) if name in self._vocabulary), None)
        if tag:
            return tag
        if any(name in self._vocabulary for code in FLORES for name in _names(code)):
            raise ValueError(f"The model has no tag for the language {language!r}; name it with --tags {language}=TAG.")
        return None

    def check(self, languages: Sequence[str]) -> None:
        """Finds out before the first text whether all languages can be had.

        Raises:
            ValueError: One cannot.
        """
        untagged = [language for language in languages if self.tag(language) is None]
        if len(languages) > 1 and untagged:
            raise ValueError(
                f"The model has no names of languages, so it translates into one only, not into {', '.join(languages)}."
            )

    def translate(
        self, texts: Sequence[str], language: str, source: str = ENGLISH
    ) -> Iterator[tuple[int, str | None, str]]:
        """Translates texts, those of like length together.

        Args:
            texts: The texts.
            language: Code of the language into which they are translated.
            source: Code of their own language.

        Yields:
            Number of a text, its translation or `None`, and what is wrong.
        """
        tag = self.tag(language)
        ids = [self._source(text, tag, source) for text in texts]
        order = sorted(range(len(texts)), key=lambda number: len(ids[number]))
        fitting = [number for number in order if len(ids[number]) <= self.limit]
        kind = "English " if source == ENGLISH else ""
        for number in order[len(fitting) :]:
            yield number, None, f"the {kind}text has {len(ids[number])} tokens, and the model reads {self.limit}"
        for start in range(0, len(fitting), self.batch_size):
            part = fitting[start : start + self.batch_size]
            for number, answer in zip(part, self._generate([ids[number] for number in part], tag), strict=True):
                yield number, *self._judge(answer)

    def _source(self, text: str, tag: str | None, source: str) -> list[int]:
        """Token ids of a text with what tells the languages."""
        encoded = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        first = tag if tag and tag.startswith(IN_FRONT) else self.tag(source) if tag else None
        head = [] if first is None else [self._vocabulary[first]]
        return [*head, *encoded, self.tokenizer.eos_token_id]

    def _generate(self, rows: Sequence[Sequence[int]], tag: str | None) -> torch.Tensor:
        """Answers `(B, T)` int64."""
        import torch

        inputs = self.tokenizer.pad({"input_ids": [list(row) for row in rows]}, return_tensors="pt")
        begin = {} if tag is None or tag.startswith(IN_FRONT) else {"forced_bos_token_id": self._vocabulary[tag]}
        with torch.inference_mode():
            return self.model.generate(
                **{name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")},
                max_new_tokens=self.max_new_tokens, num_beams=self.num_beams, do_sample=False, **begin,
            )  # fmt: skip

    def _judge(self, answer: torch.Tensor) -> tuple[str | None, str]:
        """The text of an answer, or what is wrong with it."""
        if self.tokenizer.eos_token_id not in answer[1:]:  # some models begin an answer with it
            return None, f"the translation was not at its end after {self.max_new_tokens} tokens"
        text = str(self.tokenizer.decode(answer, skip_special_tokens=True)).strip()
        return (text, "") if text else (None, "the translation is empty")


class TranslationFile:
    """Translations into one language as JSON lines, read again after an interruption.

    Args:
        path: The file; made with the first translation.

    Attributes:
        texts: What the file holds, by `text_key`: a translation, or `None` and what was wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.texts: dict[str, tuple[str | None, str]] = {}
        if path.is_file():
            self._read()

    def add(self, entries: Sequence[tuple[str, str | None, str]], failures: bool = True) -> None:
        """Adds keys with translations, on disk when it returns.

        Args:
            entries: Keys, translations or None, and what was wrong.
            failures: Whether what was wrong is kept, too; else those texts are tried again by the next run.
        """
        lines = [f'{{"key": "{key}", "text": {_encoded(text)}, "problem": {_encoded(problem)}}}'
                 for key, text, problem in entries if failures or text is not None]  # fmt: skip
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self.texts |= {key: (text, problem) for key, text, problem in entries}

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # an interruption left half a line
            with open(self.path, "r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.texts[entry["key"]] = entry["text"], entry["problem"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path}, line {number}: damaged ({error}); remove the file.") from error


def text_key(text: str) -> str:
    """What names an English text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def translate_corpus(
    corpus: Dataset, translator: Engine, languages: Sequence[str], folder: Path, progress: bool = False
) -> Outcome:
    """Translates each distinct English text into the languages that a row of it lacks.

    What was translated before an interruption is in the folder, and is not translated again. Marks of images, line
    breaks, markup and fields are kept from the translator, and stand in the translations as in their texts.

    Args:
        corpus: Columns `id`, `text_en`, `translations`.
        translator: The model, server, program or list; see `corpus/translators/`.
        languages: Codes.
        folder: Where a file for each language keeps the translations.
        progress: Whether to show a bar.

    Raises:
        ValueError: The model cannot translate into one of the languages, or a file is damaged.
        ServerError: A server cannot be used at all; what was translated before is kept.
    """
    translator.check(languages)
    outcome, protected, keeps_failures = Outcome(), Protected(translator), not asks_again(translator)
    rows = corpus.select_columns(["id", "text_en", "translations"])
    for language in languages:
        wanted = _wanted(rows, language)
        done = TranslationFile(translation_path(folder, language))
        keys = {text: text_key(text) for text in wanted}
        missing = [text for text, key in keys.items() if key not in done.texts]
        with tqdm(total=len(missing), desc=language, unit="text", disable=not progress, dynamic_ncols=True) as bar:
            batch: list[tuple[str, str | None, str]] = []
            for number, translation, problem in protected.translate(missing, language):
                batch.append((keys[missing[number]], translation, problem))
                if len(batch) == translator.batch_size:
                    done.add(batch, keeps_failures)
                    batch = []
                bar.update()
            done.add(batch, keeps_failures)
        for text, name in wanted.items():
            translation, problem = done.texts[keys[text]]
            outcome.translated[language] += translation is not None
            if translation is None:
                outcome.rejected.append(RejectedRow("not translated", problem, id=name, language=language))
    return outcome


def translated_rows(corpus: Dataset, languages: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a corpus with the translations of a folder after those that they have, images as they are stored."""
    from datasets import Image

    files = {language: TranslationFile(translation_path(folder, language)).texts for language in languages}
    lacking = dict.fromkeys(translation_fields(corpus.features))
    for row in corpus.cast_column("image", Image(decode=False)):
        key = text_key(row["text_en"] or "")
        present = {comparable_code(item["lang"]) for item in row["translations"]}
        texts = {language: files[language].get(key, (None, ""))[0] for language in languages
                 if comparable_code(language) not in present}  # fmt: skip
        new = [{**lacking, "lang": language, "text": text} for language, text in texts.items() if text is not None]
        yield {**row, "translations": [*row["translations"], *new]}


def translation_path(folder: Path, language: str) -> Path:
    """The file of the translations into a language."""
    return folder / f"{language}.jsonl"


def _names(language: str) -> list[str]:
    """How models call a language: M2M100, NLLB, MADLAD, Marian.

    A region falls back to its language (`pt-BR` to `pt`), a script does not: another script would be another text.
    """
    base, *parts = language.split("-")
    flores = FLORES.get(base, "")
    script = next((part for part in parts if len(part) == 4 and part.isalpha()), None)
    if language in ("zh-HK", "zh-MO", "zh-TW"):
        script = "Hant"
    spelled = "_".join((base, *parts))
    exact = [f"__{spelled}__", f"<2{spelled}>", f">>{spelled}<<", f">>{spelled.lower()}<<"]
    if script and flores:
        exact += [f"{flores[:3]}_{script}", f">>{flores[:3]}_{script}<<"]
    if script and not flores.endswith(script):
        return exact
    short = [f"__{base}__", flores, f"<2{base}>", f">>{base}<<", f">>{flores[:3]}<<" if flores else ""]
    return list(dict.fromkeys(name for name in (*exact, *short) if name))


def _wanted(rows: Dataset, language: str) -> dict[str, str]:
    """The distinct English texts of rows that lack a language, each with the id of the first row that has it."""
    ids: dict[str, str] = {}
    wanted = comparable_code(language)
    for columns in rows.iter(batch_size=_ROWS):
        for name, english, items in zip(columns["id"], columns["text_en"], columns["translations"], strict=True):
            if all(comparable_code(item["lang"]) != wanted for item in items):
                ids.setdefault(english or "", name)
    return ids
