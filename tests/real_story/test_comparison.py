"""The comparison asks the same captions of other readers: right answers are the stamp's, and English by Apertium."""

from types import SimpleNamespace

import pytest
from PIL import Image

from xvlm2vec.corpus.translators.apertium import Apertium
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS
from xvlm2vec.eval.benchmarks.reading import read_benchmark
from xvlm2vec.eval.runner import evaluate
from xvlm2vec.eval.spoken import tell_languages
from xvlm2vec.real_story.comparison import caption_tasks, translated_tasks

CAPTIONS = {
    "cat": ("A cat.", "Un gat."),
    "cat2": ("A cat.", "Un gat."),
    "dog": ("A dog.", "Un gos."),
    "sea": ("The sea.", "La xyzzyx."),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    stamps = tmp_path_factory.mktemp("package") / "stamps"
    stamps.mkdir()
    for number, (name, (english, catalan)) in enumerate(CAPTIONS.items()):
        Image.new("RGB", (20, 20), (number * 60, 0, 9)).save(stamps / f"{name}.png")
        (stamps / f"{name}.txt").write_text(f"{english}\nca.utf8={catalan}\n")
    return read_benchmark("tuxpaint", stamps.parent, tasks=["t2i"], templates=NO_INSTRUCTIONS)


def test_a_caption_looks_for_the_english_one_of_its_stamp(tasks):
    (task,) = caption_tasks(tasks)
    assert (task.task, task.language) == ("captions", "ca")
    assert [row.text for row in task.candidates] == ["A cat.", "A dog.", "The sea."]
    right = {
        query.text: task.candidates[places[0]].text
        for query, places in zip(task.queries, task.candidate_index, strict=True)
    }
    assert right == {"Un gat.": "A cat.", "Un gos.": "A dog.", "La xyzzyx.": "The sea."}


def test_english_captions_are_embedded_by_the_base(tasks):
    """They were told to be in the language of the queries, whose adapter then moved them."""
    adapters = {"one": SimpleNamespace(languages=["ca"])}
    encoder = SimpleNamespace(name="activated", model=SimpleNamespace(language_adapters=adapters))
    (told,) = tell_languages(encoder, caption_tasks(tasks))
    assert {row.language for row in told.queries} == {"ca"}
    assert {row.language for row in told.candidates} == {None}


def test_apertium_asks_in_english_and_what_it_cannot_say_is_counted(tasks):
    if not Apertium().has("en", "ca"):
        pytest.skip("apertium-eng-cat is not installed")
    (task,), missing = translated_tasks(tasks)
    texts = [query.text for query in task.queries]
    assert [text for text in texts if "cat" in text and "gat" not in text]
    assert "La xyzzyx." in texts
    assert missing == {"stamps/ca": 1}
    (plain,) = [other for other in tasks if other.language == "ca"]
    assert (task.candidate_index == plain.candidate_index).all()

    def embed(texts, images):  # knows English alone
        things = ("cat", "dog", "sea")
        shades = {0: 0, 60: 0, 120: 1, 180: 2}
        rows = []
        for text, image in zip(texts, images, strict=True):
            place = shades[image.getpixel((0, 0))[0]] if image is not None else None
            found = place if image is not None else next((n for n, t in enumerate(things) if t in text), None)
            rows.append([1.0 if number == found else 0.2 - 0.1 * number for number in range(3)])
        return rows

    (score,) = evaluate(embed, [task], progress=False).rows
    assert score["p_at_1"] == pytest.approx(3 / 4)  # what was left in Catalan is not found
