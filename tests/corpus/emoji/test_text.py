from __future__ import annotations

import re

import pytest

from xvlm2vec.corpus.emoji.text import LANGUAGES, SIDES, TASKS, instruct, instructions, join_names, question


def test_every_task_has_instructions_in_every_language() -> None:
    for task in TASKS:
        by_language = instructions()[task]
        assert tuple(by_language) == LANGUAGES
        for language, roles in by_language.items():
            assert set(roles) == {"query", "target"}
            assert ("{text}" in roles["query"]) == (task in ("t2i", "vqa", "vg")), (task, language)
            assert (roles["target"] == "{text}") == (task in ("c", "i2t", "vqa")), (task, language)
            assert "{text}" not in roles["query"].removesuffix("{text}"), "the text comes last"


def test_instructions_are_distinct_between_languages_and_tasks() -> None:
    texts = [
        template
        for task in TASKS
        for roles in instructions()[task].values()
        for template in roles.values()
        if template != "{text}"
    ]
    assert len(texts) == len(LANGUAGES) * 7
    assert len(set(texts)) == len(texts)


def test_questions_name_the_thing_and_differ_by_side_and_language() -> None:
    questions = [question(language, side, "NAME") for language in LANGUAGES for side in SIDES]
    assert len(set(questions)) == len(questions)
    assert all(text.count("NAME") == 1 and "{" not in text for text in questions)
    assert all(re.search(r"[?？؟]$", text) for text in questions)


def test_instruct_inserts_braces_as_they_are() -> None:
    assert instruct("t2i", "en", "query", "{name} {0}").endswith(": {name} {0}")


@pytest.mark.parametrize(
    ("language", "names", "joined"),
    [
        ("en", ["dog"], "dog"),
        ("en", ["dog", "cat"], "dog and cat"),
        ("en", ["dog", "cat", "owl", "cow"], "dog, cat, owl, and cow"),
        ("de", ["a", "b", "c"], "a, b und c"),
        ("ar", ["a", "b"], "a وb"),
        ("ja", ["a", "b"], "a、b"),
        ("zh", ["{1}", "b"], "{1}和b"),
    ],
)
def test_join_names(language, names, joined) -> None:
    assert join_names(names, language) == joined


def test_join_names_needs_a_name() -> None:
    with pytest.raises(ValueError, match="at least one name"):
        join_names([], "en")
