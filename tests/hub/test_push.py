"""Pushes that work, that are refused, and that break in the middle: the real client against the loopback Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import TOKENS, LoopbackHub, client_environment
from loopback_store import StoredFile

from xvlm2vec.hub.push import ADAPTER, BASE_REVISION, HubTarget, name_for_hub, pin_base
from xvlm2vec.hub.release import BaseInputs, ReleaseInputs
from xvlm2vec.hub.remote import PushError, Remote, inspect, next_version

# One process makes all attempts, one after the other, since its imports take most of the time. An attempt says under
# which name a benchmark is pushed, with which token and from which draft; "meddle" stands for somebody else's commit.
ATTEMPTS = """
import json, logging, os, sys
from pathlib import Path
from huggingface_hub import CommitOperationAdd, HfApi
from xvlm2vec.hub.push import HubTarget, look_before, push_release
from xvlm2vec.hub.release import BENCHMARK
from xvlm2vec.hub.staging import ExportError

logging.basicConfig(level=logging.DEBUG)

def attempt(name, draft, token="write", meddle=None, parts=(BENCHMARK,), **settings):
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = tokens.get(token, token)
    api, target = HfApi(), HubTarget(f"acme/{name}", **settings)
    if meddle:
        operation = CommitOperationAdd(meddle, b"by hand")
        api.create_commit(target.repo_of(BENCHMARK), [operation], commit_message="By hand", repo_type="dataset")
        return None
    try:
        done = push_release(api, Path(draft), target, look_before(api, target, parts))
    except ExportError as error:
        return {"error": str(error)}
    return {"version": done.version, "changed": done.changed, "commit": done.parts[0].commit,
            "collection": done.collection}

tokens, attempts = json.loads(sys.argv[1])
outcomes = {key: attempt(**given) for key, given in attempts.items()}
Path(sys.argv[2]).write_text(json.dumps(outcomes))
"""


class Attempts:
    """What came of all attempts, and the Hub as it is afterwards."""

    def __init__(self, hub: LoopbackHub, folder: Path) -> None:
        self.hub = hub
        self.first, self.second = (write_draft(folder / name, name) for name in ("first", "second"))
        self.leaky = write_draft(folder / "leaky", TOKENS["write"])
        self.wrong = write_draft(folder / "wrong", "wrong")
        (self.wrong / "benchmark" / "README.md").write_text("---\nlicense: [1, 2]\n---\n", encoding="utf-8")
        hub.create("acme/foreign-benchmark", "dataset", {"thesis.txt": b"mine"})
        hub.create("acme/public-benchmark", "dataset")
        raced = hub.create("acme/raced-benchmark", "dataset")
        commit = "/api/datasets/acme/{}-benchmark/commit/"
        hub.fail("POST", commit.format("raced"), action=lambda: hub.store.push(raced, {"late.txt": b"x"}))
        hub.fail("POST", commit.format("failing"), status=500)
        hub.fail("POST", "acme/busy-benchmark/preupload", status=503)
        hub.fail("POST", commit.format("refused"), status=422)
        manifest = {"made_by": "xvlm2vec", "kind": "model", "files": ["README.md"]}
        taken = hub.create("acme/taken", files={"README.md": b"other", "export.json": json.dumps(manifest).encode()},
                           tags={})  # fmt: skip
        taken.commits[taken.head] = replace(taken.commits[taken.head], title="Release v1.0.0 (xvlm2vec 0)")
        taken.tags["v1.0.0"] = taken.head
        (self.first / "model").mkdir()
        (self.first / "model" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
        hub.fail("GET", "acme/unproven-benchmark/resolve", status=500, times=99)
        hub.fail("GET", "acme/tampered-benchmark/tree", action=self.tamper)
        outcome = folder / "outcomes.json"
        code = [sys.executable, "-c", ATTEMPTS, json.dumps([TOKENS, self.attempts()]), str(outcome)]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment = inherited | client_environment(hub.endpoint, TOKENS["write"], folder / "home")
        done = subprocess.run(code, env=environment, capture_output=True, text=True, timeout=600, check=False)
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output
        self.outcomes: dict[str, Any] = json.loads(outcome.read_text())

    def attempts(self) -> dict[str, dict[str, Any]]:
        one, two, leaky = str(self.first), str(self.second), str(self.leaky)
        return {
            "new": {"name": "good", "draft": one, "collection": "Good things"},
            "again": {"name": "good", "draft": one, "collection": "Good things"},
            "same version, same content": {"name": "good", "draft": one, "version": "1.0.0"},
            "same version, other content": {"name": "good", "draft": two, "version": "1.0.0"},
            "next": {"name": "good", "draft": two},
            "a version before the last": {"name": "good", "draft": one, "version": "1.0.0"},
            "private": {"name": "hidden", "draft": one, "private": True, "version": "v0.3.0"},
            "private, but public": {"name": "public", "draft": one, "private": True},
            "no token": {"name": "none", "draft": one, "token": None},
            "wrong token": {"name": "none", "draft": one, "token": "hf_nobodysTokenAtAll"},
            "read token": {"name": "good", "draft": one, "token": "read"},
            "stranger": {"name": "good", "draft": one, "token": "stranger"},
            "no version": {"name": "none", "draft": one, "version": "one"},
            "foreign": {"name": "foreign", "draft": one},
            "foreign, overwritten": {"name": "foreign", "draft": one, "overwrite": True},
            "secret": {"name": "leaky", "draft": leaky},
            "wrong card": {"name": "wrong", "draft": str(self.wrong)},
            "raced": {"name": "raced", "draft": one},
            "failing": {"name": "failing", "draft": one},
            "failing, again": {"name": "failing", "draft": one},
            "busy": {"name": "busy", "draft": one},
            "refused": {"name": "refused", "draft": one},
            "edited": {"name": "edited", "draft": one},
            "by hand": {"name": "edited", "draft": one, "meddle": "README.md"},
            "edited, again": {"name": "edited", "draft": two},
            "added": {"name": "added", "draft": one},
            "more by hand": {"name": "added", "draft": one, "meddle": "extra.txt"},
            "added, again": {"name": "added", "draft": two},
            "added, overwritten": {"name": "added", "draft": two, "overwrite": True},
            "model taken": {"name": "taken", "draft": one, "version": "1.0.0", "parts": ["benchmark", "model"]},
            "unproven": {"name": "unproven", "draft": one},
            "tampered": {"name": "tampered", "draft": one},
        }

    def tamper(self) -> None:
        """Puts another card into the commit that was just made."""
        repo = self.repo("tampered")
        repo.commits[repo.head].tree["README.md"] = StoredFile(b"not what was sent", False)

    def repo(self, name: str):
        return self.hub.repo(f"acme/{name}-benchmark", "dataset")

    def error(self, attempt: str) -> str:
        return self.outcomes[attempt]["error"]


def write_draft(folder: Path, text: str) -> Path:
    """A draft with a small benchmark that holds a large file."""
    benchmark = folder / "benchmark"
    (benchmark / "t2i").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["ein Hund"], "image": [bytes(5_000)]}), benchmark / "t2i" / "de.parquet")
    (benchmark / "README.md").write_text(f"---\nlicense: mit\n---\n# {text}\n", encoding="utf-8")
    names = ["README.md", "t2i/de.parquet", *([] if text == "second" else ["old.txt"])]
    if text != "second":
        (benchmark / "old.txt").write_text("goes with the second draft", encoding="utf-8")
    manifest = {"made_by": "xvlm2vec", "version": "0", "kind": "benchmark", "files": names}
    (benchmark / "export.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    hub = LoopbackHub().start()
    yield Attempts(hub, tmp_path_factory.mktemp("push"))
    hub.stop()


def test_a_new_release_is_one_commit_with_a_tag(made: Attempts) -> None:
    repo = made.repo("good")
    found = made.outcomes["new"]
    assert (found["version"], found["changed"]) == ("1.0.0", True)
    assert repo.tags["v1.0.0"] == found["commit"]
    first = repo.commits[found["commit"]]
    assert repo.commits[str(first.parent)].title == "initial commit"
    assert {path for path in first.tree if path != ".gitattributes"} == {
        "README.md", "export.json", "old.txt", "t2i/de.parquet",
    }  # fmt: skip
    assert list(made.hub.store.collections) == [found["collection"].partition("/collections/")[2]]


def test_an_unchanged_release_sends_nothing(made: Attempts) -> None:
    for attempt in ("again", "same version, same content"):
        found = made.outcomes[attempt]
        assert found | {"collection": None} == made.outcomes["new"] | {"changed": False, "collection": None}
    assert [commit.title[:14] for commit in made.repo("good").history("v1.0.0")] == ["Release v1.0.0", "initial commit"]
    oid = made.repo("good").commits[made.outcomes["new"]["commit"]].tree["t2i/de.parquet"].sha256
    sent = [entry for entry in made.hub.uploaded() if oid in entry.path]
    pushes = ["good", "hidden", "raced", "failing", "busy", "refused", "edited", "added", "unproven", "tampered"]
    assert len(sent) == len(pushes), "the large file went to each repository once"


def test_a_version_stays_what_it_is(made: Attempts) -> None:
    assert "has a v1.0.0 with other content" in made.error("same version, other content")
    assert "has a v1.0.0 with other content" in made.error("a version before the last")
    found = made.outcomes["next"]
    assert (found["version"], found["changed"]) == ("1.0.1", True)
    repo = made.repo("good")
    assert set(repo.tags) == {"v1.0.0", "v1.0.1"}
    assert repo.head == repo.tags["v1.0.1"]
    assert "old.txt" not in repo.files(), "what the release no longer has is removed"
    assert "old.txt" in repo.files("v1.0.0")


def test_a_version_that_one_part_has_stops_all_of_them(made: Attempts) -> None:
    assert "acme/taken has a v1.0.0 with other content" in made.error("model taken")
    assert ("dataset", "acme/taken-benchmark") not in made.hub.store.repos


def test_a_private_release(made: Attempts) -> None:
    assert made.repo("hidden").private
    assert set(made.repo("hidden").tags) == {"v0.3.0"}
    assert "is public" in made.error("private, but public")
    assert len(made.repo("public").commits) == 1


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        ("no token", "there is no token"),
        ("wrong token", "the token was not accepted"),
        ("read token", "the token of alice may only read"),
        ("stranger", "the account bob may not write to acme/; it may write to bob"),
    ],
)
def test_who_may_not_push_is_told_what_to_do(made: Attempts, attempt: str, told: str) -> None:
    assert told in made.error(attempt)
    assert ("dataset", "acme/none-benchmark") not in made.hub.store.repos
    assert made.repo("good").head == made.outcomes["next"]["commit"]


def test_a_repository_of_somebody_else_is_left_alone(made: Attempts) -> None:
    for attempt in ("foreign", "foreign, overwritten"):
        assert "exists and holds other content" in made.error(attempt)
    assert set(made.repo("foreign").files()) == {".gitattributes", "thesis.txt"}


def test_a_secret_does_not_leave(made: Attempts) -> None:
    assert "README.md holds" in made.error("secret")
    assert ("dataset", "acme/leaky-benchmark") not in made.hub.store.repos


def test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_pushed(made: Attempts) -> None:
    assert "does not take the card of the benchmark" in made.error("wrong card")
    assert '"license" must be a string' in made.error("wrong card").replace("\\", "")
    assert ("dataset", "acme/wrong-benchmark") not in made.hub.store.repos


def test_a_commit_in_between_stops_the_push(made: Attempts) -> None:
    assert "somebody committed there in the meantime" in made.error("raced")
    repo = made.repo("raced")
    assert [commit.title for commit in repo.history("main")] == ["somebody else's commit", "initial commit"]
    assert not repo.tags


def test_a_failing_server_is_told_and_the_next_attempt_completes(made: Attempts) -> None:
    assert "the Hub answered 500" in made.error("failing")
    assert "run the same command again" in made.error("failing")
    assert made.outcomes["failing, again"]["version"] == "1.0.0"
    assert len(made.repo("failing").commits) == 2
    assert made.outcomes["busy"]["version"] == "1.0.0", "the client repeats a 503 by itself"


def test_a_refusal_that_would_come_again_is_not_to_be_repeated(made: Attempts) -> None:
    assert "the Hub answered 422" in made.error("refused")
    assert "correct what it names" in made.error("refused")
    assert "again" not in made.error("refused")


def test_a_repository_without_commits_is_empty() -> None:
    info = SimpleNamespace(sha=None, private=True)
    found = inspect(SimpleNamespace(repo_info=lambda *_, **__: info), "a/b", "model", "model")
    assert (found.head, found.files, found.private, found.exists) == (None, {}, True, True)


def test_changes_by_hand_are_not_lost(made: Attempts) -> None:
    assert "was changed since its last release ('By hand' by alice)" in made.error("edited, again")
    assert made.repo("edited").files()["README.md"] == b"by hand"
    assert "files that no release put there (extra.txt)" in made.error("added, again")
    found = made.outcomes["added, overwritten"]
    assert (found["version"], found["changed"]) == ("1.0.1", True)
    assert "extra.txt" not in made.repo("added").files()


def test_what_does_not_come_back_gets_no_tag(made: Attempts) -> None:
    assert "downloading acme/unproven-benchmark again: the Hub answered 500" in made.error("unproven")
    assert not made.repo("unproven").tags
    assert "README.md did not come back from the Hub as it was sent" in made.error("tampered")
    assert not made.repo("tampered").tags


def test_no_token_is_in_logs_errors_or_cards(made: Attempts) -> None:
    secrets = [*TOKENS.values(), "hf_nobodysTokenAtAll"]
    assert len(made.output) > 1_000, "debugging output of the client is searched, too"
    told = made.output + json.dumps(made.outcomes)
    told += "".join(
        data.decode("utf-8", "replace") for repo in made.hub.store.repos.values() for data in repo.files().values()
    )
    assert not [secret for secret in secrets if secret in told]


@pytest.mark.slow
def test_an_upload_that_breaks_for_good_leaves_the_remote_unchanged(hub_site, loopback, tmp_path: Path) -> None:
    loopback.fail("PUT", "/upload/", cut_after=500, times=99)
    draft, outcome = write_draft(tmp_path / "draft", "first"), tmp_path / "outcome.json"
    given = {"cut": {"name": "cut", "draft": str(draft)}}
    hub_site.python(ATTEMPTS, json.dumps([TOKENS, given]), outcome)
    assert "the connection broke; run the same command again" in json.loads(outcome.read_text())["cut"]["error"]
    repo = loopback.repo("acme/cut-benchmark", "dataset")
    assert [commit.title for commit in repo.history("main")] == ["initial commit"]
    loopback.faults.clear()
    hub_site.python(ATTEMPTS, json.dumps([TOKENS, given]), outcome)
    assert json.loads(outcome.read_text())["cut"]["version"] == "1.0.0"


def test_versions_go_on_from_the_newest() -> None:
    remotes = [Remote("a/b", "model", "x", tags={"v1.9.2": "x", "v1.10.0": "x", "beta": "x"}), Remote("a/c", "model")]
    assert next_version(None, remotes) == "1.10.1"
    assert next_version(None, [Remote("a/b", "model")]) == "1.0.0"
    assert next_version("v2.0.0", remotes) == "2.0.0"
    for wrong in ("2", "1.2.x", "1.2.3.4", ""):
        with pytest.raises(PushError, match="is no version"):
            next_version(wrong, remotes)


def test_the_commit_of_the_base_is_written_into_the_adapter(tmp_path: Path) -> None:
    for part in (ADAPTER, "model"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "README.md").write_text(f'revision="{BASE_REVISION}"', encoding="utf-8")
    (tmp_path / ADAPTER / "adapter_config.json").write_text(f'{{"revision": "{BASE_REVISION}"}}', encoding="utf-8")
    pin_base(tmp_path, "c" * 40)
    assert json.loads((tmp_path / ADAPTER / "adapter_config.json").read_text()) == {"revision": "c" * 40}
    assert (tmp_path / "model" / "README.md").read_text() == f'revision="{"c" * 40}"'


def test_cards_name_the_repositories_of_a_release(adapted, model, processor, make_card) -> None:
    run = ReleaseInputs(adapted, processor, make_card(), adapter=adapted, base=BaseInputs(model, make_card()))
    card = name_for_hub(run, HubTarget("acme/x")).card
    assert (card.repo_id, card.adapter_id, card.adapter_base, card.base_model) == (
        "acme/x", "acme/x-adapter", "acme/x-base", "acme/x-base",
    )  # fmt: skip
    assert (card.base_revision, card.native_id, card.on_hub) == (BASE_REVISION, None, True)


def test_a_space_needs_a_benchmark(model, processor, make_card) -> None:
    run = ReleaseInputs(model, processor, make_card())
    assert HubTarget("a/b").parts_of(run) == ["model"]
    with pytest.raises(PushError, match="searches the images of a benchmark"):
        HubTarget("a/b", space=True).parts_of(run)
