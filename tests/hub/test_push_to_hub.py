"""What people know from other models: `push_to_hub` of model, processor, trainer and SentenceTransformer.

Each script runs in a process of its own; the one that loads cannot import this package.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xvlm2vec.common.pickles import holds_pickle, is_named_pickle

LOAD = """
import importlib.abc, json, sys
class KeepOut(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] == "xvlm2vec":
            raise ModuleNotFoundError(fullname, name=fullname)
sys.meta_path.insert(0, KeepOut())
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

image = Image.new("RGB", (32, 32), "red")
found = []
for repo, revision in json.loads(sys.argv[1]):
    where = {"revision": revision, "trust_remote_code": True}
    model = AutoModel.from_pretrained(repo, **where).eval()
    processor = AutoProcessor.from_pretrained(repo, **where)
    door = SentenceTransformer(repo, device="cpu", **where)
    own = model(**processor(text=["ein Hund", "rot"], images=[None, image])).embeddings.tolist()
    found.append([own, door.encode(["ein Hund", {"text": "rot", "image": image}]).tolist(), dict(door.prompts)])
print(json.dumps(found))
"""
COMMON = """
import json, os, sys
from datasets import Dataset, Features, Image as ImageFeature, Value
from PIL import Image
from sentence_transformers import SentenceTransformer
from xvlm2vec import SelfDistillationConfig, SelfDistillationTrainer, XVLM2VecModel, XVLM2VecProcessor

folder, namespace, work = sys.argv[1:4]
image = Image.new("RGB", (32, 32), "red")

def load():
    return XVLM2VecModel.from_pretrained(folder), XVLM2VecProcessor.from_pretrained(folder)

def vectors(model, processor):
    model.eval()
    return model.encode(text=["ein Hund", "rot"], images=[None, image], processor=processor).tolist()

def rows():
    return Dataset.from_list([
        {"id": str(n), "image": image, "text_en": word, "translations": [{"lang": "de", "text": word[::-1]}]}
        for n, word in enumerate(["dog", "cat", "red house", "tree"])
    ])

def train(name, model, processor, **settings):
    args = SelfDistillationConfig(
        output_dir=os.path.join(work, name), hub_model_id=f"{namespace}/{name}", push_to_hub=True, max_steps=2,
        save_steps=1, per_device_train_batch_size=2, learning_rate=1e-2, teacher="copy", report_to=[], use_cpu=True,
        disable_tqdm=True, hub_token=os.environ["HF_TOKEN"], **{"hub_always_push": True, **settings},
    )
    trainer = SelfDistillationTrainer(model, args, train_dataset=rows(), processing_class=processor)
    trainer.train()
    return trainer
"""
PUSH = """
model, processor = load()
model.push_to_hub(f"{namespace}/parts")
processor.push_to_hub(f"{namespace}/parts")
model.save_pretrained(os.path.join(work, "saved"), push_to_hub=True, repo_id=f"{namespace}/saved")
processor.save_pretrained(os.path.join(work, "saved"), push_to_hub=True, repo_id=f"{namespace}/saved")
SentenceTransformer(folder, trust_remote_code=True, device="cpu").push_to_hub(f"{namespace}/door")
print(json.dumps(vectors(model, processor)))
"""
TRAIN = """
for strategy in ("every_save", "checkpoint", "all_checkpoints"):
    trainer = train(strategy, *load(), hub_strategy=strategy)
    trainer._finish_current_push()
    print(json.dumps(vectors(trainer.model, trainer.processor)))
trainer = train("end", *load(), hub_strategy="end")
trainer.save_model()
print(json.dumps(vectors(trainer.model, trainer.processor)))
trainer.push_to_hub(commit_message="By hand", language=["en", "de"], license="apache-2.0")
"""
TRAIN_ROTATED = """
trainer = train("rotated", *load(), hub_strategy="all_checkpoints", save_total_limit=1, hub_always_push=False)
trainer = train("refused", *load(), hub_strategy="every_save")
"""
TRAIN_ADAPTER = """
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
model, processor = load()
model.push_to_hub(f"{namespace}/base")
processor.push_to_hub(f"{namespace}/base")
model.config.name_or_path = model.name_or_path = f"{namespace}/base"
adapted = add_adapter(model, AdapterConfig(rank=2))
trainer = train("adapter", adapted, processor, hub_strategy="every_save")
trainer._finish_current_push()
trainer.push_to_hub()
try:
    train("local", add_adapter(load()[0], AdapterConfig(rank=2)), processor)
except ValueError as error:
    print("REFUSED:", error)
print(json.dumps(vectors(adapted.get_base_model(), processor)))
"""
LOAD_ADAPTER = """
import json, sys
from PIL import Image
from peft import PeftModel
from transformers import AutoModel, AutoProcessor

base, adapter = sys.argv[1:]
bare = AutoModel.from_pretrained(base, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(base, trust_remote_code=True)
model = PeftModel.from_pretrained(bare, adapter).eval()
image = Image.new("RGB", (32, 32), "red")
print(json.dumps(model(**processor(text=["ein Hund", "rot"], images=[None, image])).embeddings.tolist()))
"""


@pytest.fixture
def prefix(hub_site, loopback) -> str:
    """Where repositories are made; only on the loopback Hub, as they have plain names and are left there."""
    return hub_site.namespace


def last_line(text: str) -> list:
    return json.loads(text.splitlines()[-1])


def loaded(hub_site, *places: tuple[str, str | None]) -> list:
    """What AutoModel and SentenceTransformer give for repositories, in a fresh cache and without this package."""
    return last_line(hub_site.python(LOAD, json.dumps(places), cache="fresh"))


def pickles_in(repo, work: Path) -> list[str]:
    """Files of all commits of a repository that are pickles, by their names or by what they hold."""
    found, copy = [], work / "pushed"
    for commit in repo.history("main"):
        for name, stored in commit.tree.items():
            copy.write_bytes(stored.data)
            if is_named_pickle(Path(name)) or holds_pickle(copy):
                found.append(name)
    return found


@pytest.mark.slow
def test_model_processor_and_sentence_transformer(hub_site, exported: Path, tmp_path: Path, prefix: str) -> None:
    expected = last_line(hub_site.python(COMMON + PUSH, exported, prefix, tmp_path))
    places = [(f"{prefix}/{name}", None) for name in ("parts", "saved", "door")]
    for own, door, prompts in loaded(hub_site, *places):
        np.testing.assert_allclose(own, expected, atol=1e-5)
        np.testing.assert_allclose(door, expected, atol=1e-5)
        assert prompts["query"] == "Find the image: "


@pytest.mark.slow
def test_a_trainer_with_each_strategy(hub_site, loopback, exported: Path, tmp_path: Path, prefix: str) -> None:
    output = hub_site.python(COMMON + TRAIN, exported, prefix, tmp_path)
    names = ["every_save", "checkpoint", "all_checkpoints", "end"]
    expected = [json.loads(line) for line in output.splitlines() if line.startswith("[[")]
    assert len(expected) == len(names)
    repos = {name: loopback.repo(f"{prefix}/{name}") for name in names}
    first = next(one.oid for one in repos["every_save"].history("main")[::-1] if "step 1" in one.title)
    found = loaded(hub_site, *[(f"{prefix}/{name}", None) for name in names], (f"{prefix}/every_save", first))
    for (own, door, _), vectors in zip(found, expected, strict=False):
        np.testing.assert_allclose(own, vectors, atol=1e-5)
        np.testing.assert_allclose(door, vectors, atol=1e-5)
    assert np.abs(np.array(found[-1][0]) - expected[0]).max() > 1e-4, "the first step's push is another model"
    np.testing.assert_allclose(found[-1][0], found[-1][1], atol=1e-5)

    assert "last-checkpoint/model.safetensors" in repos["checkpoint"].files()
    checkpoints = {f"checkpoint-{step}/{name}" for step in (1, 2) for name in ("model.safetensors", "config.json")}
    assert checkpoints <= set(repos["all_checkpoints"].files())
    assert (tmp_path / "all_checkpoints" / "checkpoint-2" / "optimizer.pt").is_file(), "what resuming needs stays here"
    card = repos["end"].files()["README.md"].decode()
    assert f'SentenceTransformer("{prefix}/end", trust_remote_code=True)' in card
    assert "license: apache-2.0" in card
    assert "More Information" not in card
    for repo in repos.values():
        leaks = [path for path, content in repo.files().items() if hub_site.tokens["write"].encode() in content]
        assert not leaks
        assert not pickles_in(repo, tmp_path)


@pytest.mark.slow
def test_pushes_of_a_training_wait_for_each_other_and_say_what_failed(
    hub_site, loopback, exported: Path, tmp_path: Path, prefix: str
) -> None:
    """The server is slow, so that uploads would overlap with each other and with the deletion of checkpoints."""
    for method, pattern in (("PUT", "/upload/"), ("POST", "/info/lfs/verify")):
        loopback.fail(method, pattern, times=99, action=lambda: time.sleep(0.5))
    loopback.fail("POST", "/refused/commit/", times=99, status=403)
    script = COMMON + TRAIN_ROTATED
    done = hub_site.run([sys.executable, "-c", script, str(exported), prefix, str(tmp_path)], "write", "cache")
    assert done.returncode == 0, done.stderr
    titles = [commit.title for commit in loopback.repo(f"{prefix}/rotated").history("main")]
    step = "Training in progress, step"
    assert titles[-2::-1] == [f"{step} 1", f"{step} 1, checkpoint", f"{step} 2", f"{step} 2, checkpoint"]
    checkpoints = {f"checkpoint-{step}/{name}" for step in (1, 2) for name in ("model.safetensors", "config.json")}
    assert checkpoints <= set(loopback.repo(f"{prefix}/rotated").files())
    assert not (tmp_path / "rotated" / "checkpoint-1").exists(), "checkpoints are rotated"
    assert done.stderr.count(f"A push to {prefix}/refused failed: HfHubHTTPError") == 2


@pytest.mark.slow
def test_a_trainer_with_an_adapter_leaves_the_adapter(
    hub_site, loopback, exported: Path, tmp_path: Path, prefix: str
) -> None:
    output = hub_site.python(COMMON + TRAIN_ADAPTER, exported, prefix, tmp_path)
    assert "REFUSED: the base of the adapter is the folder" in output
    assert ("model", f"{prefix}/local") not in loopback.store.repos
    expected = last_line(output)
    found = last_line(hub_site.python(LOAD_ADAPTER, f"{prefix}/base", f"{prefix}/adapter", cache="fresh"))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    files = loopback.repo(f"{prefix}/adapter").files()
    assert not pickles_in(loopback.repo(f"{prefix}/adapter"), tmp_path)
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == f"{prefix}/base"
    card = files["README.md"].decode()
    assert f"base_model: {prefix}/base" in card
    assert f'PeftModel.from_pretrained(base, "{prefix}/adapter")' in card
