"""Embedders of sentence-transformers are taken over: proven by their own vectors, or refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from xvlm2vec.common.adoption.adopt import Adopted, adopt
from xvlm2vec.common.adoption.describe import describe
from xvlm2vec.common.adoption.proof import BOUND, distance, embed
from xvlm2vec.common.adoption.sources import AdoptionError
from xvlm2vec.modeling.loading import CheckpointError
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import packing_blocker, token_groups
from xvlm2vec.modeling.rows import TextImageRow

TEXT_ONLY = [
    "decoder-right",
    "decoder-chat",
    "minilm",
    "minilm-dense",
    "minilm-matryoshka",
    "decoder",
    "xlmr",
    "weighted",
    "layernorm",
]
TEXT_ONLY += ["dense-residual", "dense-f32", "old-layout"]
TOWERS = ["clip", "siglip", "clip-bare", "siglip-bare", "clip-old"]
VLMS = ["llava", "gemma3", "gemma3-dense"]
NEED_TORCHVISION = ["qwen3_vl", "qwen2_5_vl", "smolvlm", "qwen3_vl-embedding"]


@pytest.fixture(scope="session")
def adopted(st_model: Callable[[str], Path]) -> Callable[[str], Adopted]:
    """An embedder that was taken over, at first use."""
    done: dict[str, Adopted] = {}

    def get(name: str) -> Adopted:
        if name not in done:
            done[name] = adopt(str(st_model(name)))
        return done[name]

    return get


@pytest.fixture
def copy_of(st_model: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a saved embedder, to be changed."""
    return lambda name: Path(shutil.copytree(st_model(name), tmp_path / name))


def set_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


@pytest.mark.parametrize("name", TEXT_ONLY + TOWERS + VLMS)
def test_vectors_are_those_of_its_own_sentence_transformer(
    adopted: Callable[[str], Adopted], st_model: Callable[[str], Path], images: list[Image.Image], name: str
) -> None:
    """On rows that are none of the proof's own."""
    copy = adopted(name)
    assert copy.proof is not None
    assert copy.proof.rows > 15
    own = SentenceTransformer(str(st_model(name)), model_kwargs={"dtype": torch.float32})
    own.truncate_dim = None
    padding = {"padding": "max_length", "max_length": 64, "truncation": True}
    if name.startswith("siglip"):
        own[0].processing_kwargs = {"text": padding}
    rows: list[tuple[TextImageRow, object]] = [
        (TextImageRow(text), text) for text in ("ein Haus am See", "湖", "a " * 90)
    ]
    if "image" in copy.recipe.writing.forms:
        rows.append((TextImageRow("", (images[0],)), images[0]))
    if "image+text" in copy.recipe.writing.forms:
        rows.append((TextImageRow("ein Haus", (images[1],)), {"image": images[1], "text": "ein Haus"}))
    ours = embed(copy.model, copy.processor, [row for row, _ in rows])
    for vector, (_, row) in zip(ours, rows, strict=True):
        assert distance(vector, torch.tensor(own.encode([row])[0])) < BOUND
        assert np.allclose(vector, own.encode([row])[0], atol=1e-4)


@pytest.mark.vision
@pytest.mark.parametrize("name", NEED_TORCHVISION)
def test_vectors_of_families_that_need_torchvision(adopted: Callable[[str], Adopted], name: str) -> None:
    copy = adopted(name)
    assert copy.proof is not None
    assert copy.proof.worst < BOUND
    assert {"text", "image", "image+text"} <= set(copy.recipe.writing.forms)


@pytest.mark.parametrize("name", ["minilm", "minilm-matryoshka", "decoder", "clip", "siglip", "gemma3-dense"])
def test_saved_folder_gives_the_same_vectors(adopted: Callable[[str], Adopted], tmp_path: Path, name: str) -> None:
    copy = adopted(name)
    copy.save(tmp_path)
    again = XVLM2VecModel.from_pretrained(tmp_path)
    texts = ["ein rotes Haus", "x " * 200]
    assert np.array_equal(copy.model.encode(texts), again.encode(texts))
    door = SentenceTransformer(str(tmp_path), trust_remote_code=True)
    door.truncate_dim = None
    assert np.allclose(door.encode(texts), again.encode(texts), atol=1e-5)


class TestReference:
    def test_weights_stay_where_they_are(self, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
        source = copy_of("minilm-dense")
        copy = adopt(str(source))
        copy.save(tmp_path / "out", by_reference=True)
        assert not list((tmp_path / "out").glob("*.safetensors"))
        again = XVLM2VecModel.from_pretrained(tmp_path / "out")
        assert np.array_equal(copy.model.encode(["ein Haus"]), again.encode(["ein Haus"]))

    def test_what_is_taught_keeps_its_own_weights(self, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
        adopt(str(copy_of("minilm"))).save(tmp_path / "out", by_reference=True)
        model = XVLM2VecModel.from_pretrained(tmp_path / "out")
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.5)
        model.save_pretrained(tmp_path / "taught")
        again = XVLM2VecModel.from_pretrained(tmp_path / "taught")
        assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)

    def test_changed_files_want_a_new_adoption(self, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
        source = copy_of("minilm")
        adopt(str(source)).save(tmp_path / "out", by_reference=True)
        weights = load_file(source / "model.safetensors")
        save_file(
            {name: value * 1.01 for name, value in weights.items()}, source / "model.safetensors", {"format": "pt"}
        )
        with pytest.raises(CheckpointError, match="have changed since: adopt it anew"):
            XVLM2VecModel.from_pretrained(tmp_path / "out")


class TestInstructions:
    def test_default_prompt_is_taken_where_none_is_named(
        self, adopted: Callable[[str], Adopted], st_model: Callable[[str], Path]
    ) -> None:
        copy, own = adopted("minilm-matryoshka"), SentenceTransformer(str(st_model("minilm-matryoshka")))
        own.truncate_dim = None
        text = ["ein Haus"]
        for instruction, options in ((None, {}), ("", {"prompt": ""}), ("passage", {"prompt_name": "passage"})):
            assert np.allclose(copy.model.encode(text, instruction=instruction), own.encode(text, **options), atol=1e-6)

    def test_prompt_is_a_system_turn_where_the_template_says_so(
        self, adopted: Callable[[str], Adopted], st_model: Callable[[str], Path], images: list[Image.Image]
    ) -> None:
        copy, own = adopted("llava"), SentenceTransformer(str(st_model("llava")))
        ours = copy.model.encode(["ein Haus"], [images[0]], instruction="Find the house")
        theirs = own.encode([{"image": images[0], "text": "ein Haus"}], prompt="Find the house")
        assert np.allclose(ours, theirs, atol=1e-5)

    def test_description_shows_each_kind_of_row(self, adopted: Callable[[str], Adopted]) -> None:
        text = describe(adopted("gemma3"))
        assert r"image and text <bos><start_of_turn>user\n<start_of_image>a red bicycle<end_of_turn>\n" in text
        assert "Proven: " in text
        assert "the state of the last token" in text


class TestSiglip:
    def test_a_vector_does_not_depend_on_its_batch(self, adopted: Callable[[str], Adopted]) -> None:
        model = adopted("siglip").model
        long = "a much longer text that would make the batch wider than it was before"
        together, alone = model.encode(["ein Haus", long]), model.encode(["ein Haus"])
        assert np.allclose(together[0], alone[0], atol=1e-5)

    def test_says_how_far_the_folder_as_saved_is(self, adopted: Callable[[str], Adopted]) -> None:
        (note,) = adopted("siglip").recipe.notes
        assert "depends on the texts beside it" in note
        assert "cosine of 0." in note

    def test_other_padding_side_is_refused(self, adopted: Callable[[str], Adopted]) -> None:
        processor = adopted("siglip").processor
        other = {"left": "right", "right": "left"}[processor.inner.tokenizer.padding_side]
        with pytest.raises(ValueError, match="padding_side"):
            processor(text=["ein Haus"], padding_side=other)


class TestTwoTowers:
    def test_options_of_the_image_processor_are_part_of_the_recipe(
        self, copy_of: Callable[[str], Path], tmp_path: Path, images: list[Image.Image]
    ) -> None:
        folder = copy_of("clip")
        set_json(folder / "sentence_bert_config.json", processing_kwargs={"image": {"do_normalize": False}})
        copy = adopt(str(folder))
        assert copy.recipe.writing.image_options == {"do_normalize": False}
        own = SentenceTransformer(str(folder)).encode([images[0]])
        assert np.allclose(copy.model.encode(images=[images[0]]), own, atol=1e-5)
        copy.save(tmp_path / "out")
        assert np.allclose(XVLM2VecModel.from_pretrained(tmp_path / "out").encode(images=[images[0]]), own, atol=1e-5)

    def test_a_row_of_both_is_refused(self, adopted: Callable[[str], Adopted], images: list[Image.Image]) -> None:
        with pytest.raises(ValueError, match="one tower for images and one for texts"):
            adopted("clip").model.encode(["ein Haus"], [images[0]])

    def test_rows_may_mix(self, adopted: Callable[[str], Adopted], images: list[Image.Image]) -> None:
        model = adopted("clip").model
        mixed = model.encode(["ein Haus", None, "ein See"], [None, images[0], None])
        assert np.allclose(mixed[0], model.encode("ein Haus"), atol=1e-5)
        assert np.allclose(mixed[1], model.encode(images=images[0]), atol=1e-5)

    def test_one_batch_of_texts_and_images(self, adopted: Callable[[str], Adopted], images: list[Image.Image]) -> None:
        copy = adopted("clip")
        batch = copy.processor(text=["ein Haus", None, "ein See"], images=[None, images[0], None])
        with torch.no_grad():
            vectors = copy.model(**batch).embeddings
        assert torch.allclose(vectors[2], torch.tensor(copy.model.encode("ein See")), atol=1e-5)
        assert torch.allclose(vectors[1], torch.tensor(copy.model.encode(images=images[0])), atol=1e-5)


class TestRefusals:
    def test_no_modules(self, st_model: Callable[[str], Path]) -> None:
        with pytest.raises(AdoptionError, match=r"has no modules\.json"):
            adopt(str(st_model("no-modules")))

    def test_custom_code_wants_trust(self, st_model: Callable[[str], Path]) -> None:
        with pytest.raises(AdoptionError, match="--trust-remote-code"):
            adopt(str(st_model("custom")))

    def test_activation_that_is_not_torchs(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("minilm-dense")
        set_json(next(folder.glob("*_Dense")) / "config.json", activation_function="somebody.code.Swish")
        with pytest.raises(AdoptionError, match=r"somebody\.code\.Swish.*puts Tanh in its place"):
            adopt(str(folder))

    def test_missing_weight(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("minilm")
        weights = load_file(folder / "model.safetensors")
        name = next(key for key in weights if key.endswith("attention.self.query.weight"))
        del weights[name]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises((CheckpointError, AdoptionError), match="missing"):
            adopt(str(folder))

    def test_damaged_modules(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("minilm")
        (folder / "modules.json").write_text("[{", encoding="utf-8")
        with pytest.raises(AdoptionError, match=r"modules\.json is damaged"):
            adopt(str(folder))

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            adopt(str(tmp_path / "nothing"))

    @pytest.mark.parametrize("name", NEED_TORCHVISION)
    def test_missing_torchvision_names_the_extra(self, st_model: Callable[[str], Path], name: str) -> None:
        with pytest.raises(AdoptionError, match=r"xvlm2vec\[vision\]"):
            adopt(str(st_model(name)))

    def test_limit_below_an_image(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("gemma3")
        set_json(folder / "tokenizer_config.json", model_max_length=9)
        with pytest.raises(AdoptionError, match=r"itself cannot embed the row 'image 0'.*truncation"):
            adopt(str(folder))

    def test_limit_that_pushes_the_text_out(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("minilm-matryoshka")
        set_json(folder / "tokenizer_config.json", model_max_length=4)
        with pytest.raises(AdoptionError, match=r"cannot be written by the recipe.*never cut, but max_length is 4"):
            adopt(str(folder))


class TestPlainModels:
    def test_chat_template_and_a_pooling(self, copy_of: Callable[[str], Path], images: list[Image.Image]) -> None:
        folder = copy_of("llava")
        for path in [*folder.glob("*_*/config.json"), folder / "modules.json", folder / "sentence_bert_config.json"]:
            path.unlink()
        copy = adopt(str(folder), pooling="mean")
        assert copy.proof is not None
        assert copy.recipe.writing.forms["image+text"] == "USER: {images}\n{text} "
        vectors = copy.model.encode(["ein Haus"], [images[0]])
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_a_folder_that_says_its_pooling_takes_no_other(self, st_model: Callable[[str], Path]) -> None:
        with pytest.raises(AdoptionError, match="leave --pooling out"):
            adopt(str(st_model("minilm")), pooling="mean")


class TestSharing:
    def test_text_first_is_not_shared_and_right(
        self, st_model: Callable[[str], Path], images: list[Image.Image]
    ) -> None:
        copy = adopt(str(st_model("gemma3")), image_first=False)
        assert not copy.recipe.writing.shares_images
        ours = copy.model.encode(["ein Haus", "ein See"], [images[0], images[0]])
        own = SentenceTransformer(str(st_model("gemma3")))
        rows = [{"text": text, "image": images[0]} for text in ("ein Haus", "ein See")]
        for vector, row in zip(ours, rows, strict=True):
            assert np.allclose(vector, own.encode([row])[0], atol=1e-5)
        assert "the text before the image" in packing_blocker(copy.model)

    @pytest.mark.parametrize("pooling", ["lasttoken", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean"])
    @pytest.mark.parametrize("name", ["llava", "decoder"])
    def test_packs_pool_as_rows_alone(
        self, adopted: Callable[[str], Adopted], images: list[Image.Image], name: str, pooling: str
    ) -> None:
        """All texts of a group, of unlike lengths, over one pass of what stands before them."""
        copy = adopted(name)
        model, processor = copy.model, copy.processor
        shown = (images[0],) if name == "llava" else ()
        texts = ["ein Haus", "ein See und ein Haus am See, an dem viele Boote liegen", "x"]
        shared = "a common beginning of all rows, long enough to be worth a step of its own: " if not shown else ""
        rows = [TextImageRow(shared + text, shown) for text in texts]
        before = model.config.pooling
        model.config.pooling = pooling
        try:
            (group,), _ = token_groups(processor, [rows])
            assert group.prefix
            (pack,) = model.pack([group], 10_000)
            with torch.no_grad():
                packed = model(pack=pack).pooler_output
                alone = torch.cat([model(**processor.prepare([row])[0]).pooler_output for row in rows])
        finally:
            model.config.pooling = before
        assert torch.allclose(packed, alone, atol=2e-5)
