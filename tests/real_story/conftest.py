"""A tiny language model in a GGUF file, a tiny image tower, and the model that is made of both."""

import copy

import numpy as np
import pytest
import torch

SIDE, PATCH, HEADS, KEYS = 64, 32, 4, 2
CODES = [*range(33, 127), *range(161, 173), *range(174, 256)]
# GPT-2's alphabet of bytes.
BYTES = [chr(code) for code in CODES] + [chr(256 + place) for place in range(256 - len(CODES))]
TOKENS = [*BYTES, "th", "the"]


@pytest.fixture(scope="session")
def language():
    """A tiny language model, whose logits are to be found again."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS) + 2,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def gguf_file(language, tmp_path_factory):
    """The same model as llama.cpp stores it."""
    from gguf import GGUFWriter

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer, config = GGUFWriter(str(path), "llama"), language.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*TOKENS, "<s>", "</s>"])
    writer.add_token_merges(["t h", "th e"])
    writer.add_token_types([1] * len(TOKENS) + [3, 3])
    writer.add_bos_token_id(len(TOKENS))
    writer.add_eos_token_id(len(TOKENS) + 1)
    writer.add_pad_token_id(len(TOKENS) + 1)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for number, layer in enumerate(language.model.layers):
        for name, short in names.items():
            weight = layer.get_submodule(name).weight.detach().numpy()
            heads = {"attn_q": HEADS, "attn_k": KEYS}.get(short)
            writer.add_tensor(f"blk.{number}.{short}.weight", rotated(weight, heads) if heads else weight)
    writer.add_tensor("token_embd.weight", language.model.embed_tokens.weight.detach().numpy())
    writer.add_tensor("output_norm.weight", language.model.norm.weight.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rotated(weight, heads):
    """llama.cpp keeps the two halves of a rotated pair side by side."""
    rows, columns = weight.shape
    return np.ascontiguousarray(
        weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


@pytest.fixture(scope="session")
def eyes():
    import timm

    from xvlm2vec.real_story.tower import make_tower

    torch.manual_seed(0)
    original = timm.create_model("test_efficientnet", num_classes=3)
    for module in original.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    weights = {f"old.{number}": value for number, value in enumerate(original.state_dict().values())}
    return original.eval(), make_tower(weights, "test_efficientnet")


@pytest.fixture(scope="session")
def checkpoint(gguf_file, eyes, tmp_path_factory):
    from xvlm2vec.real_story.checkpoint import Shape, assemble, compare
    from xvlm2vec.real_story.language_model import load_gguf

    folder = tmp_path_factory.mktemp("whole") / "checkpoint"
    model, tokenizer = load_gguf(gguf_file)
    plain = copy.deepcopy(tokenizer)
    assemble(model, tokenizer, eyes[1], Shape(SIDE, PATCH), folder)
    return folder, compare(folder, model, plain, eyes[1], Shape(SIDE, PATCH)), plain
