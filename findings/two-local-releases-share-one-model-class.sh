#!/usr/bin/env bash
# Two model folders with remote code, both called "model", in one process: transformers names a local code module by the
# folder's last name and a digest of the configuration file alone, so where the configurations are the same file, the
# second folder's model runs the first folder's modeling code, without a word. Met by who compares two exports of a model.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0
cat > run.py <<'PY'
import json, os, pathlib, torch, transformers
from transformers import AutoModel

CONFIG = '''
from transformers import PreTrainedConfig

class TinyConfig(PreTrainedConfig):
    model_type = "tiny_remote"
'''
MODEL = '''
import torch
from transformers import PreTrainedModel
from .configuration_tiny import TinyConfig

class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(2, 2)
        self.post_init()

    def forward(self, values):
        return self.layer(values) * {factor}
'''
for name, factor in (("first", 1), ("second", 100)):
    folder = pathlib.Path(name, "model")
    folder.mkdir(parents=True)
    (folder / "configuration_tiny.py").write_text(CONFIG)
    (folder / "modeling_tiny.py").write_text(MODEL.replace("{factor}", str(factor)))
    auto = {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny_remote", "auto_map": auto}))
    from safetensors.torch import save_file
    save_file({"layer.weight": torch.eye(2), "layer.bias": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})

models = [AutoModel.from_pretrained(f"{name}/model", trust_remote_code=True) for name in ("first", "second")]
values = [float(model(torch.ones(1, 2))[0, 0]) for model in models]
print("transformers", transformers.__version__)
print("first/model multiplies by 1, second/model by 100; ones give:", values)
print("same class for both:", type(models[0]) is type(models[1]))
assert values == [1.0, 1.0], "the second folder runs its own code now"
PY
HF_HUB_OFFLINE=1 HF_MODULES_CACHE="$place/modules" env/bin/python run.py
