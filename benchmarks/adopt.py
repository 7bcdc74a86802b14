"""A distillation step of an adopted embedder beside sentence-transformers' own training step.

    python benchmarks/adopt.py --json benchmarks/results/adopt.json

A random LLaVA with a chat template is saved by sentence-transformers, adopted from that folder, and proven. Then a step
on the same rows, weights and targets is measured in one process on one thread, interleaved, process CPU time, medians:

- `adopted`: all texts of a row over one pass of what stands before them (turn, images), as `xvlm2vec distill` trains;
- `sentence_transformers`: a `training_step` of `SentenceTransformerTrainer` with `MSELoss`, the targets as labels and a
  column for each language, English first.

Both have the batch at hand, and neither counts the optimiser. Before anything is timed, vectors and gradients are
compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.losses import MSELoss
from sentence_transformers.sentence_transformer.modules.pooling import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from xvlm2vec.common.adoption.adopt import Adopted, adopt
from xvlm2vec.modeling.packing import token_groups
from xvlm2vec.modeling.rows import TextImageRow
from xvlm2vec.trainer.collators import ParallelBatch
from xvlm2vec.trainer.forward_passes import Needs, Passes
from xvlm2vec.trainer.losses import SelfDistillationLoss

SIDE, PATCH, PER_IMAGE = 224, 14, 256
TEXT_TOKENS = 24
WORDS = [f"w{number}" for number in range(400)]
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }} {% else %}"
    "USER: {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% endif %}{% endfor %}ASSISTANT:"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", type=int, default=768, help="tokens of a row's images, a multiple of 256")
    parser.add_argument("--languages", type=int, nargs="*", default=(4,), help="translations of a row (default 4)")
    parser.add_argument("--repeats", type=int, default=9, help="steps of each kind (default 9)")
    parser.add_argument("--beside", default="nothing", help="what else runs on the machine, for the record")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = save_embedder(Path(name) / "embedder")
        adopted = adopt(str(folder))
        content = new_content(flags, adopted)
        for languages in flags.languages:
            bench = Bench(folder, adopted, flags.prefix // PER_IMAGE, languages)
            content["checks"][f"K={languages}"] = bench.check()
            rows, ratios = bench.compare(flags.repeats)
            content["rows"] += rows
            content["ratios"] |= {f"P={flags.prefix} K={languages} {key}": value for key, value in ratios.items()}
            if (flags.prefix, languages) == (768, 4):
                content["ratios"] |= ratios
    print(json.dumps(content, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def new_content(flags: argparse.Namespace, adopted: Adopted) -> dict[str, Any]:
    """The head of a result."""
    assert adopted.proof is not None
    machine = {"cores": os.cpu_count(), "threads": 1, "python": platform.python_version(), "torch": torch.__version__}
    return {
        "name": "adopt",
        "machine": machine | {"beside": flags.beside},
        "proof": {"rows": adopted.proof.rows, "worst": adopted.proof.worst},
        "checks": {},
        "rows": [],
        "ratios": {},
    }


def save_embedder(folder: Path) -> Path:
    """A random LLaVA in the form in which sentence-transformers saves an embedder."""
    tokens = ["<unk>", "<s>", "</s>", "<image>", "USER", "ASSISTANT", ":", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"], padding_side="right",
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        images, fast, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8, intermediate_size=1408,
        vocab_size=32_000, max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=3))
    base = folder.with_name("base")
    model.save_pretrained(base)
    processor.save_pretrained(base)
    modules = [Transformer(str(base)), Pooling(512, "lasttoken")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


class Bench:
    """One row of images with English and `K` translations, and both ways to take a step on it.

    Args:
        folder: The embedder as it was saved.
        adopted: The same, taken over.
        images: Images of the row.
        languages: Translations.
    """

    def __init__(self, folder: Path, adopted: Adopted, images: int, languages: int) -> None:
        draw = random.Random(0)
        self.texts = [" ".join(draw.choices(WORDS, k=TEXT_TOKENS)) for _ in range(languages + 1)]
        noise = np.random.default_rng(0)
        self.images = tuple(
            Image.fromarray(noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(images)
        )
        self.model, self.languages = adopted.model.train(), languages
        freeze_vision(self.model.backbone)
        self.passes = Passes(self.model, Needs(), frozen_vision=True)
        self.batch = self._batch(adopted)
        self.loss = SelfDistillationLoss()
        with torch.no_grad():
            targets = self.passes.embed_english(self.model, self.batch).english
        self.targets = targets + 0.1 * targets.std() * torch.randn(
            targets.shape, generator=torch.Generator().manual_seed(1)
        )
        self.theirs, self.their_step = self._sentence_transformers(folder)

    def adopted(self) -> torch.Tensor:
        """All texts over one pass of their images, the targets at hand."""
        self.model.zero_grad(set_to_none=True)
        self.passes._seen = None  # the vision tower runs in every step, as on new rows
        vectors, row = self.passes.embed_texts(self.model, self.batch), self.batch.row_of_pair
        value = self.loss(
            student_en=vectors.english[row], student_lang=vectors.translated, teacher_en=self.targets[row]
        )
        value.backward()
        return value.detach()

    def sentence_transformers(self) -> torch.Tensor:
        """A training step of its own trainer."""
        self.theirs.zero_grad(set_to_none=True)
        return self.their_step()

    def check(self) -> dict[str, float]:
        """Compares the gradients of both ways where all texts weigh alike, as in `MSELoss`.

        Raises:
            RuntimeError: They differ.
        """
        self.model.zero_grad(set_to_none=True)
        vectors = self.passes.embed_texts(self.model, self.batch)
        everything = torch.cat([vectors.english, vectors.translated])
        value = (everything - self.targets).square().mean()
        value.backward()
        ours = {
            name.removeprefix("backbone."): p.grad for name, p in self.model.named_parameters() if p.grad is not None
        }
        loss = self.sentence_transformers()
        own = self.theirs[0].auto_model.named_parameters()
        theirs = {name: parameter.grad for name, parameter in own if parameter.grad is not None}
        if ours.keys() != theirs.keys():
            raise RuntimeError(f"other parameters have gradients: {sorted(ours.keys() ^ theirs.keys())[:4]}")
        flat = [torch.cat([grads[name].flatten() for name in sorted(ours)]) for grads in (ours, theirs)]
        apart = float((flat[0] - flat[1]).norm() / flat[1].norm())
        if apart > 1e-3 or abs(value.item() / loss.item() - 1) > 1e-3:
            raise RuntimeError(f"loss {value.item()} for {loss.item()}, gradients apart by {apart:.1e}")
        return {"gradients_apart": apart}

    def compare(self, repeats: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """Seconds of both, interleaved, and their ratio."""
        steps = {"adopted": self.adopted, "sentence_transformers": self.sentence_transformers}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(repeats + 1):
            for name, step in steps.items():
                taken = timed(step)
                if number:  # the first warms up
                    seconds[name].append(taken)
        rows = [
            {"variant": name, "languages": self.languages, "seconds": round(statistics.median(times), 4),
             "fastest": round(min(times), 4), "slowest": round(max(times), 4)}
            for name, times in seconds.items()
        ]  # fmt: skip
        paired = [theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)]
        return rows, {"adopted_over_sentence_transformers": round(statistics.median(paired), 3)}

    def _batch(self, adopted: Adopted) -> ParallelBatch:
        rows = [TextImageRow(text, self.images) for text in self.texts]
        groups, _ = token_groups(adopted.processor, [rows])
        return ParallelBatch(
            ids=["0"],
            texts=self.texts[:1],
            translations=self.texts[1:],
            languages=["xx"] * self.languages,
            row_of_pair=torch.zeros(self.languages, dtype=torch.long),
            digests=[b"0"],
            groups=groups,
        )

    def _sentence_transformers(self, folder: Path) -> tuple[Any, Callable[[], torch.Tensor]]:
        model = SentenceTransformer(str(folder), device="cpu")
        freeze_vision(model[0].auto_model)
        names = [f"text{number}" for number in range(len(self.texts))]
        with tempfile.TemporaryDirectory() as place:
            trainer = SentenceTransformerTrainer(
                model=model,
                args=SentenceTransformerTrainingArguments(
                    place, per_device_train_batch_size=1, use_cpu=True, dataloader_pin_memory=False, report_to="none"
                ),
                train_dataset=Dataset.from_dict({**{name: ["x"] for name in names}, "label": self.targets.tolist()}),
                loss=MSELoss(model),
            )
        trainer.current_gradient_accumulation_steps = 1
        row = {name: {"image": list(self.images), "text": text} for name, text in zip(names, self.texts, strict=True)}
        batch = trainer.data_collator([{**row, "label": self.targets[0].tolist()}])
        model.train()
        return model, lambda: trainer.training_step(model, dict(batch))


def freeze_vision(backbone: Any) -> None:
    """Trains the language model only, as `distill` does."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(not name.startswith(("vision_tower", "multi_modal_projector")))


def timed(step: Callable[[], Any]) -> float:
    """Seconds of the CPU that a step takes."""
    started = time.process_time()
    step()
    return time.process_time() - started


if __name__ == "__main__":
    main()
