"""What `eval` uses of mteb beyond its documented interface; an upgrade that takes it away is told here."""

from __future__ import annotations

import json
from importlib import resources

import pytest

pytest.importorskip("mteb")


def test_language_files() -> None:
    for name, key, value in (("iso_639_1_to_3", "de", "deu"), ("iso_639_3_to_default_script", "deu", "Latn")):
        file = resources.files("mteb.languages").joinpath(f"{name}.json")
        assert file.is_file(), f"mteb no longer ships languages/{name}.json, which eval/mteb/models.py reads"
        assert json.loads(file.read_text(encoding="utf-8")).get(key) == value, f"mteb's {name}.json has another form"


def test_metadata_of_an_unknown_model() -> None:
    from mteb.models import ModelMeta

    assert hasattr(ModelMeta, "create_empty"), "mteb's ModelMeta.create_empty is gone; eval/mteb/models.py needs it"
    meta = ModelMeta.create_empty({"name": "local/any", "modalities": ["text"]})
    assert (meta.name, meta.modalities) == ("local/any", ["text"]), "ModelMeta.create_empty takes other arguments now"


def test_the_names_that_mteb_knows() -> None:
    import mteb

    names = {meta.name for meta in mteb.get_model_metas()}
    assert "intfloat/multilingual-e5-small" in names, "mteb.get_model_metas no longer lists every model"
