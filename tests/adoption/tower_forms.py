"""Tiny two-tower embedders: CLIP and SigLIP as sentence-transformers 6.2 saves them, bare, and in CLIP's old layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from saved_chain import TWO_TOWERS, checkpoints, enlarged, save_chain, save_transformer, write_json
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

SIDE = 28  # pixels
CLIP_WIDTH = 24
ENDS = ["<|startoftext|>", "<|endoftext|>"]


def clip_tokenizer() -> Any:
    """Byte pairs with a mark at each word's end; every byte is known with the mark and without."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator(checkpoints.LINES, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    names = [*state["vocab"], *(f"{letter}</w>" for letter in letters), *ENDS]
    return transformers.CLIPTokenizer(
        vocab={name: index for index, name in enumerate(dict.fromkeys(names))},
        merges=[tuple(merge) for merge in state["merges"]],
        model_max_length=77,
    )


def clip_parts() -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor."""
    tokenizer = clip_tokenizer()
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    start, end = tokenizer.convert_tokens_to_ids(ENDS)
    config = transformers.CLIPConfig(
        text_config=checkpoints.TOWER
        | {"vocab_size": len(tokenizer), "projection_dim": CLIP_WIDTH, "max_position_embeddings": 77}
        | {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end},
        vision_config=checkpoints.TOWER | {"image_size": SIDE, "patch_size": 7, "projection_dim": CLIP_WIDTH},
        projection_dim=CLIP_WIDTH,
    )
    return enlarged(transformers.AutoModel, config), tokenizer, images


def save_clip(folder: Path) -> None:
    model, tokenizer, images = clip_parts()
    save_transformer(folder, model, transformers.CLIPProcessor(images, tokenizer))


def save_siglip(folder: Path) -> None:
    """With the tokenizer of SigLIP 2's checkpoints of one size: an EOS at the end, padding behind it, no limit."""
    tokenizer = checkpoints.gemma_tokenizer({}, add_bos_token=False, add_eos_token=True, padding_side="right")
    images = transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    config = transformers.SiglipConfig(
        text_config=checkpoints.TOWER
        | {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 64,
            "projection_size": checkpoints.TOWER["hidden_size"],
        }
        | {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        | {"pad_token_id": tokenizer.pad_token_id},
        vision_config=checkpoints.TOWER | {"image_size": SIDE, "patch_size": 7},
    )
    model = enlarged(transformers.AutoModel, config)
    save_transformer(folder, model, transformers.SiglipProcessor(images, tokenizer))


def two_towers(save: Callable[[Path], None]) -> Callable[[Path], None]:
    """A builder of the saved SentenceTransformer: neither pooling nor normalisation."""

    def build(folder: Path) -> None:
        save(folder)
        save_chain(folder, [], TWO_TOWERS)

    return build


def build_clip_old(folder: Path) -> None:
    """As `clip-ViT-B-32` lies on the Hub: everything in the module's folder, the processor in its old files."""
    place = folder / "0_CLIPModel"
    model, tokenizer, images = clip_parts()
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    images.save_pretrained(place)
    chain = [{"idx": 0, "name": "0", "path": place.name, "type": "sentence_transformers.models.CLIPModel"}]
    write_json(folder / "modules.json", chain)
    versions = {"sentence_transformers": "2.0.0", "transformers": "4.7.0", "pytorch": "1.9.0+cu102"}
    write_json(folder / "config_sentence_transformers.json", {"__version__": versions})


TOWER_FORMS: dict[str, Callable[[Path], None]] = {
    "clip": two_towers(save_clip),
    "clip-bare": save_clip,
    "clip-old": build_clip_old,
    "siglip": two_towers(save_siglip),
    "siglip-bare": save_siglip,
}
