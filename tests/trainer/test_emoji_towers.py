"""A tiny CLIP and a tiny SigLIP of the emoji world learn German and Italian, their image towers untouched."""

import pytest
import torch
from steps import make_trainer
from torch.nn.functional import cross_entropy, normalize

from xvlm2vec.corpus.emoji.training import contrastive_rows, parallel_rows
from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig

LANGUAGES = ("de", "it")
WORLD = EmojiWorldConfig(
    concepts=24, image_size=28, languages=("en", *LANGUAGES), taught_languages=LANGUAGES, control_languages=()
)


def teach_english(model, processor, world, steps=250, size=24):
    """CLIP's own loss on English captions and their images."""
    rows = contrastive_rows(world, {"t2i": 1.0}, rows=steps * size, batch_size=size, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        captions = [text.rpartition(": ")[2] for text in batch["qry"]]  # without the instruction
        texts, images = (
            normalize(model(**processor(**side)).pooler_output, dim=-1)
            for side in ({"text": captions}, {"images": batch["pos_image"]})
        )
        scores, same = 10 * texts @ images.T, torch.arange(size)
        loss = cross_entropy(scores, same) + cross_entropy(scores.T, same)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def distances(model, processor, rows, targets):
    """For each language, the mean of 1 - cosine of its texts to these vectors of their English texts."""
    result = {}
    for language in LANGUAGES:
        texts = [next(i["text"] for i in row["translations"] if i["lang"] == language) for row in rows]
        vectors = model.encode(text=texts, processor=processor, convert_to_tensor=True)
        result[language] = float((1 - torch.cosine_similarity(vectors, targets)).mean())
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_two_languages_come_near_english(tmp_path, adopted, name, record_property):
    model, processor = adopted(name)
    world = EmojiWorld.load(WORLD)
    teach_english(model, processor, world)
    held_out = list(parallel_rows(world, {"caption": 1.0}, rows=128, seed=1, split="test"))
    held_out = [row for row in held_out if {item["lang"] for item in row["translations"]} == set(LANGUAGES)]
    english = model.encode(text=[r["text_en"] for r in held_out], processor=processor, convert_to_tensor=True)
    images = model.encode(images=[world_row["image"] for world_row in _images(world)], processor=processor)
    before = distances(model, processor, held_out, english)
    rows = parallel_rows(world, {"caption": 0.6, "name": 0.2, "i2t": 0.2}, rows=9_600)
    settings = {"teacher": "cached", "teacher_store": str(tmp_path / "store"), "max_steps": 600, "max_grad_norm": 1.0}
    settings |= {"per_device_train_batch_size": 16, "learning_rate": 3e-3, "logging_steps": 50}
    trainer = make_trainer(tmp_path, model, processor, rows, **settings)
    trainer.train()
    after = distances(model, processor, held_out, english)
    factors = {language: before[language] / after[language] for language in LANGUAGES}
    record_property("factors", factors)
    assert min(factors.values()) > 3, (before, after)
    again = model.encode(text=[r["text_en"] for r in held_out], processor=processor, convert_to_tensor=True)
    assert (1 - torch.cosine_similarity(again, english)).mean() < 0.1
    assert (model.encode(images=[row["image"] for row in _images(world)], processor=processor) == images).all()


def _images(world):
    return list(parallel_rows(world, {"i2t": 1.0}, rows=8, seed=2, split="test"))
