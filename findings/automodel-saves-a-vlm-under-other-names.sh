#!/usr/bin/env bash
# A vision-language checkpoint that goes through AutoModel.from_pretrained(...).save_pretrained(...) comes back under other
# tensor names and without its language-model head, although save_original_format is on by default; the whole class then
# loads it with a new random head and one line in the log. Met by who saves an embedder made from such a model for servers.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0
cat > run.py <<'PY'
import torch, transformers
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageTextToText, Qwen3VLConfig

transformers.logging.set_verbosity_error()
text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
text |= {"intermediate_size": 32, "vocab_size": 64}
text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
torch.manual_seed(0)
config = Qwen3VLConfig(text_config=text, vision_config=vision, image_token_id=60, video_token_id=61)
AutoModelForImageTextToText.from_config(config).save_pretrained("published")
AutoModel.from_pretrained("published").save_pretrained("again")
before, after = (set(load_file(f"{name}/model.safetensors")) for name in ("published", "again"))
whole, info = AutoModelForImageTextToText.from_pretrained("again", output_loading_info=True)
print("transformers", transformers.__version__)
print("names published:", len(before), "of which kept:", len(before & after))
print("for example:", sorted(before)[1], "->", sorted(after)[0])
print("architectures:", AutoModel.from_pretrained("again").config.architectures)
print("made anew when the whole class loads it:", sorted(info["missing_keys"]))
assert not before & after and sorted(info["missing_keys"]) == ["lm_head.weight"], "the behaviour has changed"
PY
env/bin/python run.py
