"""Translators by what a user calls them, and queries that they put into English."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xvlm2vec.common.languages import normal_code

if TYPE_CHECKING:
    from xvlm2vec.corpus.translation import Translator
    from xvlm2vec.eval.ranking import RankingTask

logger = logging.getLogger(__name__)

FOLDER = "translated-queries"


def load_translator(
    source: str, *, tags: Sequence[str] = (), batch_size: int = 32, num_beams: int = 1, max_new_tokens: int = 256
) -> Translator:
    """A translation model, on a GPU in half the memory where there is one.

    Args:
        source: Folder or Hub id.
        tags: The model's names of languages, each as `CODE=TAG`.
        batch_size: Texts at a time.
        num_beams: Width of the beam search.
        max_new_tokens: Most tokens of a translation.

    Raises:
        ValueError: A tag is not of the form CODE=TAG, or the model is none of translation.
    """
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from xvlm2vec.corpus.translation import Translator

    wrong = [tag for tag in tags if "=" not in tag]
    if wrong:
        raise ValueError(f"--tags takes CODE=TAG, such as de=deu_Latn, not {wrong[0]!r}.")
    on_gpu = torch.cuda.is_available()
    model = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=torch.bfloat16 if on_gpu else torch.float32)
    return Translator(
        model.to("cuda" if on_gpu else "cpu"),
        AutoTokenizer.from_pretrained(source),
        tags={normal_code(code): tag for code, tag in (tag.split("=", 1) for tag in tags)},
        batch_size=batch_size,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
    )


def add_translation_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that names a translator of queries."""
    parser.add_argument("--translate-queries", metavar="MODEL|FILE", help="also score the model on queries "
                        "translated into English, as rows of another style with the seconds that this took: by a "
                        "translation model as `xvlm2vec translate` takes (NLLB, M2M100, MADLAD, Marian), or from a "
                        f"file of JSON lines with language, text and english, as in OUTPUT/{FOLDER}")  # fmt: skip


def with_translated_queries(source: str, tasks: list[RankingTask], output: Path) -> list[RankingTask]:
    """The tasks, followed by those that ask their queries in English.

    The first of several processes translates, the others wait and read what it has written.

    Args:
        source: A translation model, or a file of translations.
        tasks: The tasks.
        output: What a model translates is kept below it, and used again.

    Raises:
        ValueError: The model translates none of the languages into English, a file is damaged, or no query is
            translated.
        OSError: There is no such model.
    """
    from xvlm2vec.eval.translated import TranslatedQueries, queries_to_translate, translated_tasks

    wanted = queries_to_translate(tasks)
    if not wanted:
        raise ValueError("no task asks in a text of another language than English, so there is nothing to translate")
    if Path(source).is_file():
        return [*tasks, *translated_tasks(tasks, TranslatedQueries(Path(source)), Path(source).name)]
    path = _translate(source, wanted, output / FOLDER)
    return [*tasks, *translated_tasks(tasks, TranslatedQueries(path), source)]


def _translate(source: str, wanted: Mapping[str, Sequence[str]], folder: Path) -> Path:
    """Translates what the model's file lacks, in the first process; returns the file when that is done."""
    from xvlm2vec.common.fingerprint import fingerprint, plain_config, saved_digest
    from xvlm2vec.eval.processes import processes
    from xvlm2vec.eval.translated import TranslatedQueries

    translator = load_translator(source)
    settings = {"config": plain_config(translator.model.config), "tokenizer": saved_digest(translator.tokenizer)}
    digest = fingerprint(settings, translator.model.state_dict())  # another model's translations are not these
    path = folder / f"{digest[:16]}.jsonl"
    group = processes()
    if group.is_main:
        known = _known_languages(translator, wanted, source)

        def into_english(texts: Sequence[str], language: str) -> Iterator[tuple[int, str | None, str]]:
            return translator.translate(texts, "en", language)

        TranslatedQueries(path).fill({code: wanted[code] for code in known}, into_english, translator.batch_size)
    group.wait()
    return path


def _known_languages(translator: Translator, wanted: Mapping[str, Sequence[str]], source: str) -> list[str]:
    """The languages that a model can be given; the others are told."""
    known = [language for language in wanted if _knows(translator, language)]
    if not known:
        raise ValueError(f"{source} has no name for any of the languages {', '.join(wanted)}")
    if len(known) < len(wanted):
        others = ", ".join(language for language in wanted if language not in known)
        logger.warning("%s has no name for %s: their queries are not translated", source, others)
    if len(known) > 1 and any(translator.tag(language) is None for language in known):
        logger.warning("%s has no names of languages: it is given %s alike", source, ", ".join(known))
    return known


def _knows(translator: Translator, language: str) -> bool:
    try:
        translator.tag(language)
    except ValueError:
        return False
    return True
