"""`language=` where a model is not called through `encode`: a padded batch, and sentence-transformers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.modeling.families import FAMILIES, family_of
from xvlm2vec.modeling.language_adapters import UnknownLanguageError
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.sentence_transformers_files import write_sentence_transformers_files
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig

TINY = TinyModelConfig(
    image_size=16, patch_size=4, hidden_size=32, vision_layers=1, text_layers=2, heads=2, intermediate_size=48,
    vocab_size=400,
)  # fmt: skip
TEXTS = ["ein roter Hund im Park", "Regen", "ein sehr langer Satz über den Regen, der auf das Meer fällt"]
PROMPTS = {"query": "Find it: ", "query-de": "Finde es: "}


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter with token embeddings, far from where training starts."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    model, processor = build_tiny_model(TINY, TEXTS)
    model.config.prompts = PROMPTS
    model.save_pretrained(root / "base")
    processor.save_pretrained(root / "base")
    write_sentence_transformers_files(root / "base", model.config, has_languages=True)
    model = XVLM2VecModel.from_pretrained(root / "base")
    add_activated(model, AdapterConfig(rank=3, train_embeddings=True))
    model.language_adapters["default"].languages = ["de"]
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(root / "adapter")
    return root / "base", root / "adapter"


@pytest.fixture(scope="module")
def model(folders: tuple[Path, Path]) -> XVLM2VecModel:
    return XVLM2VecModel.from_pretrained(folders[1])


@pytest.fixture(scope="module")
def sentences(folders: tuple[Path, Path]) -> SentenceTransformer:
    loaded = SentenceTransformer(str(folders[0]), trust_remote_code=True, device="cpu")
    loaded[0].model.add_languages(folders[1])
    return loaded


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("instruction", [None, "query", "query-de"])
def test_a_padded_batch_gives_what_encode_gives(model: XVLM2VecModel, side: str, instruction: str | None) -> None:
    texts = [*TEXTS, TEXTS[0], None]
    images = [None, picture(0), None, picture(1), picture(1)]
    expected = model.encode(texts, images=images, instruction=instruction, language="de")
    batch = model.processor(
        text=texts,
        images=images,
        instruction=PROMPTS.get(instruction or ""),
        padding_side=side,
        prompts=model.config.prompts,
    )
    with torch.no_grad():
        found = model(**batch, language="de").embeddings
        base = model(**batch).embeddings
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    assert (found - base).abs().amax(1)[:4].min() > 1e-2
    torch.testing.assert_close(found[4], base[4], rtol=0, atol=0)


def test_a_text_that_is_cut_keeps_its_start(model: XVLM2VecModel) -> None:
    expected = model.encode(TEXTS, max_length=9, language="de", instruction="query")
    with pytest.warns(UserWarning, match="were cut"):
        batch = model.processor(text=TEXTS, max_length=9, instruction="Find it: ", prompts=PROMPTS)
    with torch.no_grad():
        np.testing.assert_allclose(model(**batch, language="de").embeddings.numpy(), expected, atol=2e-6)


def test_a_batch_that_does_not_say_where_texts_begin_is_refused(model: XVLM2VecModel) -> None:
    batch = model.processor(text=TEXTS)
    with pytest.raises(ValueError, match=r"prompts=model\.config\.prompts"):
        model(**batch, language="de")
    with pytest.raises(UnknownLanguageError, match=r"'tr'.*de"):
        model(**batch, language="tr")
    assert model(**batch, language="en").embeddings.equal(model(**batch).embeddings)


def test_a_family_that_is_padded_speaks_too(model: XVLM2VecModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter was proven to share prefixes when it was trained; rows of the base stay padded."""
    texts, spoken = [*TEXTS, "rain"], ["de", None, "de", "en"]
    expected = model.encode(texts, language=spoken)
    kind = model.backbone.config.model_type
    monkeypatch.setitem(FAMILIES, kind, replace(family_of(kind), causal=False))
    found = model.encode(texts, language=spoken)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(found[[1, 3]], model.encode([TEXTS[1], "rain"]))


def test_sentence_transformers_hands_the_language_on(model: XVLM2VecModel, sentences: SentenceTransformer) -> None:
    options = {"convert_to_numpy": True, "batch_size": 2}
    np.testing.assert_allclose(
        sentences.encode(TEXTS, language="de", **options), model.encode(TEXTS, language="de"), atol=2e-6
    )
    rows = [{"text": TEXTS[0], "image": picture(1)}, {"text": TEXTS[2], "image": picture(0)}]
    expected = model.encode([TEXTS[0], TEXTS[2]], images=[picture(1), picture(0)], language="de")
    np.testing.assert_allclose(sentences.encode(rows, language="de", **options), expected, atol=2e-6)
    assert "language" in sentences.get_model_kwargs()


@pytest.mark.parametrize("name", ["query", "query-de"])
def test_prompts_of_sentence_transformers(model: XVLM2VecModel, sentences: SentenceTransformer, name: str) -> None:
    expected = model.encode(TEXTS, language="de", instruction=name)
    np.testing.assert_allclose(sentences.encode(TEXTS, language="de", prompt_name=name), expected, atol=2e-6)
    if name == "query":
        np.testing.assert_allclose(sentences.encode_query(TEXTS, language="de"), expected, atol=2e-6)


def test_without_a_language_the_base_speaks_bit_for_bit(
    folders: tuple[Path, Path], sentences: SentenceTransformer
) -> None:
    base = SentenceTransformer(str(folders[0]), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(sentences.encode(TEXTS), base.encode(TEXTS))
    with pytest.raises(UnknownLanguageError, match="'tr'"):
        sentences.encode(TEXTS, language="tr")


def test_one_language_for_each_row_is_refused_where_rows_are_reordered(sentences: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="One language goes with a batch"):
        sentences.encode(TEXTS, language=["de", "en", "de"])
