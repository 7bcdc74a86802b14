#!/usr/bin/env bash
# A training on several processes that is resumed within a later epoch goes through the batches of the first one again:
# transformers tells the epoch to the sampler of batches below accelerate's shard, but not where accelerate skips what was
# seen, and sentence-transformers draws batches from seed + epoch. So rows and negatives come twice and others never, and
# nothing says so. Met by who resumes contrastive training on several GPUs with NO_DUPLICATES or several data sets.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
env/bin/pip install --quiet --disable-pip-version-check \
    transformers==5.23.0 accelerate==1.15.0 sentence-transformers==6.2.0 datasets==5.2.0
cat > run.py <<'PY'
import os

import accelerate
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

ROWS, BATCH, PROCESSES = 64, 4, 2
STEPS = ROWS // (BATCH * PROCESSES)  # of an epoch
texts = [f"question {number}" for number in range(ROWS)]
words = {word: place for place, word in enumerate(["[UNK]", *texts, *(text.replace("q", "z") for text in texts)])}


def train(folder, checkpoint=None):
    """First words of this process's batches, in the order of the steps."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    rows = Dataset.from_dict({"anchor": texts, "positive": [text.replace("q", "z") for text in texts]})
    arguments = SentenceTransformerTrainingArguments(
        folder, num_train_epochs=2, per_device_train_batch_size=BATCH, batch_sampler="no_duplicates", use_cpu=True,
        save_steps=STEPS + 3, report_to=[], disable_tqdm=True, ddp_backend="gloo", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(model, arguments, rows, loss=losses.MultipleNegativesRankingLoss(model))
    kind, seen = type(trainer.data_collator), []

    class Noting(kind):
        def __call__(self, features):
            seen.append([row["anchor"] for row in features])
            return super().__call__(features)

    trainer.data_collator.__class__ = Noting
    trainer.train(resume_from_checkpoint=checkpoint)
    return seen


whole = train("whole")
first, second = whole[:STEPS], whole[STEPS:]
resumed = train("whole", f"whole/checkpoint-{STEPS + 3}")
if os.environ["RANK"] == "0":
    print("transformers", transformers.__version__, "accelerate", accelerate.__version__)
    print("sentence-transformers", sentence_transformers.__version__, "torch", torch.__version__)
    print("epochs differ without an interruption:", first != second)
    print("resumed within the second epoch, its batches are those of the first:", resumed == first[3:])
    print("and those that an uninterrupted run has:", resumed == second[3:])
    assert first != second and resumed == first[3:] != second[3:], "the behaviour has changed"
PY
OMP_NUM_THREADS=1 env/bin/python -m torch.distributed.run --nproc_per_node 2 run.py 2> errors || { cat errors; exit 1; }
