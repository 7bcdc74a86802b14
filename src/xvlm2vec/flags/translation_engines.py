"""Translators of a corpus by what a user calls them: models, servers, Apertium, word lists, and votes of several."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from .translators import load_translator
from .workers import add_workers, load_workers

if TYPE_CHECKING:
    from xvlm2vec.corpus.translators.engine import Engine
    from xvlm2vec.corpus.translators.protected import Protected
    from xvlm2vec.corpus.translators.vote import Embed

RULES = "rules"
_NOT_DECIDING = frozenset({"output", "batch_size", "engine", "address", "workers"})


def add_engines(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name translators."""
    group = parser.add_argument_group("translators", "one, or several that vote")
    group.add_argument(
        "--model", action="append", default=[], metavar="PATH_OR_ID", help="a translation model (NLLB, M2M100, MADLAD, "
        "Marian), or a chat model; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--server", metavar="URL", help="a server with OpenAI's interface (vLLM, llama.cpp, Ollama, or a hosted one): "
        "what stands before /chat/completions, such as http://localhost:8000/v1; its key, if it wants one, is read "
        "from OPENAI_API_KEY",
    )  # fmt: skip
    group.add_argument("--server-model", metavar="NAME", help="what the server calls its model")
    group.add_argument("--apertium", action="store_true", help="the program apertium, for the pairs of languages that "
                       "are installed (apt install apertium-eng-spa); words that it does not know fail")  # fmt: skip
    group.add_argument(
        "--words", metavar="FILE", help="a CSV, en,de,fr, with a line for each sense of a word: for labels and names, "
        "each of which must be in it as a whole and is given all its senses",
    )  # fmt: skip
    group.add_argument(
        "--vote", metavar="rules|MODEL", help="of several translators' texts the one with the fewest faults by the "
        "rules of `corpus check` is kept; of equals that of the translator named first in this list (rules, the "
        "default), or the one most similar to the English text by a multilingual embedder (its folder or Hub id)",
    )  # fmt: skip
    add_workers(parser, "the same translations; each worker has the translator", processes=False)


def engine_settings(flags: argparse.Namespace) -> dict[str, Any]:
    """What decides the translations, as `state.json` keeps it; a single model as earlier versions wrote it."""
    settings = {name: value for name, value in vars(flags).items() if name not in _NOT_DECIDING}
    if len(flags.model) == 1:
        settings["model"] = flags.model[0]
    return {name: value for name, value in settings.items() if value not in (None, False, [])}


def load_engine(flags: argparse.Namespace) -> Engine:
    """The translator, or the vote of several, here or on a cluster.

    Raises:
        ValueError: None is named, or flags do not fit together.
        FileNotFoundError: A file or a program is missing.
        ImportError: Ray is not installed.
    """
    engine, workers = load_local_engine(flags), load_workers(flags)
    if workers is None:
        return engine
    from xvlm2vec.corpus.translators.on_workers import OnWorkers

    return OnWorkers(engine, partial(load_local_engine, flags), workers, flags.workers)


def load_local_engine(flags: argparse.Namespace) -> Engine:
    """The translator, or the vote of several, in this process.

    Raises:
        ValueError: None is named, or flags do not fit together.
        FileNotFoundError: A file or a program is missing.
    """
    _check(flags)
    engines = _engines(flags)
    if len(engines) == 1 and flags.vote is None:
        return next(iter(engines.values()))
    if len(engines) == 1:
        raise ValueError("--vote is for several translators, and there is one.")
    from xvlm2vec.corpus.translators.vote import Vote

    return Vote(engines, None if flags.vote in (None, RULES) else _embed(flags.vote))


def load_back_translator(name: str, server_model: str | None = None) -> Protected:
    """What translates into English again.

    Args:
        name: A translation or chat model, `apertium`, or the address of a server.
        server_model: What the server calls its model.

    Raises:
        FileNotFoundError: Apertium is not installed.
    """
    from xvlm2vec.corpus.translators.apertium import PROGRAM, Apertium
    from xvlm2vec.corpus.translators.protected import Protected
    from xvlm2vec.corpus.translators.server import ChatServer

    settings = argparse.Namespace(tags=(), batch_size=32, num_beams=1, max_new_tokens=256)
    if server_model:
        return Protected(ChatServer(name, server_model, settings.batch_size, settings.max_new_tokens))
    return Protected(Apertium() if name == PROGRAM else _model(name, settings))


def _check(flags: argparse.Namespace) -> None:
    if not (flags.model or flags.server or flags.apertium or flags.words):
        raise ValueError("name a translator: --model, --server, --apertium or --words.")
    if bool(flags.server) != bool(flags.server_model):
        raise ValueError("--server and --server-model belong together.")


def _engines(flags: argparse.Namespace) -> dict[str, Engine]:
    """The translators by name, those first that need no model: what is missing is told before one is loaded."""
    from xvlm2vec.corpus.translators.apertium import Apertium
    from xvlm2vec.corpus.translators.server import ChatServer
    from xvlm2vec.corpus.translators.word_list import WordList

    others: dict[str, Engine] = {}
    if flags.server:
        others[flags.server_model] = ChatServer(
            flags.server, flags.server_model, flags.batch_size, flags.max_new_tokens
        )
    if flags.apertium:
        others["apertium"] = Apertium()
    if flags.words:
        others[flags.words] = WordList(flags.words)
    return {model: _model(model, flags) for model in dict.fromkeys(flags.model)} | others


def _model(source: str, flags: argparse.Namespace) -> Engine:
    """A translation model or a chat model, by its configuration."""
    from transformers import AutoConfig

    if AutoConfig.from_pretrained(source).is_encoder_decoder:
        return load_translator(
            source, tags=flags.tags, batch_size=flags.batch_size, num_beams=flags.num_beams,
            max_new_tokens=flags.max_new_tokens,
        )  # fmt: skip
    return _chat_model(source, flags.batch_size, flags.max_new_tokens)


def _chat_model(source: str, batch_size: int, max_new_tokens: int) -> Engine:
    """A chat model, also one that takes images, on a GPU where there is one."""
    import torch
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoTokenizer,
    )

    from xvlm2vec.corpus.translators.chat_model import ChatModel

    is_text_model = type(AutoConfig.from_pretrained(source)) in MODEL_FOR_CAUSAL_LM_MAPPING
    loader = AutoModelForCausalLM if is_text_model else AutoModelForImageTextToText
    on_gpu = torch.cuda.is_available()
    model: Any = loader.from_pretrained(source, dtype=torch.bfloat16 if on_gpu else torch.float32)
    model.to("cuda" if on_gpu else "cpu")
    return ChatModel(model, AutoTokenizer.from_pretrained(source), batch_size, max_new_tokens)


def _embed(source: str) -> Embed:
    """An embedder of texts."""
    from xvlm2vec.eval.ranking import Row

    from .encoders import load_encoder

    encoder = load_encoder(source)

    def embed(texts: list[str]) -> Any:
        from xvlm2vec.eval.metrics import unit_rows

        return unit_rows(encoder.encode_rows([Row(text=text) for text in texts], {}))

    return embed
