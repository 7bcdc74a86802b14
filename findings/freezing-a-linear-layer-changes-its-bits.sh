#!/usr/bin/env bash
# requires_grad decides how torch computes, also where no gradient is taken: a Linear layer on rows that are not contiguous
# (a convolution's features, transposed) runs one matrix product if its weight may learn and one a row if it is frozen, and
# in bfloat16 the results differ. Met by who compares a frozen model (a teacher, the base below an adapter) with a fresh one
# bit for bit, or stores vectors of one and serves the other.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > run.py <<'PY'
import torch
from torch.profiler import ProfilerActivity, profile

torch.manual_seed(0)
features = torch.randn(2, 1280, 49, dtype=torch.bfloat16).transpose(1, 2)  # as a tower of convolutions gives them
layer = torch.nn.Linear(1280, 576, dtype=torch.bfloat16).eval()


def products(module):
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as seen:
        result = module(features)
    return result, sorted({event.key for event in seen.key_averages()} & {"aten::mm", "aten::bmm", "aten::addmm"})


free, with_free = products(layer)
frozen, with_frozen = products(layer.requires_grad_(False))
print("torch", torch.__version__)
print(f"the weight may learn: {with_free}; frozen: {with_frozen}; both in inference mode")
print(f"same bits in bfloat16: {torch.equal(free, frozen)}, largest difference {(free - frozen).abs().max():.4f}")
assert with_free != with_frozen, "the behaviour has changed"
PY
env/bin/python run.py
