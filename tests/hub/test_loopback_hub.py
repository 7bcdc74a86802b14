"""The real `huggingface_hub` client, in processes of its own, against the Hub of the tests (or the real one)."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

BIG = bytes(range(256)) * 4000
BIG_HASH = hashlib.sha256(BIG).hexdigest()[:8]
PUSH = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
api, repo = HfApi(), sys.argv[1]
api.create_repo(repo, private=len(sys.argv) > 2, exist_ok=True)
files = {"README.md": b"---\\nlicense: mit\\n---\\nhello", "big.safetensors": bytes(range(256)) * 4000, "a/b.txt": b"b"}
operations = [CommitOperationAdd(path, data) for path, data in files.items()]
done = api.create_commit(repo, operations, commit_message="first")
api.create_tag(repo, tag="v1.0.0", revision=done.oid)
print(done.oid)
"""
LOAD = """
import hashlib, json, os, sys
from pathlib import Path
from huggingface_hub import snapshot_download
folder = Path(snapshot_download(sys.argv[1], revision=sys.argv[2]))
files = sorted(path for path in folder.rglob("*") if path.is_file())
print(json.dumps({str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:8] for path in files}))
"""
CLIENT = """
import json, sys
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

def answer(expression, token):
    api = HfApi(token=token)
    try:
        return eval(expression)
    except HfHubHTTPError as error:
        return [type(error).__name__, error.response.status_code]

print(json.dumps([answer(*question) for question in json.loads(sys.argv[1])], default=str))
"""


@pytest.fixture
def repo_id(hub_site) -> str:
    return f"{hub_site.namespace}/xvlm2vec-test-{os.urandom(4).hex()}"


def ask(hub_site, *questions: str | tuple[str, str | None], cache: str = "cache") -> list:
    """Evaluates expressions over `api` in one process; a pair also names the token to use, `None` for no token."""
    pairs = [(question, "write") if isinstance(question, str) else question for question in questions]
    given = [(expression, hub_site.tokens.get(token, token) if token else False) for expression, token in pairs]
    return json.loads(hub_site.python(CLIENT, json.dumps(given), cache=cache))


def test_what_is_pushed_comes_back_at_every_revision(hub_site, repo_id: str) -> None:
    commit = hub_site.python(PUSH, repo_id)
    expected = {"README.md", "a/b.txt", "big.safetensors", ".gitattributes"}
    found = [json.loads(hub_site.python(LOAD, repo_id, revision, cache="fresh")) for revision in ("v1.0.0", commit)]
    assert set(found[0]) == expected
    assert found[0]["big.safetensors"] == BIG_HASH
    assert found[0] == found[1]
    ask(hub_site, f"api.delete_repo({repo_id!r})")


def test_refs_trees_and_file_facts(hub_site, repo_id: str) -> None:
    commit = hub_site.python(PUSH, repo_id)
    found = ask(
        hub_site,
        f"api.create_branch({repo_id!r}, branch='side', revision='v1.0.0')",
        f"sorted(ref.name for ref in api.list_repo_refs({repo_id!r}).branches)",
        f"[ref.target_commit for ref in api.list_repo_refs({repo_id!r}).tags]",
        f"[entry.path for entry in api.list_repo_tree({repo_id!r}, 'a', revision='side')]",
        f"[(f.size, f.lfs.sha256[:8]) for f in api.get_paths_info({repo_id!r}, ['big.safetensors', 'none'])]",
        f"api.file_exists({repo_id!r}, 'none')",
        f"api.model_info({repo_id!r}, files_metadata=True).card_data.license",
        f"[commit.title for commit in api.list_repo_commits({repo_id!r})]",
        f"api.delete_repo({repo_id!r})",
    )
    assert found[:4] == [None, ["main", "side"], [commit], ["a/b.txt"]]
    assert found[4:8] == [[[len(BIG), BIG_HASH]], False, "mit", ["first", "initial commit"]]


def test_tokens_decide_what_is_seen_and_changed(hub_site, loopback, repo_id: str) -> None:
    hub_site.python(PUSH, repo_id, "private")
    head = loopback.repo(repo_id).head
    info, tag = f"api.model_info({repo_id!r}).private", f"api.create_tag({repo_id!r}, tag='x')"
    assert ask(
        hub_site,
        (info, "write"),
        (info, "read"),
        (info, "stranger"),
        (info, None),
        ("api.whoami()", "hf_wrong"),
        (tag, "read"),
        (f"api.create_repo({hub_site.namespace + '/x'!r})", "stranger"),
    ) == [
        True,
        True,
        ["RepositoryNotFoundError", 404],
        ["RepositoryNotFoundError", 401],
        ["HfHubHTTPError", 401],
        ["HfHubHTTPError", 403],
        ["HfHubHTTPError", 403],
    ]
    assert (loopback.repo(repo_id).head, set(loopback.repo(repo_id).tags)) == (head, {"v1.0.0"})


def test_a_gated_repository_shows_its_page_and_keeps_its_files(hub_site, loopback) -> None:
    repo = loopback.create("bob/gated", files={"config.json": b"{}"}, gated="auto")
    file = "open(api.hf_hub_download('bob/gated', 'config.json')).read()"
    assert ask(hub_site, "api.model_info('bob/gated').gated", file) == ["auto", ["GatedRepoError", 403]]
    repo.readers.add("alice")
    assert ask(hub_site, file) == ["{}"]


def test_a_stale_parent_is_refused(hub_site, loopback, repo_id: str) -> None:
    loopback.create(repo_id, files={"a.txt": b"1"})
    stale = loopback.repo(repo_id).history("main")[-1].oid
    commit = f"""api.create_commit({repo_id!r}, [CommitOperationAdd("b", b"2")], commit_message="late",
                                   parent_commit={stale!r})"""
    assert ask(hub_site, commit) == [["HfHubHTTPError", 412]]
    assert set(loopback.repo(repo_id).files()) == {".gitattributes", "a.txt"}


def test_an_upload_that_is_cut_off_once_is_repeated(hub_site, loopback, repo_id: str) -> None:
    loopback.fail("PUT", "/upload/", cut_after=1000)
    hub_site.python(PUSH, repo_id)
    assert loopback.repo(repo_id).files("v1.0.0")["big.safetensors"] == BIG


def test_a_large_object_is_uploaded_in_parts(hub_site, loopback, repo_id: str) -> None:
    loopback.api.multipart_bytes = 300_000
    hub_site.python(PUSH, repo_id)
    assert [entry.received for entry in loopback.uploaded()] == [300_000, 300_000, 300_000, 124_000]
    assert loopback.repo(repo_id).files()["big.safetensors"] == BIG


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(hub_site, loopback, repo_id: str) -> None:
    content = BIG * 13  # the client writes ten megabytes at a time, and goes on after the last that it wrote
    loopback.create(repo_id, files={"big.safetensors": content})
    loopback.fail("GET", "/blob/", cut_after=12_000_000)
    found = json.loads(hub_site.python(LOAD, repo_id, "main"))
    assert found["big.safetensors"] == hashlib.sha256(content).hexdigest()[:8]
    sent = [entry.sent for entry in loopback.log if "/blob/" in entry.path]
    assert sent == [len(content), len(content) - 10 * 1024 * 1024]


def test_errors_of_the_server_are_told(hub_site, loopback, repo_id: str) -> None:
    loopback.create(repo_id)
    for status in (500, 503):
        loopback.fail("GET", "/api/models/", status=status)
    info = f"api.model_info({repo_id!r}).id"
    assert ask(hub_site, info, info, info) == [["HfHubHTTPError", 500], ["HfHubHTTPError", 503], repo_id]


def test_no_path_leads_out_of_a_repository(hub_site, loopback, repo_id: str) -> None:
    loopback.create(repo_id)
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "file", "value": {"path": "../x", "content": "", "encoding": "base64"}},
    ]
    body = "\n".join(map(json.dumps, lines))
    commit = f"""__import__("huggingface_hub").utils.get_session().post(
        api.endpoint + "/api/models/{repo_id}/commit/main", headers=api._build_hf_headers(), content={body!r}
    ).status_code"""
    assert ask(hub_site, commit) == [400]
    assert set(loopback.repo(repo_id).files()) == {".gitattributes"}


def test_a_collection_ties_repositories(hub_site, loopback, repo_id: str) -> None:
    loopback.create(repo_id)
    add = f"""api.add_collection_item(
        api.create_collection("Tests", namespace={hub_site.namespace!r}, exists_ok=True).slug,
        {repo_id!r}, "model", note="the model", exists_ok=True).items[0].item_id"""
    assert ask(hub_site, add, add) == [repo_id, repo_id]
    assert len(loopback.store.collections) == 1
