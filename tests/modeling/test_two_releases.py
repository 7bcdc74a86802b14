"""Releases of different code in one process: each runs its own, although their folders are called alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from xvlm2vec import XVLM2VecModel

MARKED = {
    "modeling_xvlm2vec.py": "class XVLM2VecModel(RowEncoder, PreTrainedModel):\n",
    "processing_xvlm2vec.py": "class XVLM2VecProcessor(ProcessorMixin):\n",
}
LOADS = """
import sys
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from sentence_transformers import SentenceTransformer
sys.modules["xvlm2vec"] = None  # as if it were not installed
loaded = []
for folder in sys.argv[1:]:
    AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    door = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
    loaded.append((folder, [model, door[0].auto_model], [processor, door[0].processor]))
for folder, models, processors in loaded:
    for model in models:
        model.encode(text=["a", "b"])
        room = sys.modules[type(model).__module__].__package__
        tree = sys.modules[f"{room}.tree_attention"]
        marks = [type(model).MARK, type(model.processor).MARK, *(type(one).MARK for one in processors)]
        assert set(marks) == {folder}, (folder, marks)
        assert ALL_ATTENTION_FUNCTIONS[tree.NAME] is tree.tree_attention
        if model.config.vlm_config.model_type == "phi3_v":
            assert type(model.backbone).__module__ == f"{room}.modeling_phi3_v"
            assert type(model.backbone.config).__module__.endswith(".configuration_phi3_v")
            configs = [type(one).__module__.rpartition(".")[0] for one in (model.config, model.backbone.config)]
            assert configs[0] == configs[1]
del sys.modules["xvlm2vec"]
from xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig
from xvlm2vec.modeling.tree_attention import NAME, tree_attention
assert ALL_ATTENTION_FUNCTIONS[NAME] is tree_attention
for folder in sys.argv[1:]:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(model) is XVLM2VecModel, "where the package is imported, its code runs"
    model.encode(text=["a"])
    if model.config.vlm_config.model_type == "phi3_v":
        assert type(model.config.vlm_config) is Phi3VConfig
"""


def release(checkpoint: Path, folder: Path) -> Path:
    """A saved model whose code knows its folder."""
    model = XVLM2VecModel.from_backbone(checkpoint)
    model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    for name, line in MARKED.items():
        code = (folder / name).read_text(encoding="utf-8")
        assert line in code
        (folder / name).write_text(code.replace(line, f"{line}    MARK = {str(folder)!r}\n"), encoding="utf-8")
    return folder


def test_each_runs_its_own_code(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folders = [
        release(checkpoint(name), tmp_path / name / version / "student")
        for name in ("qwen2_vl", "phi3_v")
        for version in ("one", "two")
    ]
    settings = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADS, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=settings)
    assert done.returncode == 0, done.stderr[-3000:]
