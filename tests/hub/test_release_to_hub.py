"""A whole release of a run on a Hub, through the command line, and what strangers load from there."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback_hub import ORG, TOKENS, LoopbackHub

from xvlm2vec.commands.release import _parser
from xvlm2vec.flags.release import is_hub_id
from xvlm2vec.quickstart.config import QuickstartConfig, Sizes
from xvlm2vec.quickstart.run_folder import RunFolder

SIZES = Sizes(
    concepts=40,
    image_size=32,
    layers=1,
    vocab_size=1_000,
    lessons=((4, {"c": 0.5, "t2i": 0.5}),),
    teacher_batch=8,
    distill_steps=4,
    distill_batch=4,
    translations_per_row=1,
    test_rows=20,
)
KEEP_OUT = """
import importlib.abc, sys
class KeepOut(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] == "xvlm2vec":
            raise ModuleNotFoundError(fullname, name=fullname)
sys.meta_path.insert(0, KeepOut())
"""
STRANGER = (
    KEEP_OUT
    + """
import json, re
import torch
from datasets import load_dataset
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from peft import PeftModel
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

name, tag, parts = sys.argv[1], "v1.0.0", json.loads(sys.argv[2])
golden = json.load(open(hf_hub_download(name, "golden.json", revision=tag), encoding="utf-8"))
texts = [row["text"] for row in golden["rows"] if not row["images"]]
rows = [number for number, row in enumerate(golden["rows"]) if not row["images"]]
with safe_open(hf_hub_download(name, "golden.safetensors", revision=tag), framework="pt") as file:
    expected = file.get_tensor("embeddings")[rows]
found = {}
where = {"revision": tag, "trust_remote_code": True}
processor = AutoProcessor.from_pretrained(name, **where)
with torch.no_grad():
    found["automodel"] = AutoModel.from_pretrained(name, **where)(**processor(text=texts)).embeddings
    found["sentence-transformers"] = SentenceTransformer(name, **where).encode(texts, convert_to_tensor=True)
    if "adapter" in parts:
        config = json.load(open(hf_hub_download(f"{name}-adapter", "adapter_config.json", revision=tag)))
        assert config["base_model_name_or_path"] == f"{name}-base"
        assert config["revision"] == HfApi().model_info(f"{name}-base", revision=tag).sha
        base = AutoModel.from_pretrained(f"{name}-base", revision=config["revision"], trust_remote_code=True)
        model = PeftModel.from_pretrained(base, f"{name}-adapter", revision=tag).eval()
        found["peft"] = model(**processor(text=texts)).embeddings
    if "native" in parts:
        native = SentenceTransformer(f"{name}-native", revision=tag)
        found["native"] = native.encode(texts, convert_to_tensor=True)
deviations = {door: float((vectors.cpu() - expected).abs().max()) for door, vectors in found.items()}
rows = load_dataset(f"{name}-benchmark", "t2i", split="de", revision=tag)
images = load_dataset(f"{name}-benchmark", "images", split="test", revision=tag)
ran = []
for part in ["", "-adapter", "-native"]:
    if part and part[1:] not in parts:
        continue
    card = open(hf_hub_download(name + part, "README.md", revision=tag), encoding="utf-8").read()
    for snippet in re.findall(r"```python\\n(.*?)```", card, flags=re.DOTALL):
        scope = {}
        exec(compile(snippet, f"snippet of {name + part}", "exec"), scope)
        ran.append(len(scope["embeddings"]))
print(json.dumps({"deviations": deviations, "rows": len(rows), "image": images[0]["image"].size, "snippets": ran}))
"""
)


CLEAN_UP = """
import sys
from huggingface_hub import HfApi
api, name = HfApi(), sys.argv[1]
for suffix in ("", "-adapter", "-base", "-native"):
    api.delete_repo(name + suffix)
api.delete_repo(f"{name}-benchmark", repo_type="dataset")
api.delete_repo(f"{name}-space", repo_type="space")
for collection in api.list_collections(owner=name.partition("/")[0]):
    if collection.title == "Emoji":
        api.delete_collection(collection.slug)
"""


def train(folder: Path, lora: bool) -> Path:
    """All stages of a tiny run but its release and its report."""
    from xvlm2vec.quickstart.run import stages_of

    run = RunFolder(QuickstartConfig(str(folder), languages=("de",), lora=lora, sizes=SIZES))
    for name, _, stage in stages_of(run):
        if name == "student" and lora:
            distil_an_adapter_that_is_merged(run)
        elif name not in ("release", "report"):
            stage()
    return folder


def distil_an_adapter_that_is_merged(run: RunFolder) -> None:
    """The distillation as quickstarts of older versions did it with --lora, and `distill --lora` does."""
    from xvlm2vec.quickstart import stages
    from xvlm2vec.trainer.adapters import add_adapter
    from xvlm2vec.trainer.distillation import distill

    model, processor = run.load("teacher")
    student = add_adapter(model, replace(stages.ADAPTER, activated=False))
    config = replace(stages.distillation_config(run.config, run.path("adapter")), teacher="adapter-off")
    distill(student, processor, config, stages.distillation_rows(run.world, run.config))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, make_site):
    """A run with an adapter that was released with everything there is."""
    site = make_site(tmp_path_factory.mktemp("hub"))
    run = train(tmp_path_factory.mktemp("work") / "run", lora=True)
    name = f"{site.namespace}/xvlm2vec-test-{os.urandom(4).hex()}"
    command = ["release", run, "--to", name, "--private", "--native", "--space", "--collection", "Emoji"]
    done = site.cli(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    yield SimpleNamespace(site=site, run=run, name=name, command=command, output=done.stdout + done.stderr)
    if site.loopback is None:
        site.python(CLEAN_UP, name)


@pytest.mark.slow
def test_strangers_load_every_part(released) -> None:
    parts = ["adapter", "native"]
    found = json.loads(released.site.python(STRANGER, released.name, json.dumps(parts), cache="fresh").splitlines()[-1])
    assert set(found["deviations"]) == {"automodel", "sentence-transformers", "peft", "native"}
    assert max(found["deviations"].values()) < 1e-5, found["deviations"]
    assert found["rows"] == 20
    assert found["image"] == [32, 32]
    assert len(found["snippets"]) >= 7


@pytest.mark.slow
def test_this_package_loads_the_adapter_over_the_base_that_it_names(released) -> None:
    script = """
import sys
from xvlm2vec import XVLM2VecModel
names = [sys.argv[1] + "-adapter", sys.argv[1]]
one, other = (XVLM2VecModel.from_pretrained(name, revision="v1.0.0").encode(text=["ein Hund"]) for name in names)
print(abs(one - other).max())
"""
    assert float(released.site.python(script, released.name, cache="fourth").splitlines()[-1]) < 1e-5


@pytest.mark.slow
def test_the_repositories_hold_what_they_should(released) -> None:
    hub = released.site.loopback
    if hub is None:
        pytest.skip("looks inside of the loopback Hub")
    kinds = {"": "model", "-adapter": "model", "-base": "model", "-native": "model", "-benchmark": "dataset",
             "-space": "space"}  # fmt: skip
    for suffix, kind in kinds.items():
        repo = hub.repo(released.name + suffix, kind)
        assert repo.private
        assert repo.tags == {"v1.0.0": repo.head}
        assert [commit.title for commit in repo.history("main")][1:] == ["initial commit"], suffix
        files = repo.files()
        assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
        text = "".join(data.decode("utf-8", "replace") for name, data in files.items() if not name.endswith(".parquet"))
        assert not [token for token in TOKENS.values() if token in text]
        assert str(released.run.parent) not in text, f"{suffix} tells where it was made"
        assert "More information needed" not in text
    (collection,) = hub.store.collections.values()
    assert (collection["title"], len(collection["items"])) == ("Emoji", len(kinds))
    assert not [token for token in TOKENS.values() if token in released.output]


@pytest.mark.slow
def test_a_folder_holds_the_same_and_the_space_reads_its_neighbours(released, tmp_path: Path) -> None:
    done = released.site.cli("release", released.run, "--to", tmp_path / "out", "--space")
    assert done.returncode == 0, done.stdout + done.stderr
    parts = ["adapter", "base", "benchmark", "model", "space"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == parts
    settings = json.loads((tmp_path / "out" / "space" / "space.json").read_text(encoding="utf-8"))
    places = [settings[part]["id"] for part in ("model", "benchmark")]
    assert places == [str(tmp_path / "out" / part) for part in ("model", "benchmark")]


@pytest.mark.slow
def test_anyone_may_verify_and_a_second_push_sends_nothing(released) -> None:
    adapter = released.site.cli("verify", f"{released.name}-adapter@v1.0.0", "--dtypes", "float32", cache="third")
    assert adapter.returncode == 0, adapter.stdout + adapter.stderr
    assert re.search(r"peft +float32 +alone .* ok", adapter.stdout)
    before = len(released.site.loopback.log) if released.site.loopback else 0
    again = released.site.cli(*released.command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "v1.0.0 is on the Hub already; nothing was sent" in again.stdout
    if released.site.loopback is not None:
        later = released.site.loopback.log[before:]
        assert not [entry for entry in later if entry.method == "PUT" or "/commit/" in entry.path]


def test_what_cannot_be_verified_is_told(hub_site, loopback: LoopbackHub) -> None:
    loopback.create(f"{ORG}/plain", files={"config.json": b"{}"})
    loopback.create(f"{ORG}/secret", files={"golden.json": b"{}"}, private=True)
    loopback.create(f"{ORG}/gated", files={"golden.json": b"{}"}, gated="auto")
    evil = loopback.create(f"{ORG}/evil", files={"golden.json": b"{}"})
    head = evil.commits[evil.head]
    evil.commits[evil.head] = replace(head, tree={**head.tree, "../../evil.py": head.tree["golden.json"]})
    script = """
import json, os, sys
from xvlm2vec.hub.verify import verify
for source in sys.argv[1:]:
    try:
        print(verify(source).ok)
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""
    names = ("plain", "plain@v9", "gone", "evil", "secret", "gated")
    lines = hub_site.python(script, *(f"{ORG}/{name}" for name in names), token="stranger").splitlines()
    assert re.match(r"GoldenError .* has no golden\.json", lines[0])
    assert lines[1].startswith(f"FileNotFoundError {ORG}/plain@v9 is neither a folder here nor on the Hub")
    assert lines[2].startswith(f"FileNotFoundError {ORG}/gone is neither")
    assert re.match(r"ScanError '\.\./\.\./evil\.py' is no name", lines[3])
    assert lines[4].startswith(f"FileNotFoundError {ORG}/secret is neither")
    assert lines[5] == f"FileNotFoundError {ORG}/gated is gated: ask for access on its page, then `hf auth login`."
    assert not list(hub_site.home.parent.rglob("evil.py"))


def test_a_run_that_did_not_finish_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xvlm2vec.cli import main

    RunFolder(QuickstartConfig(str(tmp_path / "run"), languages=("de",), sizes=SIZES))
    assert main(["release", str(tmp_path / "run"), "--to", "acme/run", "--dry-run"]) == 1
    assert "has no student: the run did not finish. `xvlm2vec quickstart" in capsys.readouterr().err
    (tmp_path / "run" / "student").mkdir()
    assert main(["release", str(tmp_path / "run"), "--to", "acme/run", "--dry-run"]) == 1
    assert "has no scores/student" in capsys.readouterr().err
    assert main(["release", str(tmp_path / "run"), "--results", "x", "--to", "acme/run", "--dry-run"]) == 1
    assert "leave out --results" in capsys.readouterr().err


def test_without_a_token_nothing_is_loaded(hub_site) -> None:
    done = hub_site.cli("release", "./none", "--to", "acme/run", token=None)
    assert done.returncode == 1
    assert "there is no token, and pushing needs one" in done.stderr


def test_a_model_without_scores_is_not_pushed(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xvlm2vec.cli import main

    assert main(["release", str(exported), "--to", "acme/run", "--dry-run"]) == 1
    assert "has no scores, and a model is not published without" in capsys.readouterr().err


def test_an_adapter_whose_base_is_gone_is_not_pushed(
    adapted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from xvlm2vec.cli import main

    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    config = tmp_path / "adapter" / "adapter_config.json"
    content = json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")}
    config.write_text(json.dumps(content))
    assert main(["release", str(tmp_path / "adapter"), "--to", "acme/run", "--dry-run"]) == 1
    assert "or correct base_model_name_or_path in adapter_config.json" in capsys.readouterr().err


def test_the_commands_of_the_guide_are_understood() -> None:
    text = (
        (Path(__file__).resolve().parents[2] / "docs" / "release.md").read_text(encoding="utf-8").replace("\\\n", " ")
    )
    commands = re.findall(r"^(?:\$ )?(?:HF_TOKEN=\S+ )?xvlm2vec release (.*?)(?:  #.*)?$", text, flags=re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        flags = _parser().parse_args(shlex.split(command))
        assert is_hub_id(flags.to)
    assert str(Path.home()) not in text
