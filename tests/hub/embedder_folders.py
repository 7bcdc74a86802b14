"""Tiny random embedders in the layouts in which people publish them, written by hand as the libraries' files are."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

WIDTH, DENSE_WIDTH, SIDE = 32, 16, 28
TOWER = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)


def _families() -> ModuleType:
    """The builders of vision-language checkpoints, which stand beside the tests of modeling."""
    path = Path(__file__).parents[1] / "modeling" / "conftest.py"
    spec = importlib.util.spec_from_file_location("families", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


families = _families()


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def tokenizer() -> Any:
    return families.qwen_tokenizer()


def spread(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Large weights, so that rows differ, and norms and biases that are not all the same."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
            weight.copy_(torch.randn_like(weight) * scale + (weight.ndim == 1))
    return model


def write_text_model(folder: Path, model_class: str = "BertModel") -> Path:
    """A bare text encoder with its tokenizer."""
    words = tokenizer()
    config = transformers.BertConfig(**TOWER, vocab_size=len(words), max_position_embeddings=64)
    spread(getattr(transformers, model_class)(config)).save_pretrained(folder)
    words.model_max_length = 64
    words.save_pretrained(folder)
    return folder


def write_towers(folder: Path, name: str) -> Path:
    """A bare CLIP or SigLIP with its processor."""
    words = tokenizer()
    size = {"height": SIDE, "width": SIDE}
    text = TOWER | {"vocab_size": len(words), "max_position_embeddings": 64}
    vision = TOWER | {"image_size": SIDE, "patch_size": 14}
    if name == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=DENSE_WIDTH)
        images = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
        model, processor = transformers.CLIPModel(config), transformers.CLIPProcessor(images, words)
    else:
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        images = transformers.SiglipImageProcessorPil(size=size)
        model, processor = transformers.SiglipModel(config), transformers.SiglipProcessor(images, words)
    words.model_max_length = 64
    spread(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_vision_language_model(folder: Path, name: str) -> Path:
    """A checkpoint with its language-model head, and a chat template that this file knows."""
    families.build(name, folder)
    (folder / "chat_template.jinja").write_text(
        TEMPLATE.replace("IMAGE", {"gemma3": "<start_of_image>"}.get(name, "<image>")), encoding="utf-8"
    )
    kinds = {"text": _FORWARD, "image": _FORWARD, "message": {**_FORWARD, "format": "structured"}}
    settings = {"transformer_task": "feature-extraction", "modality_config": kinds}
    write_json(folder / "sentence_bert_config.json", settings | {"module_output_name": "token_embeddings"})
    return folder


def add_modules(folder: Path, *, place: str = "", old: bool = False, dense: bool = True) -> Path:
    """Pooling, Dense and Normalize behind a backbone that lies in `place`, and what else such folders hold."""
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    names = {kind: place if kind == "Transformer" else f"{at}_{kind}" for at, kind in enumerate(kinds)}
    paths = {kind: f"sentence_transformers.models.{kind}" if old else NEW[kind] for kind in kinds}
    write_json(
        folder / "modules.json",
        [{"idx": at, "name": str(at), "path": names[kind], "type": paths[kind]} for at, kind in enumerate(kinds)],
    )
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    )
    if dense:
        config = {"in_features": WIDTH, "out_features": DENSE_WIDTH, "bias": True}
        write_json(
            folder / names["Dense"] / "config.json",
            config | {"activation_function": "torch.nn.modules.activation.Tanh"},
        )
        weights = {"linear.weight": torch.randn(DENSE_WIDTH, WIDTH), "linear.bias": torch.randn(DENSE_WIDTH)}
        save_file(weights, folder / names["Dense"] / "model.safetensors", {"format": "pt"})
    write_json(folder / names["Normalize"] / "config.json", {})
    prompts = {"query": "query: ", "document": ""}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "similarity_fn_name": "cosine"})
    (folder / "README.md").write_text("# The original\n", encoding="utf-8")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n", encoding="utf-8")
    return folder


def write_text_embedder(folder: Path, **settings: Any) -> Path:
    """A MiniLM-like embedder."""
    write_text_model(folder / settings.get("place", ""))
    return add_modules(folder, **settings)


def edit_weights(folder: Path, changes: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Adds tensors to a folder's weights, or replaces them."""
    weights = load_file(folder / "model.safetensors") | changes
    save_file(weights, folder / "model.safetensors", metadata or {"format": "pt"})


def teach(module: torch.nn.Module, *parts: str, seed: int = 1) -> Any:
    """Moves the parameters whose names hold one of some parts, or all."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if not parts or any(part in name for part in parts):
                weight.add_(torch.randn_like(weight) * 0.1)
    return module


def decoder(folder: Path, tied: bool, head: str | None) -> Path:
    """A decoder with a stored head: the embeddings' values, other ones, or what it has of its own (`None`)."""
    words = tokenizer()
    settings = TOWER | {"vocab_size": len(words), "num_key_value_heads": 2, "head_dim": 8}
    config = transformers.Qwen3Config(**settings, tie_word_embeddings=tied)
    spread(transformers.Qwen3ForCausalLM(config)).save_pretrained(folder)
    if head is not None:
        embeddings = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        edit_weights(folder, {"lm_head.weight": embeddings * (1 if head == "same" else 2)})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def different(before: Path, after: Path) -> list[str]:
    """The tensors of two files that differ; names and dtypes must not."""
    old, new = load_file(before), load_file(after)
    assert {key: value.dtype for key, value in old.items()} == {key: value.dtype for key, value in new.items()}
    return sorted(key for key in old if raw(old[key]) != raw(new[key]))


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def weight_files(*folders: Path) -> list[Path]:
    return [folder / "model.safetensors" for folder in folders]
