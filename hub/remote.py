"""What is on the Hub before a push, and the errors that say what to do when it cannot be changed."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from .staging import MADE_BY, MANIFEST, ExportError

TITLE = re.compile(r"Release v\d+\.\d+\.\d+ \(xvlm2vec \S+\)\Z")
FIRST_TITLE = "initial commit"
HUB_OWN = {".gitattributes"}
WRITERS = {"admin", "write", "contributor"}
TOKENS_PAGE = "https://huggingface.co/settings/tokens"
_VERSION_TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)\Z")
_MOST_NAMES = 5


class PushError(ExportError):
    """A release was not pushed, or not whole; the message says how far it got and what to do."""


@dataclass(frozen=True)
class Remote:
    """A repository as it is on the Hub.

    Args:
        repo_id: Its id.
        kind: `"model"` or `"dataset"`.
        head: Newest commit of the main branch; `None` if there is no such repository yet.
        files: Checksum of each file: SHA-256 of a large one, the id that git gives it of a small one.
        tags: Commit of each tag.
        private: Whether only its owners see it.
    """

    repo_id: str
    kind: str
    head: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    private: bool = False

    @property
    def versions(self) -> list[tuple[int, int, int]]:
        """Versions that are tagged."""
        found = [_VERSION_TAG.match(tag) for tag in self.tags]
        return sorted((int(match[1]), int(match[2]), int(match[3])) for match in found if match)


def check_account(api: HfApi, namespace: str) -> str:
    """Checks that the token of this machine may write to a namespace.

    Returns:
        The name of the account.

    Raises:
        PushError: There is no token, it is not accepted, or it may not write there.
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
        kind: `"model"` or `"dataset"`.
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
        head = str(info.sha)
        entries = api.list_repo_tree(repo_id, recursive=True, revision=head, repo_type=kind)
        files = {
            entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
            for entry in entries
            if isinstance(entry, RepoFile)
        }
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id, repo_type=kind).tags}
        remote = Remote(repo_id, kind, head, files, tags, bool(info.private))
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


@contextmanager
def hub_errors(action: str) -> Iterator[None]:
    """Turns what the client raises into a `PushError` that says what to do.

    Args:
        action: What is being done, as in "pushing to org/name".
    """
    try:
        yield
    except ExportError:
        raise
    except LocalTokenNotFoundError as error:
        raise PushError(f"{action}: there is no token; run `hf auth login`, or set HF_TOKEN.") from error
    except OfflineModeIsEnabled as error:
        raise PushError(f"{action}: HF_HUB_OFFLINE is set, which forbids it; unset it.") from error
    except HFValidationError as error:
        raise PushError(f"{action}: {error}") from error
    except Exception as error:
        found = _status_error(error)
        if found is None and not _is_connection_error(error):
            raise
        raise PushError(f"{action}: {_advice(found)}") from error


def _status_error(error: BaseException | None) -> HfHubHTTPError | None:
    """The answer of the server behind an error; an upload wraps it in others."""
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _is_connection_error(error: BaseException | None) -> bool:
    """Whether a connection broke; the client's HTTP library differs between its versions."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(
            ("httpx", "requests")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _advice(error: HfHubHTTPError | None) -> str:
    again = "run the same command again; what was uploaded is kept and not sent twice."
    if error is None:
        return f"the connection broke; {again}"
    status = error.response.status_code
    advice = {
        401: f"the token was not accepted; make a new one on {TOKENS_PAGE}, then run `hf auth login`, or set HF_TOKEN.",
        403: f"the token may not do that; give it the right to write there on {TOKENS_PAGE}.",
        404: "there is no such repository or revision, or the token may not see it.",
        412: "somebody committed there in the meantime, and nothing was changed; look at it, then run again.",
        429: "too many requests; wait a few minutes, then run the same command again.",
    }
    said = error.server_message or ""
    told = f" ({said})" if said else ""
    return f"the Hub answered {status}{told}: {advice.get(status, again)}"
