"""Activated adapters beside a model: they act on texts in their languages, and the base's vectors stay bit for bit."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from peft import PeftConfig
from PIL import Image
from safetensors.torch import load_file, save_file

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.modeling.base_digest import base_digest
from xvlm2vec.modeling.language_adapters import UnknownLanguageError, languages_of
from xvlm2vec.modeling.loading import CheckpointError
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.rows import TextImageRow
from xvlm2vec.modeling.token_groups import token_groups
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig, AdapterError, load_adapter

TINY = TinyModelConfig(
    image_size=16, patch_size=4, hidden_size=32, vision_layers=1, text_layers=2, heads=2, intermediate_size=48,
    vocab_size=400,
)  # fmt: skip
TEXTS = ["a red dog in the park", "ein roter Hund im Park", "un cane rosso nel parco", "rain over the sea"]
KINDS = {
    "lora": AdapterConfig(rank=3),
    "rslora, embeddings": AdapterConfig(rank=2, rslora=True, train_embeddings=True),
    "dora": AdapterConfig(rank=2, dora=True),
}


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def moved(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def with_adapter(folder, config=KINDS["lora"], languages=("de", "it")):
    model = XVLM2VecModel.from_pretrained(folder)
    add_activated(model, config)
    model.language_adapters["default"].languages = list(languages)
    moved(model)
    return model.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(0)
    model, processor = build_tiny_model(TINY, TEXTS)
    model.config.prompts = {"query": "Find it: ", "query-de": "Finde es: "}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def golden():
    """Texts and images of English rows, image rows and rows of both."""
    texts = [None, "a red dog", "rain over the sea", "a red dog", None]
    return texts, [picture(0), picture(0), None, None, picture(1)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_speaks_as_before_and_its_base_keeps_every_bit(base, golden, tmp_path, kind):
    texts, images = golden
    model = with_adapter(base, KINDS[kind])
    model.save_pretrained(tmp_path / "adapter")
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    loaded = XVLM2VecModel.from_pretrained(tmp_path / "adapter")
    bare = XVLM2VecModel.from_pretrained(base)
    np.testing.assert_array_equal(loaded.encode(texts, images=images), bare.encode(texts, images=images))
    spoken = {"text": TEXTS[1:3], "images": [picture(0), None], "language": ["de", "it"]}
    np.testing.assert_array_equal(loaded.encode(**spoken), model.encode(**spoken))
    assert np.abs(loaded.encode(**spoken) - bare.encode(spoken["text"], images=spoken["images"])).max() > 1e-2
    assert languages_of(loaded) == ["de", "it"]


def test_loading_freezes_no_weight_of_the_base_and_training_another_adapter_freezes_all(base, tmp_path):
    with_adapter(base).save_pretrained(tmp_path / "adapter")
    loaded, bare = XVLM2VecModel.from_pretrained(tmp_path / "adapter"), XVLM2VecModel.from_pretrained(base)
    # In bfloat16 torch gives a layer with a frozen weight other bits, so what is to be the same must be as free.
    flags = {name: weight.requires_grad for name, weight in bare.named_parameters()}
    assert set(flags.values()) == {True}
    weights = dict(loaded.named_parameters())
    assert {name: weights[name].requires_grad for name in flags} == flags
    add_activated(loaded, KINDS["lora"], name="fr")
    learning = {name for name, weight in loaded.named_parameters() if weight.requires_grad}
    assert learning
    assert all(".fr." in name for name in learning)


def test_rows_of_the_base_are_embedded_as_if_there_were_no_others(base, golden):
    texts, images = golden
    model, bare = with_adapter(base), XVLM2VecModel.from_pretrained(base)
    together = model.encode(
        [*texts, TEXTS[1], TEXTS[2]],
        images=[*images, picture(0), None],
        language=[None, "en", None, "en", "de", "de", "it"],
    )
    np.testing.assert_array_equal(together[:5], bare.encode(texts, images=images))
    alone = model.encode(TEXTS[1], images=picture(0), language="DE")
    np.testing.assert_allclose(together[5], alone, atol=1e-6)
    pictures = model.encode(images=[picture(0), picture(1)], language="de")
    np.testing.assert_array_equal(pictures, bare.encode(images=[picture(0), picture(1)]))


def test_the_first_own_token_is_the_first_that_the_adapter_changes(base):
    processor = XVLM2VecProcessor.from_pretrained(base)
    row = TextImageRow(TEXTS[1], (picture(0),), "Find it: ")
    (group,), _ = token_groups(processor, [[row]], starts=True)
    (whole,), _ = token_groups(processor, [[row]])
    ids = group.prefix + group.texts[0]
    assert ids == whole.prefix + whole.texts[0]
    model = with_adapter(base)
    (pack,) = model.pack([group], 1000)
    with torch.no_grad():
        plain = model(pack=pack).last_hidden_state[0]
        spoken = model(pack=pack, adapters=["default"]).last_hidden_state[0]
    changed = (plain != spoken).any(dim=1).tolist()
    start = len(group.prefix) + group.starts[0]
    assert changed == [place >= start for place in range(len(ids))]
    tokenizer = processor.inner.tokenizer
    assert tokenizer.decode(ids[start:]).strip().startswith("einroter")  # its decoder knows no spaces


def test_an_instruction_in_the_language_belongs_to_the_adapter(base):
    model = with_adapter(base)
    shared = model.encode(TEXTS[1], language="de", instruction="Finde es: ")
    own = model.encode(TEXTS[1], language="de", instruction="query-de")
    said = model.encode(TEXTS[1], language="de", instruction="Finde es: ", instruction_in_language=True)
    np.testing.assert_array_equal(own, said)
    assert np.abs(own - shared).max() > 1e-3
    with pytest.raises(ValueError, match="'query-de' is in the language 'de'"):
        model.encode(TEXTS[1], language="de", instruction="query-de", instruction_in_language=False)


def test_an_unknown_language_lists_those_that_there_are(base):
    model = with_adapter(base)
    with pytest.raises(UnknownLanguageError, match=r"never taught 'tr'.*de, it"):
        model.encode("bir köpek", language="tr")
    with pytest.raises(UnknownLanguageError, match="no adapters"):
        XVLM2VecModel.from_pretrained(base).encode("ein Hund", language="de")
    with pytest.raises(ValueError, match="2 languages for 1 rows"):
        model.encode(["ein Hund"], language=["de", "it"])


def test_a_base_with_one_other_weight_is_refused(base, tmp_path):
    with_adapter(base).save_pretrained(tmp_path / "adapter")
    other = tmp_path / "other"
    shutil.copytree(base, other)
    weights = load_file(other / "model.safetensors")
    name = next(name for name in sorted(weights) if name.endswith("q_proj.weight"))
    weights[name][0, 0] += 1e-6
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="other weights"):
        XVLM2VecModel.from_pretrained(tmp_path / "adapter", base=other)
    moved_base = tmp_path / "moved"
    shutil.copytree(base, moved_base)
    XVLM2VecModel.from_pretrained(tmp_path / "adapter", base=moved_base)


def test_the_digest_names_a_base_in_half_precision_too(base):
    model = XVLM2VecModel.from_pretrained(base)
    digest = base_digest(model)
    half = base_digest(copy.deepcopy(model).to(torch.bfloat16))
    assert half["rounded"] == half["exact"] == digest["rounded"] != digest["exact"]
    add_activated(model, KINDS["rslora, embeddings"])
    assert base_digest(model) == digest


def test_merged_and_activated_adapters_are_not_mixed_up(base, tmp_path):
    model = with_adapter(base)
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterError, match="never merged"):
        load_adapter(XVLM2VecModel.from_pretrained(base), tmp_path / "adapter")
    with pytest.raises(Exception, match="ACTIVATED_LORA"):
        PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(CheckpointError, match="from_pretrained"):
        XVLM2VecModel.from_backbone(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    del config["xvlm2vec"]
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="peft_type"):
        XVLM2VecModel.from_pretrained(tmp_path / "adapter")


def test_a_backbone_that_cannot_share_prefixes_says_why(base):
    model = with_adapter(base)
    model.config.pooling = "image_span"
    model.config.vlm_config.get_text_config().is_causal = False
    with pytest.raises(ValueError, match="cannot share prefixes"):
        model.encode(TEXTS[1], language="de")


def language_adapter(base, folder, language, seed):
    model = XVLM2VecModel.from_pretrained(base)
    add_activated(model, KINDS["dora"])
    model.language_adapters["default"].languages = [language]
    moved(model, seed)
    model.save_pretrained(folder)
    return folder


def test_languages_come_and_go_without_touching_each_other(base, tmp_path, golden):
    german, italian = (
        language_adapter(base, tmp_path / code, code, seed) for seed, code in enumerate(("de", "it"), start=1)
    )
    alone = {code: XVLM2VecModel.from_pretrained(folder) for code, folder in (("de", german), ("it", italian))}
    model = XVLM2VecModel.from_pretrained(base)
    assert model.add_languages(german) == ["de"]
    assert model.add_languages(italian) == ["de", "it"]
    rows = {"text": TEXTS[1:3], "images": [picture(0), picture(0)]}
    both = model.encode(**rows, language=["de", "it"])
    for place, code in enumerate(("de", "it")):
        np.testing.assert_allclose(both[place], alone[code].encode(**rows, language=code)[place], atol=1e-6)
    with pytest.raises(CheckpointError, match="taught 'de', for which this model has an adapter already"):
        model.add_languages(german)
    model.save_pretrained(tmp_path / "both")
    loaded = XVLM2VecModel.from_pretrained(tmp_path / "both")
    np.testing.assert_array_equal(loaded.encode(**rows, language=["de", "it"]), both)
    assert model.remove_languages("de") == ["it"]
    np.testing.assert_array_equal(model.encode(TEXTS[2], language="it"), alone["it"].encode(TEXTS[2], language="it"))
    texts, images = golden
    np.testing.assert_array_equal(
        model.encode(texts, images=images), XVLM2VecModel.from_pretrained(base).encode(texts, images=images)
    )
