"""The sentence-transformers door, through its stock module: rows of every kind, prompts, truncation, training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor

PROMPTS = {"query": "find the image: ", "document": "describe: ", "query-de": "finde das Bild: "}
FAMILIES = ["qwen2_vl", "idefics3", "llava_next-llama"]
# InternVL has several tiles an image, which sentence-transformers cannot slice.
CACHED = [
    *FAMILIES,
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "llava_onevision",
    "smolvlm",
    "gemma3",
    "paligemma",
    "llava",
    "phi3_v",
]


@pytest.fixture(scope="module")
def saved(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("saved")
            source = checkpoint(name)
            model = XVLM2VecModel.from_backbone(source, prompts=PROMPTS, matryoshka_dims=[32, 16])
            model.save_pretrained(folders[name])
            XVLM2VecProcessor.from_pretrained(source).save_pretrained(folders[name])
        return folders[name]

    return get


def load(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu", **options)


@pytest.fixture(scope="module")
def doors(saved: Callable[[str], Path]) -> tuple[SentenceTransformer, XVLM2VecModel]:
    return load(saved("qwen2_vl")), XVLM2VecModel.from_pretrained(saved("qwen2_vl"))


def same(one: Any, other: Any) -> bool:
    return bool(np.abs(np.asarray(one) - np.asarray(other)).max() < 1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_every_kind_in_one_call(
    saved: Callable[[str], Path], images: list[Any], tmp_path: Path, name: str
) -> None:
    images[3].save(tmp_path / "image.png")
    rows = [
        "a red bicycle",
        images[0],
        str(tmp_path / "image.png"),
        {"text": "query", "image": images[1]},
        {"text": "two images", "image": [images[1], images[2]]},
        {"text": "no image"},
        {"text": None, "image": images[2]},
        {"text": "a path", "image": str(tmp_path / "image.png")},
        {"text": str(tmp_path / "image.png")},
    ]
    own = XVLM2VecModel.from_pretrained(saved(name)).encode(
        text=["a red bicycle", None, None, "query", "two images", "no image", None, "a path", rows[-1]["text"]],
        images=[None, images[0], images[3], images[1], images[1:3], None, images[2], images[3], None],
    )
    assert same(load(saved(name)).encode(rows, batch_size=4), own)


def test_named_prompts(doors: tuple[SentenceTransformer, XVLM2VecModel], images: list[Any]) -> None:
    door, model = doors
    assert door.prompts == PROMPTS
    assert same(door.encode_query("a red bicycle"), model.encode(text="find the image: a red bicycle"))
    assert same(door.encode_query("a red bicycle"), model.encode(text="a red bicycle", instruction="query"))
    assert same(door.encode_document(images[0]), model.encode(text="describe: ", images=images[0]))
    assert same(door.encode(["rot"], prompt_name="query-de"), model.encode(text=["finde das Bild: rot"]))
    mixed = door.encode(["rot", {"text": "rot", "image": images[0]}], prompt="see: ")
    assert same(mixed, model.encode(text=["rot", "rot"], images=[None, images[0]], instruction="see: "))


def test_truncated_vectors_and_similarity(doors: tuple[SentenceTransformer, XVLM2VecModel]) -> None:
    door, model = doors
    short = door.encode(["a", "b"], truncate_dim=16, normalize_embeddings=True)
    assert same(short, model.encode(text=["a", "b"], dim=16))
    similarity = door.similarity(door.encode(["a", "b"]), door.encode(["a"]))
    assert similarity.shape == (2, 1)
    assert similarity[0].item() == pytest.approx(1, abs=1e-6)


def test_a_size_that_was_not_trained_is_told_when_saved(saved: Callable[[str], Path], tmp_path: Path) -> None:
    door = load(saved("qwen2_vl"), truncate_dim=12)
    with pytest.warns(UserWarning, match="not trained for vectors of 12 values, but for those of 32, 16 values"):
        door.save_pretrained(str(tmp_path))


def test_longest_row(saved: Callable[[str], Path], images: list[Any]) -> None:
    door, model = load(saved("qwen2_vl")), XVLM2VecModel.from_pretrained(saved("qwen2_vl"))
    door.max_seq_length = 30
    long = "a red bicycle leans against the wall " * 10
    with pytest.warns(UserWarning, match="max_length=30"):
        vectors = door.encode([{"text": long, "image": images[0]}, long])
    with pytest.warns(UserWarning, match="2 of 2 rows"):
        assert same(vectors, model.encode(text=[long, long], images=[images[0], None], max_length=30))


def test_bad_rows(doors: tuple[SentenceTransformer, XVLM2VecModel]) -> None:
    door, _ = doors
    with pytest.raises(ValueError, match="URLs are not fetched unless"):
        door.encode(["http://127.0.0.1:1/image.png"])
    with pytest.raises(ValueError, match=r"there is no file 'no\.png'"):
        door.encode([{"text": "a", "image": "no.png"}])
    assert same(
        door.encode([{"text": "http://127.0.0.1:1/x.png"}]), door.encode([{"text": "http://127.0.0.1:1/x.png"}])
    )


def test_saving_keeps_everything(saved: Callable[[str], Path], images: list[Any], tmp_path: Path) -> None:
    door = load(saved("qwen2_vl"), truncate_dim=16)
    door.prompts["new"] = "neu: "
    door.save_pretrained(str(tmp_path))
    again = load(tmp_path)
    assert again.prompts == {**PROMPTS, "new": "neu: "}
    assert again.truncate_dim == 16
    assert again.similarity_fn_name == "cosine"
    assert again[0].auto_model.config.matryoshka_dims == [32, 16]
    rows = ["rot", images[0], {"text": "rot", "image": images[1]}]
    assert same(again.encode(rows, prompt_name="new"), door.encode(rows, prompt_name="new"))
    own = XVLM2VecModel.from_pretrained(tmp_path)
    assert same(
        own.encode(text="rot", instruction="query", dim=16), again.encode_query("rot", normalize_embeddings=True)
    )


def training_rows(images: list[Any]) -> Dataset:
    texts = ["a red bicycle", "ein rotes Fahrrad", "the wall", "der alte Bäcker"]
    return Dataset.from_dict({"anchor": texts, "positive": images})


@pytest.mark.parametrize("name", FAMILIES)
def test_training(saved: Callable[[str], Path], images: list[Any], tmp_path: Path, name: str) -> None:
    door = load(saved(name))
    before = {key: value.clone() for key, value in door.state_dict().items()}
    trainer = SentenceTransformerTrainer(
        model=door,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=2,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=training_rows(images),
        loss=CachedMultipleNegativesRankingLoss(door, mini_batch_size=2),
    )
    losses = trainer.train()
    assert np.isfinite(losses.training_loss)
    after = door.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("visual" in key or "vision" in key for key in changed)
    assert any("language_model" in key or "text_model" in key for key in changed)
    door.save_pretrained(str(tmp_path / "trained"))
    rows = ["a red bicycle", images[0], {"text": "the wall", "image": images[1]}]
    assert same(load(tmp_path / "trained").encode(rows), door.encode(rows))
    assert same(XVLM2VecModel.from_pretrained(tmp_path / "trained").encode(text=rows[0]), door.encode(rows[0]))


@pytest.mark.parametrize("name", CACHED)
def test_cached_gradients_are_the_plain_ones(saved: Callable[[str], Path], images: list[Any], name: str) -> None:
    """Mini-batches are slices of one mixed batch, some of them without images."""
    queries = ["a red bicycle", "ein rotes Fahrrad", "the wall", "der alte Bäcker"]
    answers = ["rot", {"text": "blau"}, images[0], {"text": "see", "image": images[1]}]
    gradients = []
    for loss_class, options in (
        (MultipleNegativesRankingLoss, {}),
        (CachedMultipleNegativesRankingLoss, {"mini_batch_size": 2}),
    ):
        door = load(saved(name))
        features = [door.preprocess(rows) for rows in (queries, answers)]
        loss_class(door, **options)(features, None).backward()
        gradients.append({key: weight.grad for key, weight in door.named_parameters() if weight.grad is not None})
    plain, cached = gradients
    assert plain.keys() == cached.keys()
    for key, gradient in plain.items():
        assert (gradient - cached[key]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-6, key


def test_none_is_no_image(saved: Callable[[str], Path], images: list[Any]) -> None:
    """sentence-transformers counts `None` as an image when it slices a batch, and a lost image may be one, too."""
    door = load(saved("llava_next-llama"))
    with pytest.raises(ValueError, match=r"row 1, message 0: .* `image` is None.* has no key `image`"):
        door.preprocess(["rot", {"text": "blau", "image": None}, images[0], images[1]])


def test_image_files_of_other_endings(
    doors: tuple[SentenceTransformer, XVLM2VecModel], images: list[Any], tmp_path: Path
) -> None:
    """A bare string is an image for sentence-transformers only with some endings; under `image` it always is."""
    door, model = doors
    file = tmp_path / "image.tif"
    images[0].save(file)
    assert same(door.encode([{"image": str(file)}]), model.encode(images=[images[0]]))
    assert same(door.encode([str(file)]), model.encode(text=[str(file)]))
