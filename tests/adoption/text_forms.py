"""Tiny text embedders in saved form: BERT-like ones with every head, decoders, routes, custom code, old layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from saved_chain import FLAT_MESSAGES, TEXT_ONLY, checkpoints, enlarged, save_chain, save_transformer, write_json
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Module, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tower_forms import CLIP_WIDTH, save_clip

WIDTH = checkpoints.LLM["hidden_size"]
LIMIT = 64  # tokens
ENCODER = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LETTERS = [chr(code) for code in range(33, 127)]
PREFIXES = {"query": "search for: ", "passage": "found: "}
INSTRUCTION = {"query": "Instruct: find what answers the query\nQuery: ", "document": ""}
# Published decoders have one that their modality_config leaves unused; a new save with it renders every text by it.
CHAT = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"

CENTERED = '''"""A module of its own: takes a constant vector off the embedding."""

import json
from pathlib import Path

import torch


class Centered(torch.nn.Module):
    def __init__(self, center):
        super().__init__()
        self.register_buffer("center", torch.tensor(center))

    def forward(self, features):
        features["sentence_embedding"] = features["sentence_embedding"] - self.center
        return features

    def save(self, folder):
        Path(folder, "config.json").write_text(json.dumps({"center": self.center.tolist()}))

    @staticmethod
    def load(folder):
        return Centered(**json.loads(Path(folder, "config.json").read_text()))
'''


def wordpiece_tokenizer() -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=specials, initial_alphabet=LETTERS, show_progress=False
    )
    tokenizer.train_from_iterator(checkpoints.LINES, trainer)
    known = tokenizer.get_vocab()
    names = [*sorted(known, key=known.get), *(f"##{letter}" for letter in LETTERS)]
    vocab = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return transformers.BertTokenizer(vocab=vocab, model_max_length=LIMIT)


def unigram_tokenizer() -> Any:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=specials, unk_token="<unk>", initial_alphabet=LETTERS, show_progress=False
    )
    tokenizer.train_from_iterator(checkpoints.LINES, trainer)
    vocab = [tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return transformers.XLMRobertaTokenizer(vocab=[*vocab, ("<mask>", 0.0)], model_max_length=LIMIT)


def save_bert(folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
    tokenizer = wordpiece_tokenizer()
    config = transformers.BertConfig(**ENCODER, vocab_size=len(tokenizer), max_position_embeddings=2 * LIMIT)
    save_transformer(folder, enlarged(transformers.AutoModel, config, seed), tokenizer, dtype)


def save_xlmr(folder: Path) -> None:
    tokenizer = unigram_tokenizer()
    config = transformers.XLMRobertaConfig(
        # Positions begin behind the padding's id.
        **ENCODER,
        vocab_size=len(tokenizer),
        max_position_embeddings=LIMIT + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    save_transformer(folder, enlarged(transformers.AutoModel, config), tokenizer)


def save_decoder(folder: Path, name: str, tokenizer: Any, side: str) -> None:
    """A language model whose tokenizer ends each text in an EOS, with its head."""
    # A save leaves out what the tokenizer was not made with.
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = side
    eos = tokenizer.eos_token
    single = [eos] if tokenizer.bos_token is None else [tokenizer.bos_token, eos]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*single[:-1], "$A", eos]),
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in single],
    )
    tokenizer.model_max_length = LIMIT
    config = getattr(transformers, f"{name}Config")(
        **checkpoints.LLM, vocab_size=len(tokenizer), head_dim=8, tie_word_embeddings=False
    )
    save_transformer(folder, enlarged(transformers.AutoModelForCausalLM, config), tokenizer)


def save_qwen3(folder: Path) -> None:
    tokenizer = checkpoints.qwen_tokenizer(None, "<|im_start|>", "<|im_end|>")
    tokenizer.chat_template = CHAT
    save_decoder(folder, "Qwen3", tokenizer, "left")


def bert(*heads: Module, pooling: str | tuple[str, ...] = "mean", **settings: Any) -> Callable[[Path], None]:
    """A builder of a BERT-like embedder with these modules behind its pooling."""

    def build(folder: Path) -> None:
        save_bert(folder)
        save_chain(folder, [Pooling(WIDTH, pooling), *heads], **settings)

    return build


def dense(width: int, activation: torch.nn.Module, **settings: Any) -> Dense:
    torch.manual_seed(0)
    return Dense(WIDTH, width, activation_function=activation, **settings)


def layer_norm() -> LayerNorm:
    torch.manual_seed(0)
    module = LayerNorm(WIDTH)
    torch.nn.init.normal_(module.norm.weight)
    torch.nn.init.normal_(module.norm.bias)
    return module


def build_dense_f32(folder: Path) -> None:
    """As an author saves it who trained the heads in float32: sentence-transformers casts them when it loads."""
    save_bert(folder, torch.bfloat16)
    save_chain(folder, [Pooling(WIDTH, "mean"), dense(24, torch.nn.Identity()), Normalize()])


def build_instructor(folder: Path) -> None:
    """The prompt is read, and left out of the mean."""
    save_bert(folder)
    save_chain(folder, [Pooling(WIDTH, "mean", include_prompt=False), Normalize()], prompts=PREFIXES)


def build_xlmr(folder: Path) -> None:
    save_xlmr(folder)
    save_chain(folder, [Pooling(WIDTH, "cls"), Normalize()])


def build_decoder(folder: Path, modalities: dict[str, Any] = TEXT_ONLY) -> None:
    save_qwen3(folder)
    save_chain(folder, [Pooling(WIDTH, "lasttoken"), Normalize()], modalities, prompts=INSTRUCTION)


def build_decoder_right(folder: Path) -> None:
    save_decoder(folder, "Llama", checkpoints.llama_tokenizer(), "right")
    save_chain(folder, [Pooling(WIDTH, "lasttoken"), Normalize()], prompts=INSTRUCTION)


def save_routes(folder: Path, parts: dict[str, tuple[Callable[[Path], None], list[Module]]], mappings: Any) -> None:
    """Saves a Router by sentence-transformers itself: for each route a transformers folder and what follows it."""
    with TemporaryDirectory() as place:
        routes = {}
        for name, (save, modules) in parts.items():
            save(Path(place, name))
            routes[name] = [Transformer(str(Path(place, name))), *modules]
        router = Router(routes, default_route="document" if "document" in routes else None, route_mappings=mappings)
        model = SentenceTransformer(modules=[router, Normalize()], device="cpu")
        model.save_pretrained(str(folder), create_model_card=False)


def build_router(folder: Path) -> None:
    """Two BERTs, one for queries and one for documents."""
    pooling = [Pooling(WIDTH, "mean")]
    save_routes(folder, {"query": (partial(save_bert, seed=1), pooling), "document": (save_bert, pooling)}, None)


def build_router_image(folder: Path) -> None:
    """A BERT for texts beside the image tower of a CLIP."""
    text = (save_bert, [Pooling(WIDTH, "mean"), dense(CLIP_WIDTH, torch.nn.Identity())])
    mappings = {(None, "text"): "text", (None, "image"): "image"}
    save_routes(folder, {"text": text, "image": (save_clip, [])}, mappings)


def build_custom(folder: Path) -> None:
    """Loads with `trust_remote_code=True` only."""
    save_bert(folder)
    save_chain(folder, [Pooling(WIDTH, "mean")])
    (folder / "centered.py").write_text(CENTERED, encoding="utf-8")
    write_json(folder / "2_Centered" / "config.json", {"center": [0.1] * WIDTH})
    chain = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    chain.append({"idx": 2, "name": "2", "path": "2_Centered", "type": "centered.Centered"})
    write_json(folder / "modules.json", chain)


def build_old_layout(folder: Path) -> None:
    """As releases of 2021 wrote it: the transformer in a folder, flags for the pooling, a Normalize without files."""
    save_bert(folder / "0_Transformer")
    write_json(folder / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    modes = {"cls_token": False, "mean_tokens": True, "max_tokens": False, "mean_sqrt_len_tokens": False}
    flags = {f"pooling_mode_{mode}": chosen for mode, chosen in modes.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **flags})
    chain = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(["Transformer", "Pooling", "Normalize"])
    ]
    write_json(folder / "modules.json", chain)
    versions = {"sentence_transformers": "2.0.0", "transformers": "4.7.0", "pytorch": "1.9.0+cu102"}
    write_json(folder / "config_sentence_transformers.json", {"__version__": versions})


TEXT_FORMS: dict[str, Callable[[Path], None]] = {
    "minilm": bert(Normalize()),
    "minilm-dense": bert(dense(24, torch.nn.Tanh()), pooling="cls"),
    "minilm-matryoshka": bert(Normalize(), prompts=PREFIXES, default_prompt_name="query", truncate_dim=16),
    "instructor": build_instructor,
    "xlmr": build_xlmr,
    "weighted": bert(Normalize(), pooling=("mean", "weightedmean")),
    "layernorm": bert(layer_norm()),
    "dense-residual": bert(dense(24, torch.nn.GELU(), use_residual=True), Normalize()),
    "dense-f32": build_dense_f32,
    "decoder": build_decoder,
    "decoder-right": build_decoder_right,
    "decoder-chat": partial(build_decoder, modalities=FLAT_MESSAGES),
    "router": build_router,
    "router-image": build_router_image,
    "custom": build_custom,
    "old-layout": build_old_layout,
    "no-modules": save_bert,
}
