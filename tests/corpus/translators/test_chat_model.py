"""A tiny chat model that has learned its answers by heart, a refusal among them."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from xvlm2vec.corpus.translators.chat import messages
from xvlm2vec.corpus.translators.chat_model import ChatModel

TEMPLATE = (
    "{% for m in messages %}<user> {{ m['content'] }} <end> {% endfor %}{% if add_generation_prompt %}<bot> {% endif %}"
)
SAID = {
    "a red dog": "ein roter Hund",
    "two boats at sea": "Translation: zwei Boote auf See",
    "rain": "I cannot translate this",
}


@pytest.fixture(scope="module")
def tokenizer():
    asked = [message["content"] for text in SAID for message in messages(text, "de", "en")]
    words = sorted({word for text in (*asked, *SAID.values()) for word in text.split()})
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "<user>", "<bot>", "<end>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<end>"}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **tokens)
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="module")
def taught(tokenizer):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, pad_token_id=0, bos_token_id=None, eos_token_id=4, max_position_embeddings=128,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        rows = []
        for text, answer in SAID.items():
            prompt = tokenizer.apply_chat_template(messages(text, "de", "en"), add_generation_prompt=True)["input_ids"]
            rows.append((prompt, [*tokenizer.encode(answer), 4]))
        length = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids = torch.tensor([prompt + answer + [0] * (length - len(prompt + answer)) for prompt, answer in rows])
        labels = torch.tensor([
            [-100] * len(prompt) + answer + [-100] * (length - len(prompt + answer)) for prompt, answer in rows
        ])  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(60):
            loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.set_num_threads(threads)
    return model


@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_are_translations_and_refusals_are_failures(taught, tokenizer, batch_size):
    engine = ChatModel(taught, tokenizer, batch_size=batch_size, max_new_tokens=8)
    texts = list(SAID)
    found = {texts[number]: (text, problem) for number, text, problem in engine.translate(texts, "de")}
    refusal = found.pop("rain")
    assert found == {"a red dog": ("ein roter Hund", ""), "two boats at sea": ("zwei Boote auf See", "")}
    assert refusal[0] is None
    assert refusal[1].startswith("refusal: no translation but a refusal")


def test_an_answer_that_is_not_at_its_end_is_a_failure(taught, tokenizer):
    engine = ChatModel(taught, tokenizer, max_new_tokens=2)
    assert list(engine.translate(["a red dog"], "de")) == [(0, None, "the answer was not at its end after 2 tokens")]


def test_a_model_without_a_chat_template_is_refused(taught, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(ValueError, match="has no chat template, and is no translation model either"):
        ChatModel(taught, tokenizer)
