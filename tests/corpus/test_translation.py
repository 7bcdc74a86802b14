"""Translating a corpus with tiny models that have learned their sentences by heart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from xvlm2vec.corpus.schema import parallel_features, translation_fields
from xvlm2vec.corpus.stored import load_parallel, write_dataset
from xvlm2vec.corpus.translation import (
    TranslationFile,
    Translator,
    text_key,
    translate_corpus,
    translated_rows,
    translation_path,
)

SENTENCES = {
    "a red dog": {"de": "ein roter Hund", "fr": "un chien rouge"},
    "rain": {"de": "Regen", "fr": "pluie"},
    "two boats at sea": {"de": "zwei Boote auf See", "fr": "deux bateaux en mer"},
}
SPECIAL = ["<pad>", "</s>", "<unk>"]
TAGS = {
    "m2m_100": {"en": "eng_Latn", "de": "deu_Latn", "fr": "fra_Latn"},
    "t5": {"de": "<2de>", "fr": "<2fr>"},
}


def tokenizer(tags):
    words = sorted(
        {word for en, others in SENTENCES.items() for text in (en, *others.values()) for word in text.split()}
    )
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *tags, *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", extra_special_tokens=list(tags)
    )


def untrained(kind, vocab_size):
    shared = {"d_model": 32, "vocab_size": vocab_size, "pad_token_id": 0, "eos_token_id": 1}
    if kind == "t5":
        return T5ForConditionalGeneration(
            T5Config(**shared, d_ff=64, d_kv=16, num_layers=1, num_heads=2, decoder_start_token_id=0, dropout_rate=0.0)
        )
    sizes = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 64, "layerdrop": 0.0}.items()
    }
    return M2M100ForConditionalGeneration(
        M2M100Config(
            **shared, **sizes, max_position_embeddings=32, decoder_start_token_id=1, dropout=0.0, attention_dropout=0.0
        )
    )


def teach(kind, model, words):
    """Learns the sentences in the form in which such models are trained."""
    tags, rows = TAGS[kind], []
    for english, others in SENTENCES.items():
        for language, text in others.items():
            front, begin = (tags[language], []) if kind == "t5" else (tags["en"], [tags[language]])
            source = [front, *english.split(), "</s>"]
            rows.append((source, [*begin, *text.split(), "</s>"]))
    ids = [[words.convert_tokens_to_ids(part) for part in row] for row in rows]
    inputs = words.pad({"input_ids": [source for source, _ in ids]}, return_tensors="pt")
    targets = words.pad({"input_ids": [target for _, target in ids]}, return_tensors="pt")
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module", params=list(TAGS))
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = tokenizer(TAGS[request.param].values())
        teach(request.param, untrained(request.param, len(words)).train(), words).save_pretrained(folder)
    words.save_pretrained(folder)
    torch.set_num_threads(threads)
    return request.param, folder


@pytest.fixture
def translator(saved):
    kind, folder = saved
    model_class = T5ForConditionalGeneration if kind == "t5" else M2M100ForConditionalGeneration
    return Translator(model_class.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), batch_size=2)


def corpus(*more):
    image = Image.new("RGB", (4, 4), "red")
    rows = [
        {"id": "0", "image": None, "text_en": "a red dog", "translations": [], "source": "t"},
        {"id": "0/image", "image": image, "text_en": "a red dog", "translations": [], "source": "t"},
        {
            "id": "1",
            "image": None,
            "text_en": "rain",
            "translations": [{"lang": "de", "text": "Schauer"}],
            "source": "t",
        },
        {"id": "2", "image": None, "text_en": "two boats at sea", "translations": [], "source": "t"},
        *more,
    ]
    return Dataset.from_list(rows, features=parallel_features())


def test_sentences_are_translated_whatever_their_batch(translator):
    for language in ("de", "fr"):
        made = {number: (text, problem) for number, text, problem in translator.translate(list(SENTENCES), language)}
        assert made == {number: (others[language], "") for number, others in enumerate(SENTENCES.values())}


def test_each_text_is_translated_once_and_what_is_there_is_kept(translator, tmp_path):
    outcome = translate_corpus(corpus(), translator, ["de", "fr"], tmp_path)
    assert outcome.translated == {"de": 2, "fr": 3}
    assert outcome.rejected == []
    assert len(translation_path(tmp_path, "de").read_text(encoding="utf-8").splitlines()) == 2
    asked = []
    translator.translate = lambda texts, language: asked.extend(texts) or iter(())
    assert translate_corpus(corpus(), translator, ["de", "fr"], tmp_path).translated == {"de": 2, "fr": 3}
    assert asked == []


def test_a_text_bears_the_name_of_the_language_that_it_is_in(translator, monkeypatch):
    seen, generate = [], translator._generate
    monkeypatch.setattr(translator, "_generate", lambda rows, tag: seen.append((rows, tag)) or generate(rows, tag))
    assert len(list(translator.translate(["Regen"], "fr", "de"))) == 1
    ((rows, tag),) = seen
    first = "<2fr>" if tag == "<2fr>" else "deu_Latn"  # MADLAD wants the target's name before the text, NLLB the text's
    assert translator.tokenizer.convert_ids_to_tokens(rows[0]) == [first, "Regen", "</s>"]
    assert tag in ("<2fr>", "fra_Latn")


def test_a_language_without_a_tag_is_told_before_the_first_text(translator, tmp_path):
    with pytest.raises(ValueError, match="no tag for the language 'ja'; name it with --tags ja=TAG"):
        translate_corpus(corpus(), translator, ["de", "ja"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_marks_of_images_are_not_translated_and_stay(tmp_path):
    asked = []

    def translate(texts, language, source="en"):
        asked.extend(texts)
        yield from ((number, "ein Hund", "") for number, _ in enumerate(texts))

    row = {"id": "0", "image": Image.new("RGB", (4, 4)), "text_en": "<image>\na dog", "translations": [], "source": "t"}
    rows = Dataset.from_list([row], features=parallel_features())
    stub = SimpleNamespace(check=lambda languages: None, translate=translate, batch_size=2)

    assert translate_corpus(rows, stub, ["de"], tmp_path).translated == {"de": 1}
    assert asked == ["a dog"]
    (written,) = translated_rows(rows, ["de"], tmp_path)
    assert written["translations"] == [{"lang": "de", "text": "<image>\nein Hund"}]


def test_failures_are_listed_and_never_cut_off_in_silence(translator, tmp_path):
    translator.max_new_tokens = 3
    outcome = translate_corpus(corpus(), translator, ["de"], tmp_path)
    assert [(item.id, item.language) for item in outcome.rejected] == [("0", "de"), ("2", "de")]
    assert all(item.problem == "the translation was not at its end after 3 tokens" for item in outcome.rejected)


def test_a_text_that_is_too_long_is_named(saved, translator, tmp_path):
    if saved[0] == "t5":
        translator.limit = 32  # T5 itself has none
    row = {"id": "long", "image": None, "text_en": "rain " * 40, "translations": [], "source": "t"}
    outcome = translate_corpus(corpus(row), translator, ["fr"], tmp_path)
    assert [(item.id, item.problem) for item in outcome.rejected] == [
        ("long", "the English text has 42 tokens, and the model reads 32")
    ]


def test_a_line_that_was_cut_off_is_done_again(tmp_path):
    path = tmp_path / "de.jsonl"
    TranslationFile(path).add([(text_key("rain"), "Regen", "")])
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"key": "')
    again = TranslationFile(path)
    assert again.texts == {text_key("rain"): ("Regen", "")}
    again.add([(text_key("sea"), "See", "")])
    assert set(TranslationFile(path).texts) == {text_key("rain"), text_key("sea")}
    path.write_text("no json\n")
    with pytest.raises(ValueError, match=r"de\.jsonl, line 1: damaged"):
        TranslationFile(path)


def test_the_command_writes_a_corpus(saved, tmp_path):
    _, folder = saved
    corpus().save_to_disk(tmp_path / "english")
    command = [sys.executable, "-m", "xvlm2vec", "translate", str(tmp_path / "english"), "--model", str(folder)]
    command += ["--languages", "de,fr", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "4 rows; translated texts: de 2, fr 3" in done.stdout
    made = load_parallel(tmp_path / "out" / "parallel")
    assert made[0]["translations"] == [{"lang": k, "text": v} for k, v in SENTENCES["a red dog"].items()]
    assert made[1]["image"].size == (4, 4)
    assert made[2]["translations"] == [{"lang": "de", "text": "Schauer"}, {"lang": "fr", "text": "pluie"}]
    assert json.loads((tmp_path / "out" / "untranslated.json").read_text())["bad"] == 0


def test_word_alignments_and_codes_in_other_spellings_stay(tmp_path):
    features = parallel_features(["alignment"])
    item = {"lang": "pt_br", "text": "um cachorro", "alignment": "0-0 1-1"}
    row = {"id": "0", "image": None, "text_en": "a dog", "translations": [item], "source": "t"}
    rows = Dataset.from_list([row], features=features)
    for language, text in (("pt-BR", "other"), ("de", "ein Hund")):
        TranslationFile(translation_path(tmp_path, language)).add([(text_key("a dog"), text, "")])

    written = write_dataset(
        lambda: translated_rows(rows, ["pt-BR", "de"], tmp_path),
        parallel_features(translation_fields(rows.features)),
        tmp_path / "parallel",
    )

    assert written[0]["translations"] == [item, {"lang": "de", "text": "ein Hund", "alignment": None}]


@pytest.mark.parametrize(
    ("language", "vocabulary", "tag"),
    [
        ("pt-BR", ["__pt__", "__en__"], "__pt__"),
        ("zh-Hant", ["zho_Hans", "zho_Hant", "eng_Latn"], "zho_Hant"),
        ("zh-TW", ["zho_Hans", "zho_Hant", "eng_Latn"], "zho_Hant"),
        ("zh-Hans", ["__zh__", "__en__"], "__zh__"),
        ("sr-Latn", ["<2sr_Latn>", "<2sr>"], "<2sr_Latn>"),
        ("zh-TW", ["__zh__", "__en__"], None),
    ],
)
def test_tags_of_regions_and_scripts(language, vocabulary, tag):
    names = SimpleNamespace(get_vocab=lambda: dict.fromkeys(vocabulary, 0), model_max_length=9)
    model = SimpleNamespace(eval=lambda: None, config=SimpleNamespace())
    translator = Translator(model, names)
    if tag is None:
        with pytest.raises(ValueError, match="has no tag for the language"):
            translator.tag(language)
    else:
        assert translator.tag(language) == tag
