"""Images with a caption in English and in many other languages, some of which lack some: retrieval both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xvlm2vec.common.captioned.captions import Captioned, is_held_out, locale_code

from .source import Source
from .task_rows import Content, TaskRows

MISSING, UNTRANSLATED = "no caption", "the same as in English"


def parts(source: Source, dataset: str, items: Sequence[Captioned]) -> Iterator[tuple[str, Sequence[Captioned]]]:
    """A data set, and `<data set>-test`: the images that `xvlm2vec corpus read` keeps out of training data."""
    if items and source.selection.takes(dataset=dataset):
        yield dataset, items
    held_out = [item for item in items if is_held_out(item.english)]
    if held_out and source.selection.asks_for(f"{dataset}-test"):
        yield f"{dataset}-test", held_out


def both_ways(
    source: Source,
    dataset: str,
    where: str,
    items: Sequence[Captioned],
    images: Mapping[str, Any],
    is_translated: Callable[[str, str, str], bool] | None = None,
) -> Iterator[TaskRows]:
    """Retrieval from image to caption and back, in every language that has any caption of its own.

    All images compete in every language. Equal captions are queries of their own and share their images as right
    answers. What lacks a caption is skipped, and what is still in English.

    Args:
        source: What is read, and what of it is wanted.
        dataset: Name of the data set.
        where: The files, for messages.
        items: The images.
        images: The images by their names.
        is_translated: Takes the language, a caption, and the English one, both stripped (default: they differ).
    """
    spellings = {locale_code(spelling): spelling for item in items for spelling in item.others}
    captions = {"en": [(item.english.strip(), "") for item in items]}
    for language, spelling in spellings.items():
        if language != "en":
            captions[language] = [_caption(item, spelling, is_translated) for item in items]
    for language, texts in captions.items():
        if any(text for text, _ in texts) and source.selection.takes(dataset=dataset, language=language):
            yield from _one_language(source, dataset, language, where, items, texts, images)


def _caption(item: Captioned, spelling: str, is_translated: Callable[[str, str, str], bool] | None) -> tuple[str, str]:
    """A caption, or nothing and the reason."""
    text, english = item.others.get(spelling, "").strip(), item.english.strip()
    if not text:
        return "", MISSING
    kept = is_translated(locale_code(spelling), text, english) if is_translated else text != english
    return (text, "") if kept else ("", UNTRANSLATED)


def _one_language(
    source: Source,
    dataset: str,
    language: str,
    where: str,
    items: Sequence[Captioned],
    texts: Sequence[tuple[str, str]],
    images: Mapping[str, Any],
) -> Iterator[TaskRows]:
    bearers: dict[str, list[Content]] = {}
    for item, (text, _) in zip(items, texts, strict=True):
        if text:
            bearers.setdefault(text, []).append((None, item.image))
    for name in ("i2t", "t2i"):
        if not source.selection.takes(task=name):
            continue
        task = source.rows(dataset, language, where, images, task=name, whole_pool=True)
        for number, (item, (text, reason)) in enumerate(zip(items, texts, strict=True)):
            if reason:
                task.skip(reason)
            elif name == "i2t":
                task.add(number, None, item.image, [(text, None)])
            else:
                task.add(number, text, None, bearers[text])
        if name == "t2i":
            task.number((None, item.image) for item in items)
        yield task
