"""A corpus on the Hub: what the card says, which files are sent, and which are not sent again."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset, load_dataset
from PIL import Image

from xvlm2vec.hub.corpus_export import CorpusCard, export_corpus
from xvlm2vec.hub.dataset_export import DataSource
from xvlm2vec.hub.staging import ExportError

# One process makes all pushes, since its imports take most of the time.
PUSHES = """
import contextlib, io, json, sys
from xvlm2vec.cli import main

found = []
for arguments in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(["corpus", "push", *arguments])
    found.append([code, out.getvalue()])
print(json.dumps(found))
"""


def corpus(count=3):
    image = Image.new("RGB", (4, 4), "red")
    rows = [{"id": str(number), "image": image if number % 2 else None, "text_en": f"dog {number}",
             "translations": [{"lang": "de", "text": f"Hund {number}"}], "source": "stamps" if number else "captions"}
            for number in range(count)]  # fmt: skip
    from xvlm2vec.corpus.schema import parallel_features

    return Dataset.from_list(rows, features=parallel_features())


def card(**changes):
    language = {"texts": 3, "coverage": 1.0, "with_image": 1}
    stats = {"rows": 3, "images": {"rows": 1}, "sources": {"stamps": 2, "captions": 1},
             "languages": {"en": language, "de": language}}  # fmt: skip
    values = {
        "name": "tiny", "repo_id": "me/tiny", "stats": stats,
        "sources": [DataSource("stamps", "gpl-2.0", "https://example.org"), DataSource("captions", "cc-by-4.0")],
    }  # fmt: skip
    return CorpusCard(**{**values, **changes})


def test_each_row_has_its_license_where_they_differ(tmp_path):
    export_corpus(corpus(), tmp_path / "out", card())
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["license"] == ["cc-by-4.0", "gpl-2.0", "gpl-2.0"]
    assert rows[1]["image"].size == (4, 4)
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "license: other\nlicense_name: by-row" in readme
    assert "| [stamps](https://example.org) | 2 | gpl-2.0 |" in readme

    same = card(sources=[DataSource("stamps", "mit"), DataSource("captions", "mit")])
    export_corpus(corpus(), tmp_path / "out", same)
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text()
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "other"))
    assert "license" not in rows.column_names


def test_more_rows_leave_the_files_before_as_they_are(tmp_path):
    files = []
    for count in (400, 601):
        export_corpus(corpus(count), tmp_path / str(count), card(), file_bytes=1)
        files.append({path.name: path.read_bytes() for path in (tmp_path / str(count) / "data").iterdir()})
    few, more = files
    assert sorted(few) == ["train-00000.parquet", "train-00001.parquet"]
    assert len(more) == 4
    assert few == {name: more[name] for name in few}


def test_rows_without_a_license_and_unknown_licenses_are_refused(tmp_path):
    with pytest.raises(ExportError, match="the rows of 'captions' have no license"):
        export_corpus(corpus(), tmp_path / "out", card(sources=[DataSource("stamps", "mit")]))
    with pytest.raises(ExportError, match="license: 'GPL2' is not on the Hub's list"):
        export_corpus(corpus(), tmp_path / "out", card(sources=[
            DataSource("stamps", "GPL2"), DataSource("captions", "mit"),
        ]))  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_push_goes_on_where_it_broke_and_an_unchanged_one_sends_nothing(hub_site, loopback, tmp_path):
    folder = tmp_path / "out"
    corpus().save_to_disk(folder / "parallel")
    (folder / "state.json").write_text(json.dumps({"settings": {"model": "google/madlad400-3b-mt", "apertium": True}}))
    counts = {"rows": 4, "kept": 3, "dropped": {"copy": 1}, "repaired": {}, "told": {"pairing": 2}}
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    (tmp_path / "sources.yaml").write_text("stamps: {license: gpl-2.0}\n")
    loopback.fail("POST", "/api/datasets/acme/tiny/commit/", status=500)
    push = [str(folder / "parallel"), "--to", "acme/tiny", "--check", str(tmp_path / "counts.json")]
    licensed = [*push, "--license", "cc-by-4.0", "--sources", str(tmp_path / "sources.yaml")]
    pushes = [push, [*licensed, "--dry-run"], licensed, licensed, licensed]
    unlicensed, dry, broken, whole, again = json.loads(hub_site.python(PUSHES, json.dumps(pushes)).splitlines()[-1])

    assert unlicensed[0] == 1
    assert "have no license" in unlicensed[1]
    assert dry[0] == 0
    assert "acme/tiny/data/train-00000.parquet" in dry[1]
    assert broken[0] == 1
    assert "run the same command again" in broken[1]
    assert whole[0] == 0, whole[1]
    assert "v1.0.0 pushed" in whole[1]
    assert again[0] == 0
    assert "v1.0.0 is on the Hub already; nothing was sent" in again[1]

    repo = loopback.repo("acme/tiny", "dataset")
    assert len(loopback.uploaded()) == 1, "the file with the rows went over once"
    assert len(loopback.commits_made()) == 1
    readme = repo.commits[repo.tags["v1.0.0"]].tree["README.md"].data.decode()
    assert "`google/madlad400-3b-mt`, Apertium; of several translations the best was kept, by rules" in readme
    assert "| `copy` | 1 |  |  |" in readme
    assert "| de | 3 | 100.0% | 1 |" in readme
