"""Contrastive batches in packs: the vectors and gradients of padded rows, each image seen once, in bounded memory."""

import logging
from dataclasses import replace

import pytest
import torch
from conftest import image
from datasets import Dataset, Features, Image, List, Value
from sentence_transformers import SentenceTransformer
from test_contrastive_trainer import train

from xvlm2vec.modeling.model_parts import language_model
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import TokenGroup
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.rows import TextImageRow
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import make_loss
from xvlm2vec.trainer.pair_collator import PACKED, PairCollator
from xvlm2vec.trainer.pair_packs import PackedSide, pack_sides
from xvlm2vec.trainer.pair_sharing import pair_packer

TEXT = Value("string")
FEATURES = Features(
    {"qry": TEXT, "qry_image": Image(), "pos_text": TEXT, "pos_image": Image(), "instruction": TEXT,
     "neg_text": List(TEXT), "neg_image": List(Image())}
)  # fmt: skip


def pair(query, query_image, positive, positive_image, instruction="", negatives=()):
    values = (query, query_image, positive, positive_image, instruction)
    texts, images = [text for text, _ in negatives], [shown for _, shown in negatives]
    return {**dict(zip(FEATURES, values, strict=False)), "neg_text": texts, "neg_image": images}


@pytest.fixture(scope="module")
def pairs():
    """Seven pairs: one image is queried by four texts, another is the positive of two, a third a negative of two."""
    one, two, three = (image(seed) for seed in range(3))
    rows = [
        pair("a red bicycle", one, "by the wall", None, "Find: ", [("", three)]),
        pair("two dogs", None, "", two, negatives=[("rain", None), ("no rain at all", three)]),
        pair("", one, "in the park", None),
        pair("the old bakery opens early", one, "seven", None),
        pair("dogs, again", None, "", two),
        pair("rain", one, "over the sea", three),
        pair("", image(3), "one more", None),
    ]
    return Dataset.from_list(rows, features=FEATURES)


def outcome(embedder, collator, args, rows):
    """Loss and gradients of a batch."""
    embedder.train().zero_grad()
    inputs = collator([rows[index] for index in range(len(rows))])
    loss = make_loss(embedder, args)
    if PACKED in inputs:
        sides = inputs[PACKED]
    else:
        columns = ("anchor_", "positive_", "negative_")
        sides = [{key.removeprefix(name): inputs[key] for key in inputs if key.startswith(name)} for name in columns]
    value = loss(sides, inputs["label"])
    value.backward()
    return value.detach(), {name: weight.grad for name, weight in embedder.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("family", "pieces", "adapter"),
    [("llava", None, None), ("qwen2_vl", 2, AdapterConfig(rank=2, train_vision=True)), ("smolvlm", 2, None)],
)
def test_loss_and_gradients_are_those_of_padded_rows(tmp_path, build_checkpoint, pairs, family, pieces, adapter):
    source = build_checkpoint(family, tmp_path / "backbone")
    XVLM2VecModel.from_backbone(source).save_pretrained(tmp_path / "model")
    XVLM2VecProcessor.from_pretrained(source).save_pretrained(tmp_path / "model")
    embedder = SentenceTransformer(str(tmp_path / "model"), model_kwargs={"dtype": torch.float64})
    if adapter:
        add_adapter(embedder.transformers_model, adapter)
    with torch.no_grad():
        for weight in embedder.parameters():
            weight += 0.02 * torch.randn_like(weight)
    args = ContrastiveConfig(str(tmp_path / "out"), use_cpu=True, mini_batch_size=pieces)
    padded = PairCollator(preprocess_fn=embedder.preprocess)
    loss, gradients = outcome(embedder, padded, args, pairs)
    packed = PairCollator(preprocess_fn=embedder.preprocess, packer=pair_packer(args, embedder, [pairs], {}))
    sides = packed([pairs[index] for index in range(len(pairs))])[PACKED]
    assert [sum(bool(group.images) for group in side.groups) for side in sides] == [2, 2, 1]
    found, mine = outcome(embedder, packed, args, pairs)
    torch.testing.assert_close(found, loss, rtol=1e-6, atol=1e-9)
    assert any(gradient is not None and gradient.abs().max() > 1e-4 for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-6, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")


def test_a_run_has_the_losses_of_one_that_shares_nothing(tmp_path, folder, pairs):
    settings = {"per_device_train_batch_size": 7, "num_train_epochs": 2, "mini_batch_size": 2, "eval_rows": pairs}
    _, shared = train(folder, tmp_path / "shared", pairs, sharing="tree", **settings)
    _, whole = train(folder, tmp_path / "whole", pairs, sharing="off", **settings)
    assert len(shared) == 2
    for mine, other in zip(shared, whole, strict=True):
        assert mine == pytest.approx(other, rel=1e-3)


def side_of(groups):
    counts = [len(group.texts) for group in groups]
    numbers = iter(torch.randperm(sum(counts)).tolist())
    return PackedSide(groups, [[next(numbers) for _ in range(count)] for count in counts])


def test_packs_keep_images_whole_within_the_memory_of_so_many_rows():
    shown = {"pixel_values": torch.zeros(1)}
    groups = [TokenGroup([5] * 20, [[1, 2, number]] * 3, shown) for number in range(5)]
    side, texts = side_of(groups), side_of([TokenGroup([], [[9] * 4] * 7)])
    features, places = pack_sides([side, texts], mini_batch_size=4)
    for column in features:
        assert column["pack"].tokens <= 4 * 23
    images = [member.number for column in features[:-1] for member in column["pack"].members]
    assert len(images) == 5  # none is cut, and two go together
    assert len(features) == 4
    vectors = [
        torch.cat([torch.tensor([text[-1]]) for text in sorted_texts(column["pack"])])[:, None] for column in features
    ]
    first, second = places.restore([[part] for part in vectors])
    of_row = {place: group.texts[0][-1] for group, rows in zip(side.groups, side.places, strict=True) for place in rows}
    assert first[:, 0].tolist() == [of_row[row] for row in range(15)]
    assert second[:, 0].tolist() == [9] * 7


def sorted_texts(pack):
    """The texts of a pack in the order of its vectors."""
    by_row = {row: text for member in pack.members for row, text in zip(member.rows, member.group.texts, strict=True)}
    return [by_row[row] for row in pack.rows]


def test_an_image_larger_than_the_memory_is_cut_between_its_texts():
    group = TokenGroup([5] * 20, [[1, 2, number] for number in range(40)], {"pixel_values": torch.zeros(1)})
    features, places = pack_sides([side_of([group])], mini_batch_size=2)
    assert max(column["pack"].tokens for column in features) <= 2 * 23
    assert sorted(row for pack in places.rows[0] for row in pack) == list(range(40))


def test_what_cannot_share_is_padded(folder, pairs, caplog):
    args = ContrastiveConfig("out", use_cpu=True)
    embedder = SentenceTransformer(str(folder))
    text_only = pairs.remove_columns(["qry_image", "pos_image", "neg_image"]).select([0, 3])
    collator = PairCollator(preprocess_fn=embedder.preprocess, packer=pair_packer(args, embedder, [text_only], {}))
    assert PACKED in collator([text_only[0], text_only[1]])
    assert PACKED not in collator([pairs[0], pairs[1]])  # images came later: nobody knows whether they can share
    assert pair_packer(ContrastiveConfig("out", use_cpu=True, sharing="off"), embedder, [pairs], {}) is None
    packer = pair_packer(args, embedder, [pairs], {})
    bare, asked = TextImageRow("", (image(0),)), TextImageRow("what?", (image(0),))
    assert packer.takes([bare, asked])
    assert not replace(packer, bare_images=False).takes([bare, asked])
    assert replace(packer, bare_images=False).takes([asked])
    language_model(embedder.transformers_model).layers[0].self_attn.attention_dropout = 0.1
    with caplog.at_level(logging.WARNING):
        assert pair_packer(args, embedder, [pairs], {}) is None
    assert "dropout of 0.1" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sharing": "sometimes"}, "choose one of auto"), ({"torch_compile": True}, "torch_compile needs sharing='off'")],
)
def test_settings_of_sharing_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveConfig("out", use_cpu=True, **settings)
