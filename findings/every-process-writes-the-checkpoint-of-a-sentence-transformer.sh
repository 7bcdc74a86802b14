#!/usr/bin/env bash
# In a sentence-transformers training on several processes every process writes every checkpoint, all into the same files at
# once: transformers 5 calls `_save` in each of them and expects it to ask `should_save`, and sentence-transformers says that
# who gets there is process zero. A process may read what another has half written, or leave a torn file. Met by who trains a
# SentenceTransformer on several GPUs.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
env/bin/pip install --quiet --disable-pip-version-check \
    transformers==5.23.0 accelerate==1.15.0 sentence-transformers==6.2.0 datasets==5.2.0
cat > run.py <<'PY'
import os

import sentence_transformers
import tokenizers
import torch
import transformers
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from sentence_transformers.models import StaticEmbedding

texts = [f"question {number}" for number in range(8)]
words = {word: place for place, word in enumerate(["[UNK]", *texts])}
written = []


class Noted(SentenceTransformer):
    def save_pretrained(self, path, *arguments, **options):
        written.append(os.path.basename(path))
        super().save_pretrained(path, *arguments, **options)


model = Noted(
    modules=[StaticEmbedding(tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]")), embedding_dim=8)],
    device="cpu",
)
arguments = SentenceTransformerTrainingArguments(
    "out", max_steps=2, save_steps=1, per_device_train_batch_size=2, use_cpu=True, report_to=[], disable_tqdm=True,
    ddp_backend="gloo", dataloader_pin_memory=False,
)  # fmt: skip
rows = Dataset.from_dict({"anchor": texts, "positive": texts})
trainer = SentenceTransformerTrainer(model, arguments, rows, loss=losses.MultipleNegativesRankingLoss(model))
trainer.train()
everyone = [None, None]
torch.distributed.all_gather_object(everyone, (arguments.should_save, written))
if os.environ["RANK"] == "0":
    print("transformers", transformers.__version__, "sentence-transformers", sentence_transformers.__version__)
    for rank, (should, what) in enumerate(everyone):
        print(f"process {rank}: should save: {should}; wrote {what}")
    assert everyone[1] == (False, ["checkpoint-1", "checkpoint-2"]), "the behaviour has changed"
PY
OMP_NUM_THREADS=1 env/bin/python -m torch.distributed.run --nproc_per_node 2 run.py 2> errors || { cat errors; exit 1; }
