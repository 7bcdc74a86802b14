"""How much of each language was seen: whole texts and texts that share an image, and what is not known."""

import pytest
from transformers import TrainerState, TrainingArguments

from xvlm2vec.trainer.collators import ParallelCollator
from xvlm2vec.trainer.languages_seen import LanguagesSeen


@pytest.mark.parametrize("sharing", [True, False], ids=["shared", "whole"])
def test_each_translation_counts_with_the_tokens_that_are_read_for_it(tmp_path, processor, rows, sharing):
    seen = LanguagesSeen()
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    seen.on_train_begin(args, TrainerState())
    for batch in ParallelCollator(processor, sharing=sharing, max_tokens=60)(rows)["batches"]:
        seen.add(batch)
    pairs = [(row, item) for row in rows for item in row["translations"]]
    images = [row["image"] for row, _ in pairs]
    whole = processor(text=[item["text"] for _, item in pairs], images=images)["attention_mask"].sum(dim=1).tolist()
    image = processor(text=[None], images=[rows[0]["image"]])["attention_mask"].sum().item()
    found = seen.read()
    assert {language: count["rows"] for language, count in found.items()} == {"ar": 3, "de": 3, "it": 3}
    for language, count in found.items():
        counted = [
            (tokens, row["image"]) for tokens, (row, item) in zip(whole, pairs, strict=True) if item["lang"] == language
        ]
        if sharing:  # what the texts of a row share is read once for all of them
            assert sum(tokens for tokens, _ in counted) > count["tokens"]
            assert count["tokens"] >= sum(tokens - (image if shown else 0) for tokens, shown in counted)
        else:
            assert count["tokens"] == sum(tokens for tokens, _ in counted)


def test_a_resumed_checkpoint_without_counts_leaves_nothing_known(tmp_path):
    seen = LanguagesSeen()
    assert seen.read() is None
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    seen.on_train_begin(args, TrainerState(global_step=3))
    assert seen.read() is None
    seen.on_save(args, TrainerState(global_step=4))
    assert not list(tmp_path.rglob("*.json"))
