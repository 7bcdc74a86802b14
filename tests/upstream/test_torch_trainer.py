"""What the trainer takes from the inside of torch: see docs/upstream.md."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule


def test_storages_of_the_meta_device_are_told_apart():
    first, second = torch.empty(3, device="meta"), torch.empty(3, device="meta")
    told = "torch changed UntypedStorage._cdata: `--plan` would count tensors wrongly, see trainer/plan.py"
    assert first.untyped_storage()._cdata == first[1:].untyped_storage()._cdata, told
    assert first.untyped_storage()._cdata != second.untyped_storage()._cdata, told


def test_a_sharded_model_keeps_its_class_behind_that_of_fsdp():
    sharded = type("FSDPLinear", (FSDPModule, nn.Linear), {})  # as `fully_shard` makes it
    kinds = [kind for kind in sharded.__mro__[1:] if not issubclass(kind, FSDPModule)]
    assert kinds[0] is nn.Linear, "torch changed the classes of FSDP2, see with_its_class in trainer/sharding.py"
