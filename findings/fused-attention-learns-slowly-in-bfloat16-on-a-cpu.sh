#!/usr/bin/env bash
# torch's fused attention is the default everywhere, and on a CPU its forward pass is fast in both formats. Its backward pass is
# as fast as attention written out in float32, but for rows of some twenty tokens several times slower in bfloat16. Met by who
# trains an embedder of short texts on a CPU in bfloat16 and sees little gain, though its matrix products are far faster.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > run.py <<'PY'
import time
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention

ROWS, HEADS, TOKENS, WIDTH, ROUNDS = 64, 9, 24, 64, 15
torch.manual_seed(0)
torch.set_num_threads(1)
ahead = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)


def fused(query, key, value):
    return scaled_dot_product_attention(query, key, value, is_causal=True)


def written_out(query, key, value):
    scores = (query * WIDTH**-0.5) @ key.transpose(2, 3)
    return scores.masked_fill(ahead, float("-inf")).softmax(dim=-1) @ value


def seconds(attention, states, backward):
    started = time.perf_counter()
    with torch.set_grad_enabled(backward):
        result = attention(*states)
    if backward:
        torch.autograd.grad(result.sum(), states)
    return time.perf_counter() - started


print("torch", torch.__version__)
for dtype in (torch.float32, torch.bfloat16):
    states = [torch.randn(ROWS, HEADS, TOKENS, WIDTH, dtype=dtype, requires_grad=True) for _ in range(3)]
    torch.testing.assert_close(fused(*states), written_out(*states), atol=2e-2, rtol=2e-2)
    for backward, what in ((False, "forward"), (True, "forward and backward")):
        pairs = [(seconds(fused, states, backward), seconds(written_out, states, backward)) for _ in range(ROUNDS)]
        ratio = median(one for one, _ in pairs) / median(other for _, other in pairs)
        print(f"{dtype}, {what}: fused takes {ratio:.2f} times as long as written out")
assert ratio > 2, "the behaviour has changed"
PY
env/bin/python run.py
