"""Apertium, word lists, and votes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from xvlm2vec.corpus.translators.apertium import Apertium
from xvlm2vec.corpus.translators.protected import Protected
from xvlm2vec.corpus.translators.vote import Vote
from xvlm2vec.corpus.translators.word_list import WordList

needs_apertium = pytest.mark.skipif(not shutil.which("apertium"), reason="apertium is not installed")


@needs_apertium
def test_apertium_keeps_lines_marks_and_fields_and_names_words_that_it_does_not_know():
    texts = ["a red dog", "the <b>dog</b>, a <i>cat</i>", "the big\ndog is", "<|image_1|>\nthe {name} of a dog",
             "a gnarfel", "the <b>gnarfel</b>"]  # fmt: skip
    found = {texts[number]: (text, problem) for number, text, problem in Protected(Apertium()).translate(texts, "ca")}
    assert found["a red dog"] == ("un gos vermell", "")
    assert found["the <b>dog</b>, a <i>cat</i>"] == ("el <b>gos</b>, un <i>gat</i>", "")
    assert found["the big\ndog is"] == ("el gran\nel gos és", "")  # together it is "el gos\ngran és"
    assert found["<|image_1|>\nthe {name} of a dog"][0].startswith("<|image_1|>\n")
    assert "{name}" in found["<|image_1|>\nthe {name} of a dog"][0]
    assert found["the <b>gnarfel</b>"] == found["a gnarfel"]
    assert found["a gnarfel"] == (None, "unknown-words: words that a translator did not know: *gnarfel")


@needs_apertium
def test_apertium_translates_back():
    texts = ["Un gos negre.", "Un <b>gos</b>\nnegre", "Un gnarfel."]
    found = {texts[number]: (text, problem) for number, text, problem in
             Protected(Apertium()).translate(texts, "en", source="ca")}  # fmt: skip
    assert found[texts[0]] == ("A black dog.", "")
    assert found[texts[1]] == ("A <b>dog</b>\nblack", "")
    assert found[texts[2]] == (None, "unknown-words: words that a translator did not know: *gnarfel")


@needs_apertium
def test_apertium_says_which_pairs_are_installed():
    with pytest.raises(ValueError, match=r"translates en into .*ca.* here, not into 'th'"):
        Apertium().check(["ca", "th"])


def test_a_machine_without_apertium_is_told_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the program apertium is not installed: apt install apertium"):
        Apertium()


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.csv"
    path.write_text("en,de\ndog,Daube\ndog,Hund\nrubber duck,Gummiente\n", encoding="utf-8")
    return WordList(path)


def test_a_word_has_all_its_senses(words):
    assert list(words.translate(["Dog", "rubber duck!", "a dog"], "de")) == [
        (0, "Daube, Hund", ""),
        (1, "Gummiente", ""),
        (2, None, "words.csv does not have 'a dog'"),
    ]
    with pytest.raises(ValueError, match="has no words in 'fr'; it has de"):
        words.check(["fr"])


class Said:
    batch_size = 2

    def __init__(self, languages, texts):
        self.languages, self.texts = languages, texts

    def check(self, languages):
        if set(languages) - set(self.languages):
            raise ValueError(f"only {', '.join(self.languages)}")

    def translate(self, texts, language, source="en"):
        for number, text in enumerate(texts):
            yield number, self.texts.get(text), "" if text in self.texts else "unknown"


def letters(texts):
    """How often each letter occurs: a stand-in whose vectors are known."""
    counts = np.array([[text.count(letter) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_the_translation_with_the_fewest_faults_wins_and_then_the_most_similar():
    texts = ["a red dog", "five boats at sea", "rain", "the old town"]
    first = Said(["de"], {"a red dog": "could not translate", "five boats at sea": "Boote",
                          "the old town": "Ortschaft"})  # fmt: skip
    second = Said(["de", "fr"], {"a red dog": "ein roter Hund", "five boats at sea": "fünf Boote auf See",
                                 "the old town": "the old town"})  # fmt: skip
    vote = Vote({"first": first, "second": second})
    assert {texts[n]: (text, problem) for n, text, problem in vote.translate(texts, "de")} == {
        "a red dog": ("ein roter Hund", ""),
        "five boats at sea": ("Boote", ""),
        "rain": (None, "first: unknown; second: unknown"),
        "the old town": ("Ortschaft", ""),
    }
    similar = Vote({"first": first, "second": second}, letters)
    assert next(text for _, text, _ in similar.translate(["five boats at sea"], "de")) == "fünf Boote auf See"


def test_a_vote_needs_one_translator_for_each_language():
    vote = Vote({"first": Said(["de"], {}), "second": Said(["fr"], {})})
    vote.check(["de", "fr"])
    with pytest.raises(ValueError, match="no translator is left for 'th': first: only de; second: only fr"):
        vote.check(["th"])
