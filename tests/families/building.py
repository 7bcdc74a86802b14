"""Builds a tiny random checkpoint of any type of vision-language model, as it would be published."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from shrinking import changed, shrink, shrink_rope
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TYPES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "types.json").read_text(encoding="utf-8"))
"""What a default configuration does not tell of a type: how its prompts show an image (`prompt`), special tokens that
its tokenizer has as `attributes` and others, which token a setting of the configuration means, sizes. `left_out` says
why a type is no embedder at all; `slow` ones take seconds for an image."""
NAMES = tuple(name for name, entry in TYPES.items() if "left_out" not in entry)
LINES = (
    "a red bicycle leans against the wall of the old bakery",
    "una bicicletta rossa è appoggiata al muro del vecchio forno",
    "ein rotes Fahrrad lehnt an der Wand der alten Bäckerei",
    "古いパン屋の壁に赤い自転車が立てかけてある",
)
PLAIN = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
PLAIN_IDS = {"pad_token_id": 0, "_pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 1}
OTHER_IDS = ("sep_token_id", "eod_token_id", "forced_eos_token_id")
VIDEOS = {
    "Qwen2_5OmniProcessor": "Qwen2VLVideoProcessor",
    "Qwen3OmniMoeProcessor": "Qwen2VLVideoProcessor",
}


def build(name: str, folder: Path) -> Path:
    """Writes a checkpoint with its language-model head, its processor's files, and a tokenizer trained on the spot."""
    entry = TYPES[name]
    tokenizer = make_tokenizer(entry)
    config = make_config(name, entry, tokenizer)
    torch.manual_seed(0)
    try:
        model = transformers.AutoModelForImageTextToText.from_config(config)
    except ValueError:
        model = transformers.AutoModel.from_config(config)
    enlarge(model)
    model.save_pretrained(folder)
    if entry.get("sep"):
        tokenizer.add_special_tokens({"sep_token": entry["sep"]})
    tokenizer.save_pretrained(folder)
    save_processor(name, entry, folder)
    return folder


@torch.no_grad()
def enlarge(model: Any) -> None:
    """Weights far larger than training starts with, and open gates: rows must differ much for a fault to show."""
    for path, weight in model.named_parameters():
        if weight.ndim > 1 and weight.numel() > 1 and weight.is_floating_point() and "alpha_" not in path:
            inputs = weight.shape[-1] if "experts" in path and weight.ndim == 3 else weight[0].numel()
            weight.normal_(0, inputs**-0.5)
        elif not weight.isfinite().all():
            weight.zero_()
        elif ("gate" in path or "alpha" in path) and not weight.any():
            weight.fill_(0.7)  # cross-attention that starts shut would hide the images


def make_tokenizer(entry: dict[str, Any]) -> Any:
    """A byte-level tokenizer with the special tokens of a type."""
    attributes, more = entry.get("attributes", {}), [*entry.get("tokens", ())]
    more += [token for tokens in entry.get("token_lists", {}).values() for token in tokens if token not in more]
    more += codes_of(entry)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys([*PLAIN.values(), *attributes.values(), *more]))
    tokenizer.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=500 + len(special),
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            max_token_length=8,
        ),
    )
    if entry.get("writes_bos"):
        bos = PLAIN["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=attributes, **PLAIN)
    if more:
        made.add_special_tokens({"additional_special_tokens": more})
    return made


def codes_of(entry: dict[str, Any]) -> list[str]:
    """The tokens of a codebook of images, and the one behind a line of them."""
    if "codes" not in entry:
        return []
    return [*(entry["code"].format(number) for number in range(entry["codes"])), "<|extra_200|>"]


def make_config(name: str, entry: dict[str, Any], tokenizer: Any) -> Any:
    """The default configuration of a type, tiny, with the ids of this tokenizer."""
    default = transformers.AutoConfig.for_model(name)
    tiny = shrink(as_dict(default), len(tokenizer) + 64)
    fit_rope(tiny, default)
    ids = tokenizer.convert_tokens_to_ids
    if "codes" in entry:
        tiny["vocabulary_map"] = {token: ids(token) for token in [*codes_of(entry), "<image>"]}
    for setting, tokens in entry.get("token_lists", {}).items():
        tiny[setting] = [ids(token) for token in tokens]
    tiny = changed(tiny, entry.get("config", {}))
    set_ids(tiny, entry.get("attributes", {}), entry.get("token_of_setting", {}), tokenizer)
    return type(default)(**{key: value for key, value in tiny.items() if key != "model_type"})


def as_dict(config: Any) -> dict[str, Any]:
    """A configuration with its parts, those that are off by default included, but for sound."""
    content = config.to_dict()
    for part, part_class in getattr(type(config), "sub_configs", {}).items():
        value = config.__dict__.get(part)
        if value is None and content.get(part) is None and part != "audio_config":
            try:
                value = part_class()
            except (TypeError, ValueError):  # a part of any model
                continue
        if hasattr(value, "to_dict"):
            content[part] = as_dict(value)
    return content


def fit_rope(tiny: dict[str, Any], default: Any) -> None:
    """Gives M-RoPE its sections where the default configuration has none."""
    text = tiny.get("text_config", tiny)
    text_class = type(default.__dict__.get("text_config") or default)
    rope = text.get("rope_parameters")
    if "mrope_section" not in getattr(text_class, "ignore_keys_at_rope_validation", ()) or not isinstance(rope, dict):
        return
    if not all(isinstance(value, dict) for value in rope.values()):
        text["rope_parameters"] = shrink_rope({**rope, "mrope_section": [0]})
        return
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    kinds = sorted(set(text.get("layer_types") or ["full_attention"]))
    text["rope_parameters"] = {kind: shrink_rope({**(rope.get(kind) or plain), "mrope_section": [0]}) for kind in kinds}


def set_ids(node: dict[str, Any], attributes: dict[str, str], named: dict[str, str], tokenizer: Any) -> None:
    """Puts this tokenizer's ids in the place of those of the published vocabulary."""
    for setting, value in list(node.items()):
        if isinstance(value, dict):
            if "rope" not in setting and "per_layer" not in setting and all(isinstance(key, str) for key in value):
                set_ids(value, attributes, named, tokenizer)
            continue
        ends = setting.endswith(("_id", "_index"))
        token = named.get(setting) or (attributes.get(re.sub(r"_(id|index)$", "", setting)) if ends else None)
        if token is not None:
            node[setting] = tokenizer.convert_tokens_to_ids(token)
        elif setting in PLAIN_IDS or setting in OTHER_IDS:
            node[setting] = None if value is None else PLAIN_IDS.get(setting, 1)
        elif setting.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            node[setting] = 3


def save_processor(name: str, entry: dict[str, Any], folder: Path) -> None:
    """The files of a type's processor, each part as its own class makes it by default."""
    images = part(name, entry.get("image_processor") or class_of("image", name), entry.get("image_settings", {}))
    if images is not None:
        images.save_pretrained(folder)
    processor = entry["processor"] if "processor" in entry else class_of("processor", name)
    if processor is None:
        return
    attributes = getattr(transformers, processor).get_attributes()
    parts = {"image_processor": images}
    if "video_processor" in attributes:
        parts["video_processor"] = part(name, VIDEOS.get(processor) or class_of("video", name), {})
    if "sound" in entry:
        default = class_of("feature", name) or processor.replace("Processor", "FeatureExtractor")
        parts["feature_extractor"] = part(name, default if entry["sound"] == "auto" else entry["sound"], {})
    content = {"processor_class": processor, **entry.get("processor_settings", {})}
    content |= {key: json.loads(made.to_json_string()) for key, made in parts.items() if made is not None}
    (folder / "processor_config.json").write_text(json.dumps(content), encoding="utf-8")


def part(name: str, class_name: str | None, settings: dict[str, Any]) -> Any:
    """One part of a processor; `None` where it cannot be made here."""
    if class_name is None:
        return None
    try:
        made = getattr(transformers, class_name)(**settings)
        made.to_json_string()
    except (ImportError, ValueError, OSError):  # needs torchvision or a font
        return None
    for key, value in settings.items():
        if not hasattr(made, key):
            setattr(made, key, value)
    return made


def class_of(kind: str, name: str) -> str | None:
    """Name of the class that transformers has for one part of a type's processor."""
    module, table = {
        "processor": ("processing_auto", "PROCESSOR_MAPPING_NAMES"),
        "image": ("image_processing_auto", "IMAGE_PROCESSOR_MAPPING_NAMES"),
        "video": ("video_processing_auto", "VIDEO_PROCESSOR_MAPPING_NAMES"),
        "feature": ("feature_extraction_auto", "FEATURE_EXTRACTOR_MAPPING_NAMES"),
    }[kind]
    found = getattr(importlib.import_module(f"transformers.models.auto.{module}"), table).get(name)
    if not isinstance(found, dict):
        return found
    backends = ("torchvision", "pil") if transformers.utils.is_torchvision_available() else ("pil", "torchvision")
    return next((found[backend] for backend in backends if found.get(backend)), None)
