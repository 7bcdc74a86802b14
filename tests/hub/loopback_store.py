"""What the loopback Hub keeps: accounts, repositories with their commits and refs, stored objects, collections."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

LFS_SUFFIXES = (".safetensors", ".parquet", ".arrow", ".bin", ".npy", ".png", ".jpg", ".gif", ".zip")
LFS_BYTES = 10_000_000
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
MAIN = "main"


class HubError(Exception):
    """An answer other than success: status, message, and the code that the client tells errors apart by."""

    def __init__(self, status: int, message: str, code: str | None = None, **content: object) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.content = status, message, code, content


@dataclass(frozen=True)
class Account:
    """Who a token belongs to and what it may do: `"read"` or `"write"`, in the own namespace and in `orgs`."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and (namespace == self.name or namespace in self.orgs)

    def may_see(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.orgs


@dataclass(frozen=True)
class StoredFile:
    """One file of one commit."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @property
    def blob_id(self) -> str:
        """The id that git gives to what it stores: the file, or the pointer to it."""
        stored = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    tree: Mapping[str, StoredFile]
    date: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Repo:
    """A model, data set or Space."""

    kind: str
    id: str
    private: bool = False
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)
    sdk: str | None = None

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    @property
    def head(self) -> str:
        return self.branches[MAIN]

    def files(self, revision: str = MAIN) -> dict[str, bytes]:
        """All files at a revision, for tests to look at."""
        return {path: stored.data for path, stored in self.resolve(revision).tree.items()}

    def resolve(self, revision: str) -> Commit:
        short = revision.removeprefix("refs/heads/")
        oid = self.branches.get(short) or self.tags.get(revision.removeprefix("refs/tags/")) or revision
        if oid not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def history(self, revision: str) -> list[Commit]:
        """Commits from the newest to the first."""
        found: list[Commit] = []
        oid: str | None = self.resolve(revision).oid
        while oid is not None:
            found.append(self.commits[oid])
            oid = found[-1].parent
        return found


class Store:
    """The whole state of a Hub, behind one lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.accounts: dict[str, Account] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.collections: dict[str, dict] = {}
        self._serial = itertools.count()

    def repo(self, kind: str, repo_id: str, account: Account | None) -> Repo:
        """A repository that this account may see; to others it looks as if it were not there."""
        found = self.repos.get((kind, repo_id))
        hidden = found is not None and found.private and not (account and account.may_see(found.namespace))
        if found is None or hidden:
            raise HubError(401 if account is None else 404, "Repository not found", "RepoNotFound")
        return found

    def create(self, kind: str, repo_id: str, account: Account, private: bool = False, sdk: str | None = None) -> Repo:
        """A new repository with its first commit, which the Hub makes itself."""
        namespace = repo_id.partition("/")[0]
        if not account.may_write(namespace):
            message = f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"'
            raise HubError(403, message)
        if (kind, repo_id) in self.repos:
            raise HubError(409, f"You already created this {kind} repo", url=f"/{repo_id}")
        repo = Repo(kind, repo_id, private=private, sdk=sdk)
        self.repos[kind, repo_id] = repo
        self._append(
            repo, MAIN, "initial commit", "", account.name, {".gitattributes": StoredFile(GITATTRIBUTES, False)}
        )
        return repo

    def commit(
        self,
        repo: Repo,
        branch: str,
        title: str,
        changes: Mapping[str, StoredFile],
        deleted: Iterable[str] = (),
        message: str = "",
        author: str = "someone",
        parent: str | None = None,
    ) -> Commit:
        """All changes or none. Folders to delete end in a slash."""
        if branch not in repo.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        if parent is not None and parent != repo.branches[branch]:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repo.commits[repo.branches[branch]].tree)
        for name in deleted:
            gone = [path for path in tree if path == name or (name.endswith("/") and path.startswith(name))]
            if not gone:
                raise HubError(404, f"A file with this name doesn't exist: {name}", "EntryNotFound")
            for path in gone:
                del tree[path]
        for path in changes:
            check_path(path)
        return self._append(repo, branch, title, message, author, tree | dict(changes))

    def push(self, repo: Repo, files: Mapping[str, bytes], title: str = "somebody else's commit") -> Commit:
        """A commit that comes from elsewhere, for tests."""
        with self.lock:
            changes = {path: StoredFile(data, is_large(path, data, len(data))) for path, data in files.items()}
            for stored in changes.values():
                self.objects[stored.sha256] = stored.data
                repo.objects.add(stored.sha256)
            return self.commit(repo, MAIN, title, changes)

    def _append(
        self, repo: Repo, branch: str, title: str, message: str, author: str, tree: Mapping[str, StoredFile]
    ) -> Commit:
        parent = repo.branches.get(branch)
        content = [f"{next(self._serial)} {parent} {title}", *(f"{path} {tree[path].blob_id}" for path in sorted(tree))]
        oid = hashlib.sha1("\n".join(content).encode()).hexdigest()
        repo.commits[oid] = Commit(oid, parent, title, message, author, tree)
        repo.branches[branch] = oid
        return repo.commits[oid]


def is_large(path: str, sample: bytes, size: int) -> bool:
    """Whether a file goes to the large file storage: by its name, its size, or because it is no text."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LFS_BYTES or b"\0" in sample)


def check_path(path: str) -> None:
    """Raises for a path that a repository cannot hold."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(part in {"", ".", "..", ".git"} for part in parts):
        raise HubError(400, f"Invalid path: {path}")


def check_name(repo_id: str) -> None:
    """Raises for a name that no repository can have."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo_id) or ".." in repo_id or "--" in repo_id:
        raise HubError(400, f"Invalid repository name: {repo_id}")
