"""What is on the Hub before a push, and the errors that say what to do when it cannot be changed."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi, get_token, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from .connection import TOKENS_PAGE, HubError, hub_errors
from .scan import Content, list_files
from .staging import MADE_BY, MANIFEST

TITLE = re.compile(r"Release v\d+\.\d+\.\d+ \(xvlm2vec \S+\)\Z")
FIRST_TITLE = "initial commit"
HUB_OWN = {".gitattributes"}
WRITERS = {"admin", "write", "contributor"}
_VERSION_TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)\Z")
_MOST_NAMES = 5
_BLOCK = 1 << 20


class PushError(HubError):
    """A release was not pushed, or not whole; the message says how far it got and what to do."""


@dataclass(frozen=True)
class Remote:
    """A repository as it is on the Hub.

    Args:
        repo_id: Its id.
        kind: `"model"`, `"dataset"` or `"space"`.
        head: Newest commit of the main branch; `None` if there is no commit, or no such repository yet.
        files: Checksum of each file: SHA-256 of a large one, the id that git gives it of a small one.
        tags: Commit of each tag.
        private: Whether only its owners see it.
        exists: Whether there is such a repository.
    """

    repo_id: str
    kind: str
    head: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    private: bool = False
    exists: bool = False

    @property
    def version(self) -> str | None:
        """The newest version that the head is tagged with."""
        tagged = [version_text(version) for version in self.versions]
        return next((text for text in reversed(tagged) if self.tags[f"v{text}"] == self.head), None)

    @property
    def versions(self) -> list[tuple[int, int, int]]:
        """Versions that are tagged."""
        matches = [_VERSION_TAG.match(tag) for tag in self.tags]
        return sorted((int(match[1]), int(match[2]), int(match[3])) for match in matches if match)


def check_account(api: HfApi, namespace: str) -> str:
    """Checks that the token of this machine may write to a namespace.

    Returns:
        The name of the account.

    Raises:
        PushError: There is no token, or it may not write there.
        HubError: It is not accepted, or the Hub cannot be reached.
    """
    if not get_token():
        raise PushError(
            "there is no token, and pushing needs one: make one with the right to write on "
            f"{TOKENS_PAGE}, then run `hf auth login`, or set HF_TOKEN."
        )
    with hub_errors("asking who the token belongs to"):
        account = api.whoami()
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise PushError(
            f"the token of {account['name']} may only read; make one with the right to write on {TOKENS_PAGE}, then "
            "run `hf auth login`, or set HF_TOKEN."
        )
    orgs = {org["name"] for org in account.get("orgs", []) if org.get("roleInOrg", "write") in WRITERS}
    if namespace not in {account["name"], *orgs}:
        places = ", ".join(sorted({account["name"], *orgs}))
        raise PushError(f"the account {account['name']} may not write to {namespace}/; it may write to {places}.")
    return str(account["name"])


def inspect(api: HfApi, repo_id: str, kind: str, part: str, overwrite: bool = False) -> Remote:
    """Looks at a repository that a release is to be pushed to, and checks that nothing of others would be lost.

    Args:
        api: The client.
        repo_id: Id of the repository.
        kind: `"model"`, `"dataset"` or `"space"`.
        part: What is to be pushed there, as its manifest calls it.
        overwrite: Whether changes that others made to an earlier release may be replaced.

    Raises:
        PushError: The repository holds something else, or somebody committed to it since the last release.
    """
    with hub_errors(f"looking at {repo_id}"):
        try:
            info = api.repo_info(repo_id, repo_type=kind)
        except RepositoryNotFoundError:
            return Remote(repo_id, kind)
        if info.sha is None:
            return Remote(repo_id, kind, private=bool(info.private), exists=True)
        head = str(info.sha)
        entries = api.list_repo_tree(repo_id, recursive=True, revision=head, repo_type=kind)
        files = {
            entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
            for entry in entries
            if isinstance(entry, RepoFile)
        }
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id, repo_type=kind).tags}
        remote = Remote(repo_id, kind, head, files, tags, bool(info.private), exists=True)
        if set(files) - HUB_OWN:
            _check_ours(api, remote, part, overwrite)
    return remote


def _check_ours(api: HfApi, remote: Remote, part: str, overwrite: bool) -> None:
    """Refuses a repository of something else, and files or newer commits that no release made."""
    manifest = _manifest(remote)
    if manifest.get("made_by") != MADE_BY or manifest.get("kind") != part:
        raise PushError(
            f"{remote.repo_id} exists and holds other content (its {MANIFEST} does not say that it is a released "
            f"{part}): nothing was pushed. Choose another name, or empty that repository."
        )
    if overwrite:
        return
    foreign = sorted(set(remote.files) - set(manifest.get("files", [])) - {MANIFEST} - HUB_OWN)
    if foreign:
        names = ", ".join(foreign[:_MOST_NAMES]) + (", ..." if len(foreign) > _MOST_NAMES else "")
        raise PushError(
            f"{remote.repo_id} holds files that no release put there ({names}): nothing was pushed. Move them "
            "elsewhere, or pass --overwrite to have them removed."
        )
    strangers = []
    for commit in api.list_repo_commits(remote.repo_id, repo_type=remote.kind):
        if TITLE.match(commit.title) or commit.title == FIRST_TITLE:
            break
        strangers.append(f"{commit.title!r} by {', '.join(commit.authors) or 'somebody'}")
    if strangers:
        raise PushError(
            f"{remote.repo_id} was changed since its last release ({'; '.join(strangers[:_MOST_NAMES])}): nothing was "
            "pushed. Take those changes over into the release, then pass --overwrite to replace them."
        )


def _manifest(remote: Remote) -> dict:
    with tempfile.TemporaryDirectory(prefix="xvlm2vec-remote-") as cache:
        try:
            path = hf_hub_download(
                remote.repo_id, MANIFEST, repo_type=remote.kind, revision=remote.head, cache_dir=cache
            )
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (EntryNotFoundError, ValueError):
            return {}
    return content if isinstance(content, dict) else {}


def next_version(wanted: str | None, remotes: Sequence[Remote]) -> str:
    """The version of a release: the wanted one, or one more than the last of all repositories.

    Raises:
        PushError: The wanted version is no version.
    """
    released = [version for remote in remotes for version in remote.versions]
    if wanted is None:
        major, minor, patch = max(released, default=(1, 0, -1))
        return version_text((major, minor, patch + 1))
    parts = wanted.removeprefix("v").split(".")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise PushError(f"{wanted!r} is no version; write X.Y.Z, such as 1.2.0.")
    return version_text((int(parts[0]), int(parts[1]), int(parts[2])))


def version_text(version: tuple[int, int, int]) -> str:
    """`(1, 0, 2)` as `"1.0.2"`."""
    return ".".join(map(str, version))


def compare(folder: Path, remote: Remote, version: str) -> tuple[list[Content], list[str]]:
    """The files of a part that are new or other than those on the Hub, and the names of those that go.

    Raises:
        PushError: The version is there with other content.
    """
    contents = list_files(folder)
    changed = [content for content in contents if _is_other(content, remote.files.get(content.name))]
    gone = sorted(set(remote.files) - {content.name for content in contents} - HUB_OWN)
    tagged = remote.tags.get(f"v{version}")
    if tagged is not None and (changed or gone or tagged != remote.head):
        raise version_exists(remote, version)
    return changed, gone


def version_exists(remote: Remote, version: str) -> PushError:
    """What to raise where a version is there with other content."""
    return PushError(
        f"{remote.repo_id} has a v{version} with other content, and a version stays what it is: nothing was pushed. "
        "Pass a new --version."
    )


def _is_other(content: Content, checksum: str | None) -> bool:
    """Whether a file differs from the one on the Hub; the length of the checksum tells which kind it is."""
    if checksum is None:
        return True
    digest = hashlib.sha256() if len(checksum) == 64 else hashlib.sha1(b"blob %d\0" % content.size)
    with content.path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() != checksum
