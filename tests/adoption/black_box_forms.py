"""Tiny embedders with code of their own: one that reads texts and images, and faults that a proof must find."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from saved_chain import save_chain, write_json
from sentence_transformers.sentence_transformer.modules import Pooling
from text_forms import WIDTH as BERT_WIDTH
from text_forms import save_bert

SCENES = '''"""Embeds letters and colours: no tokenizer, no processor, no model of transformers."""

import numpy as np
import torch
from sentence_transformers.base.modules import InputModule


class Scenes(InputModule):
    config_keys = ["width"]
    save_in_root = False

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.letters = torch.nn.Embedding(128, width)
        self.mix = torch.nn.Linear(width, width)
        self.eye = torch.nn.Linear(48, width, bias=False)
        self.norm = torch.nn.LayerNorm(width)
        self.last_norm = torch.nn.LayerNorm(width)

    @property
    def modalities(self):
        return ["text", "image", ("image", "text")]

    def preprocess(self, inputs, prompt=None, **kwargs):
        rows = [{"text": row} if isinstance(row, str) else row for row in inputs]
        rows = [row if isinstance(row, dict) else {"image": row} for row in rows]
        ids = [[1, *(ord(letter) % 128 for letter in (prompt or "") + row.get("text", ""))] for row in rows]
        longest = max(map(len, ids))
        features = {
            "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
        }
        if "image" in rows[0]:
            images = [row["image"] if isinstance(row["image"], list) else [row["image"]] for row in rows]
            seen = [np.mean([np.asarray(image.resize((4, 4)), float) for image in each], axis=0) for each in images]
            features["pixels"] = torch.tensor(np.stack(seen).reshape(len(rows), -1) / 255, dtype=torch.float32)
        return features

    def forward(self, features, **kwargs):
        mask = features["attention_mask"][..., None].to(self.mix.weight.dtype)
        states = torch.tanh(self.mix(self.letters(features["input_ids"])))
        vector = (states * mask).sum(dim=1) / mask.sum(dim=1)
        vector = self.norm(vector)
        if "pixels" in features:
            vector = vector + self.eye(features["pixels"].to(vector.dtype))
        features["sentence_embedding"] = self.last_norm(vector)
        return features

    def save(self, folder, *args, **kwargs):
        self.save_config(folder)
        self.save_torch_weights(folder)

    @classmethod
    def load(cls, name, subfolder="", **kwargs):
        hub = {key: kwargs[key] for key in ("token", "cache_folder", "revision", "local_files_only") if key in kwargs}
        model = cls(**cls.load_config(name, subfolder=subfolder, **hub))
        return cls.load_torch_weights(name, subfolder=subfolder, model=model, **hub)
'''
WIDTH = 24
DRAWN = "self.width = width\n        self.drawn = torch.rand(width)"


def scenes_class(folder: Path) -> type:
    """The class in a folder's file, imported by its path."""
    spec = spec_from_file_location("scenes_of_tests", folder / "scenes.py")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Scenes


def build_scenes(folder: Path, code: str = SCENES) -> None:
    """Texts and images through own code alone, whose two layer norms are still as they were drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenes.py").write_text(code, encoding="utf-8")
    torch.manual_seed(5)
    module = scenes_class(folder)(WIDTH)
    (folder / "0_Scenes").mkdir()
    module.save(str(folder / "0_Scenes"))
    chain = [{"idx": 0, "name": "0", "path": "0_Scenes", "type": "scenes.Scenes"}]
    write_json(folder / "modules.json", chain)
    prompts = {"query": "search: ", "document": ""}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "similarity_fn_name": "cosine"})


OWN_BERT = '''"""A BERT whose states are doubled, as a model of transformers with code of its own."""

from transformers import BertConfig, BertModel


class DoubleConfig(BertConfig):
    model_type = "double_bert"


class DoubleModel(BertModel):
    config_class = DoubleConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state * 2
        return output
'''


def build_own_bert(folder: Path) -> None:
    """Stock modules around a model of transformers whose code lies in the folder."""
    save_bert(folder)
    save_chain(folder, [Pooling(BERT_WIDTH, "mean")])
    (folder / "double.py").write_text(OWN_BERT, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "double_bert", "architectures": ["DoubleModel"]}
    config["auto_map"] = {"AutoConfig": "double.DoubleConfig", "AutoModel": "double.DoubleModel"}
    write_json(folder / "config.json", config)


def changed(*lines: tuple[str, str]) -> Callable[[Path], None]:
    """A builder of the same with other lines in its code."""
    code = SCENES
    for old, new in lines:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return lambda folder: build_scenes(folder, code)


LAST = "self.last_norm(vector)"
LOADED = "return cls.load_torch_weights("
TURNED = "return cls.turned("
TURN = """
    @classmethod
    def turned(cls, *args, **kwargs):
        model = cls.load_torch_weights(*args, **kwargs)
        model.mix.weight.data = model.mix.weight.data.T.contiguous()
        return model

    @classmethod
    def load"""
BLACK_BOX_FORMS: dict[str, Callable[[Path], None]] = {
    "scenes": build_scenes,
    "own-bert": build_own_bert,
    # A vector that depends on the rows beside it, one that is never the same, one of a weight that is not stored.
    "scenes-of-batch": changed((LAST, f"{LAST} + vector.mean(dim=0)")),
    "scenes-noisy": changed((LAST, f"{LAST} + torch.rand_like(vector)")),
    "scenes-drawn": changed((LAST, f"{LAST} + self.drawn"), ("self.width = width", DRAWN)),
    # A weight that its files hold in another form.
    "scenes-turned": changed((LOADED, TURNED), ("\n    @classmethod\n    def load", TURN)),
}
