"""Embedders that run by their own code are given back: their files, with the taught values in the right places."""

from __future__ import annotations

import filecmp
import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

sys.path.insert(0, str(Path(__file__).parents[1] / "adoption"))
from saved_forms import build_st

from xvlm2vec.common.adoption.adopt import adopt
from xvlm2vec.common.adoption.black_box import BlackBoxModel
from xvlm2vec.common.adoption.sources import ORIGIN_FILE
from xvlm2vec.hub.chain_tensors import Place, places_of, value_of
from xvlm2vec.hub.golden import weights_fingerprint
from xvlm2vec.hub.original_chain import freeze_unplaced, give_back, taught_weights, write_chain
from xvlm2vec.hub.release import check_not_black_box
from xvlm2vec.hub.staging import MANIFEST, ExportError
from xvlm2vec.hub.verify import loaders_of

TEXTS = ["a red dog", "ein Haus am See"]


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str], Path]:
    return cache(lambda name: build_st(name, tmp_path / name))


def taken_over(folder: Path) -> BlackBoxModel:
    model = adopt(str(folder), trust_remote_code=True).model
    assert isinstance(model, BlackBoxModel)
    return model


def teach(model: BlackBoxModel, *names: str) -> None:
    """Moves the weights with these words in their names, of those that are trained."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and any(word in name for word in names):
                weight += 0.01 * torch.randn_like(weight)


def different(source: Path, folder: Path) -> set[str]:
    """Stored tensors with other values, by their file."""
    return {
        f"{path.relative_to(source).as_posix()}:{key}"
        for path in source.rglob("*.safetensors")
        for key, value in load_file(path).items()
        if not torch.equal(value, load_file(folder / path.relative_to(source))[key])
    }


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("scenes", ("last_norm",), {"0_Scenes/model.safetensors:last_norm." + end for end in ("weight", "bias")}),
        ("custom", ("embeddings.word_",), {"model.safetensors:embeddings.word_embeddings.weight"}),
        ("own-bert", ("embeddings.word_",), {"model.safetensors:embeddings.word_embeddings.weight"}),
        pytest.param(
            "router-image",
            ("text.2.linear",),
            {"text_2_Dense/model.safetensors:linear." + end for end in ("weight", "bias")},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_only_what_was_taught_differs(
    source: Callable[[str], Path], tmp_path: Path, name: str, words: tuple[str, ...], expected: set[str]
) -> None:
    origin, output = source(name), tmp_path / "run"
    model = taken_over(origin)
    freeze_unplaced(model, origin, output)
    teach(model, *words)
    model.save_pretrained(tmp_path / "weights")
    (output / "checkpoints").mkdir(parents=True)
    give_back(model, origin, tmp_path / "weights", output)
    assert different(origin, output) == expected
    others = [
        path.relative_to(origin) for path in origin.rglob("*") if path.is_file() and path.suffix != ".safetensors"
    ]
    _, mismatch, errors = filecmp.cmpfiles(origin, output, map(str, others), shallow=False)
    assert not mismatch
    assert not errors
    assert (output / ORIGIN_FILE).is_file()
    assert not (output / MANIFEST).exists()
    stock = SentenceTransformer(str(output), trust_remote_code=True)
    assert np.allclose(stock.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    again = taken_over(output)  # which remembers what it was made from
    assert again.config.adopted["source"] == str(origin)


def test_weights_that_cannot_be_found_again_are_not_trained(
    source: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    origin = source("scenes-turned")
    model = taken_over(origin)
    with caplog.at_level(logging.WARNING):
        freeze_unplaced(model, origin, tmp_path / "run")
    assert "1 of 8 weights stay as they are" in caplog.text
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == [
        "backbone.modules_of_source.0.mix.weight"
    ]
    teach(model, "")
    write_chain(origin, tmp_path / "out", taught_weights(model), trust_remote_code=True)
    assert len(different(origin, tmp_path / "out")) == 7
    with torch.no_grad():
        model.modules_of_source[0].mix.weight += 1
    with pytest.raises(ExportError, match=r"0\.mix\.weight was taught, and it is not certain"):
        write_chain(origin, tmp_path / "other", taught_weights(model), trust_remote_code=True)
    assert not (tmp_path / "other").exists()


def test_weights_that_are_drawn_and_not_used_are_passed_over(source: Callable[[str], Path], tmp_path: Path) -> None:
    """As the pooler of a BERT, which many folders lack."""
    origin = source("custom")
    weights = load_file(origin / "model.safetensors")
    kept = {key: value for key, value in weights.items() if not key.startswith("pooler")}
    assert len(kept) < len(weights)
    save_file(kept, origin / "model.safetensors", {"format": "pt"})
    model = taken_over(origin)
    freeze_unplaced(model, origin, tmp_path / "run")
    teach(model, "word_embeddings")
    write_chain(origin, tmp_path / "out", taught_weights(model), trust_remote_code=True)
    stock = SentenceTransformer(str(tmp_path / "out"), trust_remote_code=True)
    assert np.allclose(stock.encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_nothing_is_written_into_the_original(source: Callable[[str], Path]) -> None:
    origin = source("scenes")
    with pytest.raises(ExportError, match="lie in each other"):
        freeze_unplaced(taken_over(origin), origin, origin / "run")


def test_a_check_runs_own_code_only_where_there_is_some(source: Callable[[str], Path]) -> None:
    assert loaders_of(source("router")) == ("native",)
    assert loaders_of(source("custom")) == loaders_of(source("own-bert")) == ("sentence-transformers",)
    before = weights_fingerprint(source("router"))
    (path,) = source("router").glob("query_*/model.safetensors")
    save_file({key: value * 2 for key, value in load_file(path).items()}, path, {"format": "pt"})
    assert weights_fingerprint(source("router")) != before


def test_a_release_has_no_other_form(source: Callable[[str], Path]) -> None:
    with pytest.raises(ExportError, match="leave --native"):
        check_not_black_box(taken_over(source("scenes")))


class TestPlaces:
    """Which stored tensor a parameter is."""

    def test_routes_of_one_origin_are_told_by_their_folders(self) -> None:
        weight = torch.randn(4, 4)
        stored = {Place(f"{route}_0_T/model.safetensors", "a.weight"): value_of(weight) for route in ("query", "doc")}
        state = {f"0.sub_modules.{route}.0.model.a.weight": weight.clone() for route in ("query", "doc")}
        assert {place.file[:3]: name[14:17] for place, name in places_of(stored, state).items()} == {
            "que": "que",
            "doc": "doc",
        }

    def test_a_copy_of_tied_embeddings_follows(self) -> None:
        weight = torch.randn(4, 4)
        stored = {Place("model.safetensors", key): value_of(weight) for key in ("embed.weight", "lm_head.weight")}
        tied = {"0.embed.weight": weight, "0.head.weight": weight}
        assert set(places_of(stored, tied).values()) == {"0.embed.weight"}
        assert len(places_of(stored, tied)) == 2

    def test_fresh_norms_without_a_like_name_have_no_place(self) -> None:
        stored = {Place("model.safetensors", f"{name}.gamma"): value_of(torch.ones(4)) for name in ("one", "two")}
        state = {f"0.{name}.weight": torch.ones(4) for name in ("norm_a", "norm_b")}
        assert places_of(stored, state) == {}
        assert places_of(stored, {"0.norm_a.weight": torch.ones(4)}) == {}

    def test_values_are_compared_across_number_formats(self) -> None:
        weight = torch.randn(4, 4).bfloat16()
        assert value_of(weight) == value_of(weight.float())
        assert value_of(weight) != value_of(weight.float().reshape(2, 8))
