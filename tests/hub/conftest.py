"""A tiny Idefics3 with its processor, wrapped; an adapter on it; and its export."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.hub.card import LossNote, ReleaseCard
from xvlm2vec.hub.export import export_model

sys.path.insert(0, str(Path(__file__).parent))  # the loopback Hub is made of several files beside this one
from loopback_hub import ORG, TOKENS, LoopbackHub, client_environment

SPECIAL = ["<pad>", "<s>", "</s>", "<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"]
PROMPTS = {"query": "Find the image: ", "document": ""}


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the image of a dog"] * 10, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="right"
    )


def make_backbone(folder: Path) -> Path:
    tokenizer = make_tokenizer()
    image_processor = Idefics3ImageProcessorPil(
        do_resize=False, do_image_splitting=False, max_image_size={"longest_edge": 32}, size={"longest_edge": 32}
    )
    shared = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    config = Idefics3Config(
        vision_config={**shared, "image_size": 32, "patch_size": 8},
        text_config={
            **shared,
            "model_type": "llama",
            "num_key_value_heads": 4,
            "vocab_size": len(tokenizer),
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "max_position_embeddings": 512,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():  # wide enough that rows differ; the default leaves them nearly parallel
            if weight.dim() > 1:
                weight.normal_(0, weight[0].numel() ** -0.5)
    model.save_pretrained(folder)
    Idefics3Processor(image_processor, tokenizer, image_seq_len=4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def model(backbone_folder: Path) -> XVLM2VecModel:
    return XVLM2VecModel.from_backbone(backbone_folder, prompts=PROMPTS)


@pytest.fixture(scope="session")
def processor(backbone_folder: Path) -> XVLM2VecProcessor:
    return XVLM2VecProcessor.from_pretrained(backbone_folder)


def with_adapter(model: XVLM2VecModel, **settings) -> PeftModel:
    config = LoraConfig(r=4, target_modules=r".*text_model.*(q_proj|v_proj|down_proj)", **settings)
    adapted = get_peft_model(copy.deepcopy(model), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    return adapted


@pytest.fixture(scope="session")
def adapted(model: XVLM2VecModel) -> PeftModel:
    """LoRA on the language model and trained embeddings, as if it had been trained."""
    return with_adapter(model, modules_to_save=["embed_tokens"])


SCORES = {
    "student": {
        "t2i": {
            "en": {"p_at_1": 0.91, "n": 200, "ci95": [0.87, 0.945]},
            "de": {"p_at_1": 0.885, "n": 200, "ci95": [0.84, 0.925]},
        },
        "c": {"en": {"p_at_1": 1.0, "n": 50, "ci95": [1.0, 1.0]}},
    },
    "teacher": {"t2i": {"en": {"p_at_1": 0.92, "n": 200}, "de": {"p_at_1": 0.31, "n": 200}}},
}


def full_card(**changes) -> ReleaseCard:
    values = {
        "name": "tiny-xvlm2vec",
        "repo_id": "someone/tiny-xvlm2vec",
        "description": "Made by the tests.",
        "languages": ["en", "de"],
        "base_model": "someone/tiny-teacher",
        "method": "self-distillation",
        "license": "apache-2.0",
        "datasets": ["someone/parallel"],
        "losses": [LossNote("SelfDistillationLoss", "@article{x, title={Distilling}}"), LossNote("Plain")],
        "hyperparameters": {"learning_rate": 5e-4, "batch | size": 64},
        "versions": {"torch": "2.13.0"},
        "scores": SCORES,
        "english_change_points": {"t2i": -1.0},
        "limits": ["It reads no text in images."],
        "benchmark_id": "someone/tiny-benchmark",
    }
    return ReleaseCard(**{**values, **changes})


@pytest.fixture(scope="session")
def exported(model: XVLM2VecModel, processor: XVLM2VecProcessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("release") / "model"
    return export_model(model, processor, folder, card=full_card(repo_id=str(folder)), max_shard_size="200KB")


@pytest.fixture
def export_copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture(scope="session")
def make_adapter(model: XVLM2VecModel):
    """Makes adapters with other settings of `LoraConfig`."""
    return lambda **settings: with_adapter(model, **settings)


@pytest.fixture(scope="session")
def make_card():
    """Makes cards with some fields changed."""
    return full_card


@dataclass(frozen=True)
class HubSite:
    """The Hub that tests push to: the loopback one, or the real one that the environment names.

    Args:
        endpoint: Its address.
        namespace: Where tests may create repositories.
        tokens: Tokens by what they may do: `"write"`, `"read"`, and on the loopback Hub `"stranger"`.
        home: Folder for the caches of client processes.
        loopback: The server, to break it and to look inside; `None` for the real Hub.
    """

    endpoint: str
    namespace: str
    tokens: dict[str, str]
    home: Path
    loopback: LoopbackHub | None = None

    def environment(self, token: str | None = "write", cache: str = "cache") -> dict[str, str]:
        """Environment of a client: the token's name in `tokens` (a token itself is taken, too), and its cache."""
        known = self.tokens.get(token, token) if token else None
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE_"))}
        return inherited | client_environment(self.endpoint, known, self.home / cache, self.loopback is not None)

    def python(self, code: str, *arguments: object, token: str | None = "write", cache: str = "cache") -> str:
        """Runs a script in a process of its own and returns what it printed."""
        done = self.run([sys.executable, "-c", code, *map(str, arguments)], token=token, cache=cache)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def cli(self, *arguments: object, token: str | None = "write", cache: str = "cache") -> subprocess.CompletedProcess:
        """Runs `xvlm2vec` in a process of its own."""
        return self.run([sys.executable, "-m", "xvlm2vec", *map(str, arguments)], token=token, cache=cache)

    def run(self, command: list[str], token: str | None, cache: str) -> subprocess.CompletedProcess:
        """Runs a command with this Hub in its environment."""
        return subprocess.run(
            command, env=self.environment(token, cache), capture_output=True, text=True, timeout=600, check=False
        )


@pytest.fixture(scope="session")
def make_site() -> Iterator[Callable[[Path], HubSite]]:
    """Makes Hubs. With `XVLM2VEC_TEST_HUB_TOKEN` and `..._NAMESPACE` set it is the one of `HF_ENDPOINT`, the real one.

    The token has a name of its own, so that nobody pushes tests with the token that is set for other work.
    """
    started: list[LoopbackHub] = []

    def make(folder: Path) -> HubSite:
        token = os.environ.get("XVLM2VEC_TEST_HUB_TOKEN")
        if token:
            endpoint, tokens = os.environ.get("HF_ENDPOINT", "https://huggingface.co"), {"write": token}
            return HubSite(endpoint, os.environ["XVLM2VEC_TEST_HUB_NAMESPACE"], tokens, folder / "home")
        started.append(LoopbackHub().start())
        return HubSite(started[-1].endpoint, ORG, TOKENS, folder / "home", started[-1])

    yield make
    for hub in started:
        hub.stop()


@pytest.fixture
def hub_site(make_site: Callable[[Path], HubSite], tmp_path: Path) -> HubSite:
    """A Hub for one test."""
    return make_site(tmp_path)


@pytest.fixture
def loopback(hub_site: HubSite) -> LoopbackHub:
    """The loopback Hub of a test that breaks it or looks inside."""
    if hub_site.loopback is None:
        pytest.skip("needs the loopback Hub: it breaks the server on purpose")
    return hub_site.loopback
