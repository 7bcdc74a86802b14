"""What a translator must not touch stays where it is, whatever the translator does to texts."""

from __future__ import annotations

import pytest

from xvlm2vec.corpus.translators.protected import Piece, Protected, dissected
from xvlm2vec.modeling.families import FAMILIES


class Shouting:
    """Translates into capital letters, backwards by words, and notes what it was given."""

    batch_size = 4

    def __init__(self, lose=""):
        self.asked, self.lose = [], lose

    def check(self, languages):
        pass

    def translate(self, texts, language, source="en"):
        self.asked += texts
        for number, text in reversed(list(enumerate(texts))):
            if text == "bad":
                yield number, None, "no such word"
            else:
                words = [word for word in reversed(text.split()) if not (self.lose and word.startswith(self.lose))]
                yield number, " ".join(words).upper(), ""


def translations(texts, engine):
    return {texts[number]: (text, problem) for number, text, problem in Protected(engine).translate(texts, "de")}


@pytest.mark.parametrize(
    ("text", "translation"),
    [
        ("a red dog", "DOG RED A"),
        ("<|image_1|>\nFind it: a red dog\n", "<|image_1|>\nDOG RED A IT: FIND\n"),
        ("one dog\n\n  two cats \nthree", "DOG ONE\n\n  CATS TWO \nTHREE"),
        ("before <image> behind", "BEFORE <image> BEHIND"),
        ("<b>a dog</b> &amp;", "<b>DOG A</b> &amp;"),
        ("say {name} to <i>him</i> now", "NOW <i>HIM</i> TO {name} SAY"),
        ("%(count)d dogs run", "%(count)d RUN DOGS"),
        ("100% of it", "IT OF 100%"),
        ("2024\nyes", "2024\nYES"),
        ("12:30", "12:30"),
        ("XQA and {name} here", "AND XQA {name} HERE"),
    ],
)
def test_marks_lines_markup_and_fields_stay(text, translation):
    engine = Shouting()
    assert translations([text], engine) == {text: (translation, "")}
    assert not any(mark in asked for asked in engine.asked for mark in ("<", "{", "\n", "%("))


def test_what_a_translator_drops_is_put_between_its_parts():
    engine = Shouting(lose="XQ")
    text = "say {name} to him"
    assert translations([text], engine) == {text: ("SAY {name} HIM TO", "")}
    assert engine.asked == ["say XQA to him", "say", "to him"]


def test_unknown_words_of_rule_based_translators_are_no_marks():
    (piece,) = (part for part in dissected("say {name} again") if isinstance(part, Piece))
    assert piece.restored("*XQA di") == "{name} di"
    assert piece.restored("di XQA XQA") is None


def test_a_line_is_translated_once_and_its_fault_is_that_of_each_text():
    engine = Shouting()
    found = translations(["Find it:\na dog", "Find it:\nbad", "", "<image>\n"], engine)
    assert sorted(engine.asked) == ["Find it:", "a dog", "bad"]
    assert found == {
        "Find it:\na dog": ("IT: FIND\nDOG A", ""),
        "Find it:\nbad": (None, "no such word"),
        "": (None, "the English text is empty"),
        "<image>\n": (None, "the English text is empty"),
    }


def test_every_mark_of_an_image_is_seen():
    marks = [family.image for family in FAMILIES.values() if family.image]
    assert marks
    for mark in [*marks, "[IMG_2]", "<|image_1|>"]:
        assert dissected(f"{mark} dog") == [mark, " ", Piece("dog")], mark
