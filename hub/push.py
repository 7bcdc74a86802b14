"""Pushes a release: one commit per repository, the pushed commits verified, then a tag on each."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, get_token, snapshot_download

from xvlm2vec import __version__
from xvlm2vec.common.files import write_text

from .card import read_metadata
from .connection import hub_errors
from .corpus_export import CORPUS
from .release import ADAPTER, BASE, BENCHMARK, MODEL, NATIVE, NO_BENCHMARK, REMOTE_CODE, SPACE, ReleaseInputs
from .remote import PushError, Remote, check_account, compare, inspect, next_version, version_exists
from .scan import list_files, scan_folder
from .space import Place, write_space
from .verify import VerifyError, verify

logger = logging.getLogger(__name__)

SUFFIXES = {MODEL: "", ADAPTER: "-adapter", BASE: "-base", NATIVE: "-native", BENCHMARK: "-benchmark", SPACE: "-space"}
SUFFIXES |= {REMOTE_CODE: "-xvlm2vec", CORPUS: ""}
ORDER = (BASE, ADAPTER, NATIVE, REMOTE_CODE, BENCHMARK, MODEL, SPACE, CORPUS)
"""The base first, whose commit the adapter names; the Space, which names the commits of model and benchmark, last of a
release. A corpus is pushed alone."""
KINDS = {BENCHMARK: "dataset", SPACE: "space", CORPUS: "dataset"}
MANIFEST_KINDS = {BASE: MODEL, REMOTE_CODE: MODEL}
BASE_REVISION = "0" * 40
"""What an export writes for the commit of a base that is not pushed yet; `pin_base` puts in the commit."""
_PINNED_FILES = ("adapter_config.json", "README.md")


@dataclass(frozen=True)
class HubTarget:
    """Where a release goes on the Hub.

    Args:
        repo_id: Id of the model's repository; those of the other parts have a suffix.
        private: Whether repositories that are made are private.
        version: `"X.Y.Z"`; by default one more than the last, or 1.0.0.
        collection: Title of the collection that ties the repositories, if there is to be one.
        overwrite: Whether changes that others made to an earlier release may be replaced.
        space: Whether a Space is pushed that searches the benchmark's images.
    """

    repo_id: str
    private: bool = False
    version: str | None = None
    collection: str | None = None
    overwrite: bool = False
    space: bool = False

    @property
    def namespace(self) -> str:
        """User or organisation."""
        return self.repo_id.partition("/")[0]

    def repo_of(self, part: str) -> str:
        """Id of a part's repository."""
        return self.repo_id + SUFFIXES[part]

    def parts_of(self, run: ReleaseInputs) -> list[str]:
        """The parts that a release has; a `PushError` if a Space is wanted and there is no benchmark to search."""
        if self.space and run.benchmark is None:
            raise PushError(NO_BENCHMARK)
        present = {
            BASE: run.base is not None,
            ADAPTER: run.adapter is not None,
            NATIVE: run.native,
            REMOTE_CODE: run.with_remote_code,
            BENCHMARK: run.benchmark is not None,
            MODEL: True,
            SPACE: self.space,
        }
        return [part for part in ORDER if present.get(part)]


@dataclass(frozen=True)
class Pushed:
    """What became of one part: its repository, the commit that holds it, and whether that commit is new."""

    part: str
    repo_id: str
    commit: str
    changed: bool

    def address(self, endpoint: str) -> str:
        """Its page."""
        folder = f"{KINDS[self.part]}s/" if self.part in KINDS else ""
        return f"{endpoint}/{folder}{self.repo_id}"


@dataclass(frozen=True)
class HubRelease:
    """A release on the Hub: its version, its parts, and the address of its collection."""

    version: str
    parts: tuple[Pushed, ...]
    collection: str | None = None

    @property
    def changed(self) -> bool:
        """Whether there was anything to push."""
        return any(part.changed for part in self.parts)


@dataclass
class _Plan:
    """A part on its way: what is there, and what it takes to make it what it shall be."""

    part: str
    remote: Remote
    additions: list[CommitOperationAdd]
    deletions: list[CommitOperationDelete]

    @property
    def changed(self) -> bool:
        return bool(self.additions or self.deletions)


def kind_of(part: str) -> str:
    """`"model"`, `"dataset"` or `"space"`."""
    return KINDS.get(part, "model")


def name_for_hub(run: ReleaseInputs, target: HubTarget) -> ReleaseInputs:
    """The same release with the ids that its parts will have on the Hub, for its cards and its adapter's base."""
    card = replace(
        run.card,
        on_hub=True,
        repo_id=target.repo_of(MODEL),
        adapter_id=target.repo_of(ADAPTER) if run.adapter is not None else None,
        native_id=target.repo_of(NATIVE) if run.native else None,
        benchmark_id=target.repo_of(BENCHMARK) if run.benchmark is not None else run.card.benchmark_id,
    )
    base, benchmark = run.base, run.benchmark
    if base is not None:
        base = replace(
            base, card=replace(base.card, on_hub=True, repo_id=target.repo_of(BASE), benchmark_id=card.benchmark_id)
        )
        card = replace(
            card, adapter_base=target.repo_of(BASE), base_revision=BASE_REVISION, base_model=target.repo_of(BASE)
        )
    if benchmark is not None:
        benchmark = replace(benchmark, card=replace(benchmark.card, repo_id=target.repo_of(BENCHMARK)))
    return replace(run, card=card, base=base, benchmark=benchmark)


def look_before(api: HfApi, target: HubTarget, parts: Sequence[str]) -> dict[str, Remote]:
    """Checks everything that can be checked before the work of an export begins.

    Returns:
        The repositories of the parts as they are now; the push is refused if they change until then.

    Raises:
        PushError: No token, no right to write, a repository with other content, or a version that exists.
    """
    check_account(api, target.namespace)
    remotes = {}
    for part in parts:
        repo_id, kind = target.repo_of(part), kind_of(part)
        remotes[part] = inspect(api, repo_id, kind, MANIFEST_KINDS.get(part, part), target.overwrite)
        if target.private and remotes[part].exists and not remotes[part].private:
            raise PushError(
                f"{repo_id} exists and is public: nothing was pushed. Make it private in its settings first, or leave "
                "out --private."
            )
    version = next_version(target.version, list(remotes.values()))
    for remote in remotes.values():
        if remote.tags.get(f"v{version}", remote.head) != remote.head:
            raise version_exists(remote, version)
    return remotes


def push_release(api: HfApi, draft: Path, target: HubTarget, remotes: dict[str, Remote]) -> HubRelease:
    """Pushes the folders of a draft that was verified, each in one commit, and tags them when they are proven.

    Args:
        api: The client.
        draft: A folder with a folder per part.
        target: Where to push.
        remotes: What `look_before` saw; its keys are the parts to push.

    Returns:
        The release.

    Raises:
        ScanError: A folder holds something that must not be published; nothing was pushed.
        PushError: A version that exists has other content, or what was pushed does not come back.
        HubError: The Hub refused, was changed in between, or the connection broke.
        VerifyError: What was pushed does not come back as it was; it has no tag then.
    """
    version = next_version(target.version, list(remotes.values()))
    _check_all(draft, remotes, version)
    pushed: dict[str, Pushed] = {}

    def push(*names: str) -> None:
        plans = [_plan(api, draft, target, remotes[part], part, version) for part in names]
        pushed.update({done.part: done for done in _push(plans, api, version)})

    if BASE in remotes:
        push(BASE)
        pin_base(draft, pushed[BASE].commit)
    push(*(part for part in ORDER if part in remotes and part not in (BASE, SPACE)))
    if SPACE in remotes:  # once more, with the commits that it reads
        repos = {part: done.repo_id for part, done in pushed.items()}
        add_space(draft, repos, {part: done.commit for part, done in pushed.items()})
        push(SPACE)
    parts = tuple(pushed[part] for part in ORDER if part in pushed)
    if target.version is None and not any(done.changed for done in parts):
        version = remotes[parts[-1].part].version or version
    for done in parts:
        if done.changed or remotes[done.part].version is None:  # a tag says that it was proven
            _prove(done, draft / done.part)
    for done in parts:
        _tag(api, done, remotes[done.part], version)
    collection = _collect(api, target, parts) if target.collection else None
    return HubRelease(version, parts, collection)


def _check_all(draft: Path, remotes: Mapping[str, Remote], version: str) -> None:
    """Scans and compares every part before the first is pushed; the Space with the commits that are known so far."""
    private = {"your token": get_token() or ""}
    commits: dict[str, str] = {}
    for part in (part for part in ORDER if part in remotes):
        if part == SPACE:
            add_space(draft, {part: remote.repo_id for part, remote in remotes.items()}, commits)
        scan_folder(draft / part, private)
        check_card(draft / part / "README.md", kind_of(part))
        changed, gone = compare(draft / part, remotes[part], version)
        commits[part] = BASE_REVISION if changed or gone else str(remotes[part].head)
        if part == BASE:
            pin_base(draft, commits[BASE])


def check_card(path: Path, kind: str) -> None:
    """Asks the Hub whether it takes the metadata of a card; a `PushError` names what it does not take."""
    with hub_errors(f"checking the card in {path.parent.name}"):
        try:
            RepoCard(path.read_text(encoding="utf-8")).validate(repo_type=kind)
        except ValueError as error:
            raise PushError(
                f"the Hub does not take the card of the {path.parent.name}: {error}. Correct what it names; nothing "
                "was pushed."
            ) from error


def pin_base(draft: Path, commit: str) -> None:
    """Writes the base's commit into the configuration and the cards of a draft."""
    for path in (draft / part / name for part in (ADAPTER, MODEL) for name in _PINNED_FILES):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            write_text(path, text.replace(BASE_REVISION, commit))


def add_space(draft: Path, repos: Mapping[str, str], commits: Mapping[str, str]) -> Path:
    """Writes the Space into a draft, and returns its folder.

    Args:
        draft: The folder of the release, with model and benchmark.
        repos: Ids of their repositories, by part.
        commits: The commits of them that the Space is to read.
    """
    places = [Place(draft / part, repos[part], commits[part]) for part in (MODEL, BENCHMARK)]
    license = read_metadata(draft / MODEL / "README.md").get("license")
    return write_space(draft / SPACE, *places, title=repos[MODEL], license=license)


def _plan(api: HfApi, draft: Path, target: HubTarget, remote: Remote, part: str, version: str) -> _Plan:
    """What has to be committed; the repository is made if there is none."""
    changed, gone = compare(draft / part, remote, version)
    if remote.head is None:
        with hub_errors(f"making {remote.repo_id}"):
            api.create_repo(
                remote.repo_id,
                repo_type=remote.kind,
                private=target.private,
                space_sdk="gradio" if part == SPACE else None,
                exist_ok=True,
            )
            head = api.repo_info(remote.repo_id, repo_type=remote.kind).sha
        remote = Remote(remote.repo_id, remote.kind, head)
    additions = [CommitOperationAdd(content.name, content.path) for content in changed]
    return _Plan(part, remote, additions, [CommitOperationDelete(name) for name in gone])


def _push(plans: list[_Plan], api: HfApi, version: str) -> list[Pushed]:
    """Sends all large files first, so that the commits follow one another closely."""
    for plan in plans:
        if plan.additions:
            size = sum(addition.upload_info.size for addition in plan.additions)
            logger.info("%s: %d files to send, %s bytes", plan.remote.repo_id, len(plan.additions), f"{size:,}")
            with hub_errors(f"uploading to {plan.remote.repo_id}"):
                api.preupload_lfs_files(plan.remote.repo_id, plan.additions, repo_type=plan.remote.kind)
    return [_commit(plan, api, version) for plan in plans]


def _commit(plan: _Plan, api: HfApi, version: str) -> Pushed:
    remote = plan.remote
    if not plan.changed:
        logger.info("%s: unchanged", remote.repo_id)
        return Pushed(plan.part, remote.repo_id, str(remote.head), changed=False)
    # `upload_folder` is no choice: with hf_xet it may make several commits of one folder.
    with hub_errors(f"committing to {remote.repo_id}"):
        done = api.create_commit(
            remote.repo_id,
            [*plan.additions, *plan.deletions],
            commit_message=f"Release v{version} (xvlm2vec {__version__})",
            repo_type=remote.kind,
            parent_commit=remote.head,
        )
    return Pushed(plan.part, remote.repo_id, done.oid, changed=True)


def _prove(done: Pushed, folder: Path) -> None:
    """Downloads a pushed commit into an empty cache, compares every file, and loads it in every way."""
    logger.info("%s: downloading commit %s and checking it", done.repo_id, done.commit[:8])
    with tempfile.TemporaryDirectory(prefix="xvlm2vec-pushed-") as cache:
        with hub_errors(f"downloading {done.repo_id} again"):
            snapshot = snapshot_download(
                done.repo_id, revision=done.commit, repo_type=kind_of(done.part), cache_dir=cache
            )
        for content in list_files(folder):
            copy = Path(snapshot, content.name)
            if not copy.is_file() or _digest(copy) != _digest(content.path):
                raise PushError(
                    f"{done.repo_id}: {content.name} did not come back from the Hub as it was sent (commit "
                    f"{done.commit}); the release has no tag. Run the same command again."
                )
        if done.part not in KINDS:
            report = verify(done.repo_id, done.commit, dtypes=("float32",), cache_dir=cache)
            if not report.ok:
                raise VerifyError(report)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tag(api: HfApi, done: Pushed, remote: Remote, version: str) -> None:
    if remote.tags.get(f"v{version}") != done.commit:
        with hub_errors(f"tagging {done.repo_id}"):
            api.create_tag(done.repo_id, tag=f"v{version}", revision=done.commit, repo_type=kind_of(done.part))


def _collect(api: HfApi, target: HubTarget, parts: Sequence[Pushed]) -> str:
    """Puts all parts into a collection, which is made if there is none of this title."""
    with hub_errors(f"making the collection {target.collection!r}"):
        collection = api.create_collection(
            str(target.collection), namespace=target.namespace, private=target.private, exists_ok=True
        )
        for done in reversed(parts):
            api.add_collection_item(collection.slug, done.repo_id, kind_of(done.part), exists_ok=True)  # type: ignore[arg-type]
    return collection.url
