"""Releases of activated adapters: their base keeps every bit, which a fresh process measures, and merged ones drift."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_adapter_base import push_base
from test_release_to_hub import KEEP_OUT

from xvlm2vec.cli import main
from xvlm2vec.commands.release import _parser
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.flags.release import release_inputs
from xvlm2vec.hub.activated_release import Below
from xvlm2vec.hub.card import ReleaseCard
from xvlm2vec.hub.golden import read_golden, write_golden
from xvlm2vec.hub.merged_adapter import merge_language
from xvlm2vec.hub.native import NativeError, check_native
from xvlm2vec.hub.release import Release, ReleaseInputs, name_for_folder, release_to_folder
from xvlm2vec.hub.staging import ExportError
from xvlm2vec.hub.verify import verify
from xvlm2vec.hub.zero_drift import compare_with_base
from xvlm2vec.modeling.activated import Routes, acting
from xvlm2vec.modeling.adapters import AdapterBase
from xvlm2vec.modeling.language_adapters import UnknownLanguageError, languages_of
from xvlm2vec.modeling.loading import CheckpointError
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig

TINY = TinyModelConfig(
    image_size=16, patch_size=4, hidden_size=32, vision_layers=1, text_layers=2, heads=2, intermediate_size=48,
    vocab_size=400,
)  # fmt: skip
IMAGE = Image.new("RGB", (16, 16), (200, 30, 40))
ROWS = {"text": ["a red dog", None, "rain"], "images": [None, IMAGE, IMAGE]}
SPOKEN = {"text": ["ein roter Hund", "un cane rosso"], "images": [IMAGE, None], "language": ["de", "it"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(0)
    model, processor = build_tiny_model(TINY, ["a red dog", "ein roter Hund", "un cane rosso", "rain over the sea"])
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def taught(base: Path | str, names: tuple[str, ...] = ("de", "it"), **options: object) -> XVLM2VecModel:
    """A base with adapters that do something; one for all languages if it is called default."""
    model = XVLM2VecModel.from_pretrained(base, **options)
    config = AdapterConfig(rank=2, dora=True, train_embeddings=True, activated=True)
    generator = torch.Generator().manual_seed(1)
    for name in names:
        add_activated(model, config, name)
        model.language_adapters[name].languages = ["de", "it"] if name == "default" else [name]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for each of two languages, as a training leaves them."""
    folder = tmp_path_factory.mktemp("run") / "adapter"
    model = taught(base)
    model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def release(adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The whole release, verified in fresh processes."""
    folder = tmp_path_factory.mktemp("out")
    run = name_for_folder(inputs(adapters, "--name", "taught", "--license", "apache-2.0"), folder)
    return release_to_folder(run, folder, dtypes=("float32",))


@pytest.fixture(scope="module")
def released(release: Release) -> Path:
    return release.folders["model"]


def inputs(source: Path, *flags: str) -> ReleaseInputs:
    """What the command makes of its flags."""
    return release_inputs(_parser().parse_args([str(source), "--to", "./out", *flags]))


@pytest.mark.slow
def test_base_and_adapters_lie_in_one_folder_and_load_from_it(released: Path, base: Path, adapters: Path) -> None:
    loaded, bare = XVLM2VecModel.from_pretrained(released), XVLM2VecModel.from_pretrained(base)
    np.testing.assert_array_equal(loaded.encode(**ROWS), bare.encode(**ROWS))
    np.testing.assert_array_equal(XVLM2VecModel.base_of(released).encode(**ROWS), bare.encode(**ROWS))
    spoken = XVLM2VecModel.from_pretrained(adapters).encode(**SPOKEN)
    np.testing.assert_array_equal(loaded.encode(**SPOKEN), spoken)
    alone = XVLM2VecModel.from_pretrained(released / "de")
    assert languages_of(alone) == ["de"]
    np.testing.assert_allclose(alone.encode("ein roter Hund", IMAGE, language="de"), spoken[0], atol=1e-6)
    for part in ("de", "it"):
        stored = (released / part / "adapter_model.safetensors").read_bytes()
        assert stored == (adapters / part / "adapter_model.safetensors").read_bytes()


def test_languages_of_one_adapter_are_embedded_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release of one adapter for a hundred languages embedded its rows a hundred times in each process."""
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    model = taught(base, ("default", "ja"))
    model.language_adapters["default"].languages = ["de", "es", "fr", "it", "pt"]
    calls: list[str] = []
    encode = XVLM2VecModel.encode

    def counting(self: XVLM2VecModel, *given: object, **options: object) -> object:
        calls.append(str(options.get("language")))
        return encode(self, *given, **options)

    monkeypatch.setattr(XVLM2VecModel, "encode", counting)
    write_golden(folder, speaker=model)
    assert sorted(set(calls)) == ["de", "ja"]
    golden = read_golden(folder)
    assert list(golden.languages) == ["de", "es", "fr", "it", "ja", "pt"]
    assert golden.checked_languages == ["de", "ja"]
    torch.testing.assert_close(golden.languages["pt"], golden.languages["de"], rtol=0, atol=0)
    calls.clear()
    drift = compare_with_base(model, XVLM2VecModel.from_pretrained(base), model.processor)
    assert list(drift.languages) == list(golden.languages)
    assert {call for call in calls if call != "None"} == {"de", "ja"}


@pytest.mark.slow
def test_the_card_says_what_was_measured(released: Path) -> None:
    card = (released / "README.md").read_text(encoding="utf-8")
    assert "Zero drift: with its adapters for de, it the model gives 12 fixed rows" in card
    assert 'language="de"' in card
    assert "in 3 languages (en, de, it)" in card
    assert "PeftModel" not in card


@pytest.mark.slow
def test_it_is_verified_by_bits_and_in_its_languages(release: Release) -> None:
    report = release.report
    found = {(check.loader, check.arrangement) for check in report.checks}
    assert {("automodel", "language de"), ("automodel", "language it"), ("adapters", "one batch")} <= found
    assert {("sentence-transformers", "alone"), ("sentence-transformers", "language it")} <= found
    assert report.facts[0].startswith("Zero drift")


@pytest.mark.slow
def test_a_moved_release_whose_base_was_changed_is_caught(released: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(released, tmp_path / "moved"))
    assert languages_of(XVLM2VecModel.from_pretrained(folder)) == ["de", "it"]
    weights = load_file(folder / "model.safetensors")
    weights[min(weights)].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="trained on other weights"):
        XVLM2VecModel.from_pretrained(folder)
    report = verify(folder, loaders=("adapters",), dtypes=("float32",))
    assert "the weights are not those" in report.problems[0]
    assert "trained on other weights" in report.problems[1]


@pytest.mark.slow
def test_a_release_that_would_move_a_vector_is_not_written(base: Path, tmp_path: Path) -> None:
    """The base was another one when what is stored was embedded."""
    shutil.copytree(base, tmp_path / "other")
    weights = load_file(base / "model.safetensors")
    weights["backbone.text_model.norm.weight"][0] *= 1.001
    save_file(weights, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    model, other = taught(base), XVLM2VecModel.from_pretrained(tmp_path / "other")
    for part in model.language_adapters.values():
        part.config["xvlm2vec"]["base"] = {}  # as of a base in 4 bits, which has no digest
    run = ReleaseInputs(model, model.processor, ReleaseCard("taught"), below=Below(other, AdapterBase(str(base))))
    with pytest.raises(ExportError, match="move the vectors of image and text en"):
        release_to_folder(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merged_model_says_how_far_it_drifts(base: Path, adapters: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--merge de"):
        inputs(adapters, "--merge")
    with pytest.raises(UnknownLanguageError, match="de, it"):
        inputs(adapters, "--merge", "tr")
    merged = inputs(adapters, "--merge", "it")
    assert merged.card.languages == ("en", "it")
    kinds = {row["kind"]: row for row in merged.card.drift}
    assert set(kinds) == {"texts in English", "images", "images with an English text"}
    before, after = (model.encode(**ROWS) for model in (XVLM2VecModel.from_pretrained(base), merged.model))
    assert kinds["images"]["difference"] > 1e-3
    assert np.abs(before - after).max() > 1e-3
    assert not merged.model.language_adapters


def test_merging_is_what_the_adapter_does_on_all_tokens(base: Path) -> None:
    model = taught(base, ("default",))
    processor = model.processor
    text = processor(text=["ein roter Hund"], images=[None])
    with torch.no_grad():
        with acting(Routes(text["input_ids"].numel(), {"default": None})):
            everywhere = model(**text).embeddings
        assert merge_language(model) == ["de", "it"]
        torch.testing.assert_close(model(**text).embeddings, everywhere, atol=1e-5, rtol=0)


def test_native_needs_a_merged_model(base: Path) -> None:
    with pytest.raises(NativeError, match="--merge"):
        check_native(taught(base))


def test_an_index_that_leads_out_of_its_folder_is_refused(adapters: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    for name in ("../adapter", "..", "de/x", ""):
        (folder / "adapters.json").write_text(json.dumps({"adapters": [name]}), encoding="utf-8")
        with pytest.raises(CheckpointError, match="no name of a folder"):
            XVLM2VecModel.from_pretrained(folder)


def test_merge_is_for_activated_adapters(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", str(base), "--to", "./out", "--merge"]) != 0
    assert "holds none" in capsys.readouterr().err


PUSH = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
from xvlm2vec.commands.release import _parser
from xvlm2vec.flags.release import release_inputs
from xvlm2vec.hub.activated_release import export_activated
from xvlm2vec.hub.push import HubTarget, look_before, name_for_hub, push_release

adapters, draft, whole = sys.argv[1:]
target, api = HubTarget("acme/taught"), HfApi()
flags = ["--to", "acme/taught", "--license", "apache-2.0"]
run = name_for_hub(release_inputs(_parser().parse_args([adapters, *flags])), target)
remotes = look_before(api, target, target.parts_of(run))
# What is pushed is verified; a release would verify it once more before.
export_activated(run.model, run.processor, Path(draft) / "model", below=run.below, card=run.card)
print(push_release(api, Path(draft), target, remotes).parts)
api.create_repo("acme/whole")
api.upload_folder(repo_id="acme/whole", folder_path=whole)
"""
STRANGER = (
    KEEP_OUT
    + """
import json
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

found = []
for name in ("acme/taught", "acme/whole"):
    model = AutoModel.from_pretrained(name, trust_remote_code=True)
    other = SentenceTransformer(name, trust_remote_code=True)
    english = [model.encode("a red dog"), other.encode("a red dog"), type(model).base_of(name).encode("a red dog")]
    spoken = model.encode(["ein roter Hund", "un cane rosso"], language=["de", "it"])
    found.append([[vector.tolist() for vector in english], spoken.tolist()])
print(json.dumps(found))
"""
)


@pytest.mark.slow
def test_on_the_hub_by_its_id_and_commit_or_whole(
    hub_site, loopback, base: Path, adapters: Path, released: Path, tmp_path: Path
) -> None:
    """The base moves on, and the adapters stay with the commit that they were trained on."""
    commit = push_base(loopback, "acme/base", base)
    named = Path(shutil.copytree(adapters, tmp_path / "named"))
    for path in named.glob("*/adapter_config.json"):
        place = {"base_model_name_or_path": "acme/base", "revision": commit}
        path.write_text(json.dumps(json.loads(path.read_text()) | place), encoding="utf-8")
    hub_site.python(PUSH, named, tmp_path / "draft", released)
    names = {path.name for path in (tmp_path / "draft" / "model").iterdir()}
    assert {"adapters.json", "config.json", "modeling_xvlm2vec.py", "de", "it"} <= names
    assert "model.safetensors" not in names
    assert f"`acme/base` at revision `{commit}`" in (tmp_path / "draft/model/README.md").read_text(encoding="utf-8")
    (base / "extra.txt").write_text("moved on", encoding="utf-8")
    assert push_base(loopback, "acme/base", base) != commit
    expected = XVLM2VecModel.from_pretrained(adapters)
    for english, spoken in json.loads(hub_site.python(STRANGER, cache="stranger").splitlines()[-1]):
        for vector in english:
            np.testing.assert_allclose(vector, expected.encode("a red dog"), atol=1e-6)
        together = expected.encode(["ein roter Hund", "un cane rosso"], language=["de", "it"])
        np.testing.assert_allclose(spoken, together, atol=1e-6)
