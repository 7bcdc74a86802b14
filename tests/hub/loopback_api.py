"""What the loopback Hub answers about accounts, repositories, trees and refs, as `huggingface_hub` asks for it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml
from loopback_store import MAIN, Account, Commit, HubError, Repo, Store, StoredFile, check_name

REPO = r"(?P<id>[^/]+/[^/]+)"
API = rf"/api/(?P<kind>model|dataset|space)s/{REPO}"
GIT = rf"/(?:(?P<kind>dataset|space)s/)?{REPO}"
WRONG_TOKEN = "Invalid credentials in Authorization header"


@dataclass(frozen=True)
class Request:
    """A request with its body read; `path` is still quoted, so that a revision may hold slashes."""

    method: str
    path: str
    query: Mapping[str, list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    account: Account | None = None

    def json(self) -> Any:
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise HubError(400, f"no JSON: {error}") from error


@dataclass
class Response:
    """An answer. `data` is what a GET would send; a HEAD sends only its length."""

    status: int = 200
    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def as_json(content: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


Handler = Callable[..., Response]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, pattern: str) -> Callable[[Handler], Handler]:
    """Registers a handler; the named groups of the pattern become its arguments."""

    def register(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


class HubApi:
    """Answers requests from a store."""

    def __init__(self, store: Store, multipart_bytes: int | None = None) -> None:
        self.store = store
        self.multipart_bytes = multipart_bytes
        self.hub_url = self.blob_url = ""

    def answer(self, request: Request) -> Response:
        """Finds the handler and turns its errors into answers."""
        try:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            account = self.store.accounts.get(token)
            if token and account is None:
                raise HubError(401, WRONG_TOKEN)
            request = replace(request, account=account)
            method = "GET" if request.method == "HEAD" else request.method
            for wanted, pattern, handler in ROUTES:
                match = pattern.fullmatch(request.path)
                if match and wanted == method:
                    with self.store.lock:
                        return handler(self, request, **{k: _argument(k, v) for k, v in match.groupdict().items()})
            raise HubError(404, f"no such page: {request.method} {request.path}")
        except HubError as error:
            answer = as_json({"error": error.message, **error.content}, error.status)
            answer.headers["X-Error-Message"] = error.message
            if error.code:
                answer.headers["X-Error-Code"] = error.code
            return answer

    def writable(self, kind: str, repo_id: str, request: Request) -> Repo:
        """A repository that the account may see and change."""
        repo = self.store.repo(kind, repo_id, request.account)
        if request.account is None:
            raise HubError(401, "Invalid username or password.")
        if request.account.role != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        if not request.account.may_write(repo.namespace):
            raise HubError(403, f"Forbidden: you have no write access to {repo.id}.")
        return repo

    def readable(self, kind: str, repo_id: str, request: Request) -> Repo:
        """A repository whose files the account may read; a gated one asks for more than its page does."""
        repo = self.store.repo(kind, repo_id, request.account)
        account = request.account
        if repo.gated and not (account and (account.may_see(repo.namespace) or account.name in repo.readers)):
            raise HubError(403 if account else 401, f"Access to {kind} {repo_id} is restricted.", "GatedRepo")
        return repo


def _argument(name: str, value: str | None) -> str:
    return unquote(value) if value is not None else ("model" if name == "kind" else "")


def _stamp(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# accounts and repositories


@route("GET", "/api/whoami-v2")
def whoami(api: HubApi, request: Request) -> Response:
    account = request.account
    if account is None:
        raise HubError(401, "Invalid username or password.")
    return as_json(
        {
            "type": "user",
            "id": hashlib.sha1(account.name.encode()).hexdigest()[:24],
            "name": account.name,
            "fullname": account.name,
            "orgs": [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.orgs],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}},
        }
    )


@route("POST", "/api/repos/create")
def create_repo(api: HubApi, request: Request) -> Response:
    wanted = request.json()
    if request.account is None:
        raise HubError(401, "Invalid username or password.")
    kind = wanted.get("type") or "model"
    repo_id = f"{wanted.get('organization') or request.account.name}/{wanted['name']}"
    check_name(repo_id)
    url = f"{api.hub_url}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    try:
        repo = api.store.create(kind, repo_id, request.account, private, wanted.get("sdk"))
    except HubError as error:
        if error.status == 409:
            error.content["url"] = url
        raise
    return as_json({"url": url, "name": repo.id, "id": repo.id})


@route("DELETE", "/api/repos/delete")
def delete_repo(api: HubApi, request: Request) -> Response:
    wanted = request.json()
    account = request.account
    repo_id = f"{wanted.get('organization') or (account.name if account else '')}/{wanted['name']}"
    repo = api.writable(wanted.get("type") or "model", repo_id, request)
    del api.store.repos[repo.kind, repo.id]
    return Response()


@route("PUT", rf"{API}/settings")
def settings(api: HubApi, request: Request, kind: str, id: str) -> Response:
    repo = api.writable(kind, id, request)
    wanted = request.json()
    if "private" in wanted or "visibility" in wanted:
        repo.private = wanted.get("private", wanted.get("visibility") == "private")
    repo.gated = wanted.get("gated", repo.gated)
    return as_json({})


@route("GET", rf"{API}/auth-check(?P<write>/write)?")
def auth_check(api: HubApi, request: Request, kind: str, id: str, write: str) -> Response:
    (api.writable if write else api.readable)(kind, id, request)
    return Response()


@route("GET", rf"{API}(?:/revision/(?P<revision>[^/]+))?")
def repo_info(api: HubApi, request: Request, kind: str, id: str, revision: str) -> Response:
    repo = api.store.repo(kind, id, request.account)
    commit = repo.resolve(revision or MAIN)
    first = repo.history(commit.oid)[-1]
    metadata = _card_metadata(commit)
    siblings = [
        {"rfilename": path, **(_file_entry(path, stored, "blobId") if "blobs" in request.query else {})}
        for path, stored in sorted(commit.tree.items())
    ]
    content = {
        "_id": hashlib.sha1(repo.id.encode()).hexdigest()[:24],
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.oid,
        "lastModified": _stamp(commit),
        "createdAt": _stamp(first),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(metadata.get("tags") or []),
        "cardData": metadata,
        "siblings": siblings,
    }
    if kind == "model":
        content |= {"modelId": repo.id, "pipeline_tag": metadata.get("pipeline_tag"), "spaces": []}
        content["library_name"] = metadata.get("library_name")
    if kind == "space":
        content |= {"sdk": repo.sdk, "runtime": {"stage": "RUNNING", "hardware": {}}}
    return as_json(content)


def _card_metadata(commit: Commit) -> dict[str, Any]:
    readme = commit.tree.get("README.md")
    match = re.match(r"---\n(.*?)\n---\n", readme.data.decode("utf-8", "replace"), re.DOTALL) if readme else None
    try:
        found = yaml.safe_load(match.group(1)) if match else {}
    except yaml.YAMLError:
        found = {}
    return found if isinstance(found, dict) else {}


# trees and refs


def _file_entry(path: str, stored: StoredFile, id_name: str = "oid") -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(stored.data), id_name: stored.blob_id}
    if stored.lfs:
        entry["lfs"] = {"oid": stored.sha256, "size": len(stored.data), "pointerSize": len(stored.pointer)}
        entry["lfs"] |= {"sha256": stored.sha256} if id_name == "blobId" else {}
    return entry


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _folders(commit: Commit) -> list[str]:
    return sorted({str(up) for path in commit.tree for up in PurePosixPath(path).parents if str(up) != "."})


@route("GET", rf"{API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?")
def tree(api: HubApi, request: Request, kind: str, id: str, revision: str, path: str) -> Response:
    commit = api.readable(kind, id, request).resolve(revision)
    folders = _folders(commit)
    path = path.rstrip("/")
    if path and path not in folders:
        raise HubError(404, f"{path} does not exist on {revision}", "EntryNotFound")
    deep = request.query.get("recursive", ["false"])[0].lower() in {"true", "1"}
    expand = request.query.get("expand", ["false"])[0].lower() in {"true", "1"}

    def is_listed(name: str) -> bool:
        rest = name.removeprefix(f"{path}/") if path else name
        return (not path or name.startswith(f"{path}/")) and (deep or "/" not in rest)

    entries = [_folder_entry(name) for name in folders if is_listed(name)]
    entries += [_file_entry(name, stored) for name, stored in sorted(commit.tree.items()) if is_listed(name)]
    if expand:
        last = {"id": commit.oid, "title": commit.title, "date": _stamp(commit)}
        entries = [{**entry, "lastCommit": last} for entry in entries]
    return as_json(entries)


@route("POST", rf"{API}/paths-info/(?P<revision>[^/]+)")
def paths_info(api: HubApi, request: Request, kind: str, id: str, revision: str) -> Response:
    commit = api.readable(kind, id, request).resolve(revision)
    if request.headers.get("content-type", "").startswith("application/json"):
        paths = request.json()["paths"]
    else:
        paths = parse_qs(request.body.decode()).get("paths", [])
    files = [_file_entry(path, commit.tree[path]) for path in paths if path in commit.tree]
    return as_json(files + [_folder_entry(path) for path in _folders(commit) if path in paths])


@route("GET", rf"{API}/refs")
def refs(api: HubApi, request: Request, kind: str, id: str) -> Response:
    repo = api.readable(kind, id, request)

    def listed(names: Mapping[str, str], folder: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid} for name, oid in names.items()]

    return as_json({"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []})


@route("GET", rf"{API}/commits/(?P<revision>[^/]+)")
def commits(api: HubApi, request: Request, kind: str, id: str, revision: str) -> Response:
    repo = api.readable(kind, id, request)
    return as_json(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.message,
                "authors": [{"user": commit.author}],
                "date": _stamp(commit),
            }
            for commit in repo.history(revision)
        ]
    )


@route("POST", rf"{API}/tag/(?P<revision>[^/]+)")
def create_tag(api: HubApi, request: Request, kind: str, id: str, revision: str) -> Response:
    repo = api.writable(kind, id, request)
    name = request.json()["tag"]
    if name in repo.tags:
        raise HubError(409, f"Tag reference exists already: {name}")
    repo.tags[name] = repo.resolve(revision).oid
    return as_json({})


@route("DELETE", rf"{API}/tag/(?P<name>[^/]+)")
def delete_tag(api: HubApi, request: Request, kind: str, id: str, name: str) -> Response:
    if api.writable(kind, id, request).tags.pop(name, None) is None:
        raise HubError(404, f"no tag {name}", "RevisionNotFound")
    return as_json({})


@route("POST", rf"{API}/branch/(?P<name>[^/]+)")
def create_branch(api: HubApi, request: Request, kind: str, id: str, name: str) -> Response:
    repo = api.writable(kind, id, request)
    if name in repo.branches:
        raise HubError(409, f"Reference already exists: {name}")
    repo.branches[name] = repo.resolve(request.json().get("startingPoint") or MAIN).oid
    return as_json({})


@route("DELETE", rf"{API}/branch/(?P<name>[^/]+)")
def delete_branch(api: HubApi, request: Request, kind: str, id: str, name: str) -> Response:
    if name == MAIN or api.writable(kind, id, request).branches.pop(name, None) is None:
        raise HubError(404, f"no branch {name}", "RevisionNotFound")
    return as_json({})
