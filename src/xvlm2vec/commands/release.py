"""`xvlm2vec release`."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xvlm2vec.flags import console
from xvlm2vec.flags.release import is_hub_id

if TYPE_CHECKING:
    from xvlm2vec.hub.push import HubRelease
    from xvlm2vec.hub.release import ReleaseInputs

logger = logging.getLogger(__name__)

HUB = "hf://"
HUB_ONLY = ("private", "version", "collection", "overwrite")


def main(arguments: Sequence[str]) -> int:
    """Parses the flags, writes or pushes the release, and shows the proof that it loads."""
    parser = _parser()
    flags = parser.parse_args(console.with_help(arguments))
    try:
        flags.to, on_hub = release_place(flags.to)
    except ValueError as error:
        parser.error(str(error))
    hub_flags = [f"--{name}" for name in HUB_ONLY if getattr(flags, name)]
    if hub_flags and not on_hub:
        parser.error(f"{', '.join(hub_flags)}: only for a release to the Hub, --to org/name")
    console.set_up()
    return _to_hub(flags) if on_hub else _to_folder(flags)


def release_place(to: str) -> tuple[str, bool]:
    """Where `--to` points: a Hub id, or a folder spelled as a path; and whether it is the former.

    `owner/name` is a Hub id, unless it may be meant as a folder because there is a folder `owner` here.

    Raises:
        ValueError: It may be either; says how to spell each. Or it is spelled as a Hub id and is none.
    """
    if to.startswith(HUB):
        name = to.removeprefix(HUB)
        if not is_hub_id(name):
            raise ValueError(f"{name!r} is no Hub id; it must look like {HUB}org/name")
        return name, True
    if not is_hub_id(to):
        return to, False
    if os.path.exists(to) or os.path.isdir(os.path.dirname(to)):
        raise ValueError(
            f"{to} may be a Hub id or a folder here; write ./{to} for the folder, or {HUB}{to} for the Hub"
        )
    return to, True


def _to_folder(flags: argparse.Namespace) -> int:
    from xvlm2vec.flags.release import release_inputs
    from xvlm2vec.hub.release import name_for_folder, release_to_folder, show_proof

    inputs = name_for_folder(
        replace(release_inputs(flags), native=flags.native, with_remote_code=flags.with_remote_code, space=flags.space,
                dtypes=flags.dtypes),
        flags.to,
    )  # fmt: skip
    problems = _tell_problems(inputs)
    if flags.dry_run:
        return _dry_run(inputs, {}, flags.to, problems)
    logger.info("Writing the release and checking it in fresh processes")
    released = release_to_folder(inputs, flags.to)
    console.show(show_proof(released))
    for path in released.folders.values():
        console.show(f"  {path}")
    return 0


def _to_hub(flags: argparse.Namespace) -> int:
    from huggingface_hub import HfApi

    from xvlm2vec.flags.release import release_inputs
    from xvlm2vec.hub.push import HubTarget, look_before, name_for_hub, push_release
    from xvlm2vec.hub.release import release_to_folder, show_proof
    from xvlm2vec.hub.remote import check_account

    api = HfApi()
    if not flags.dry_run:  # before a large model is loaded
        check_account(api, flags.to.partition("/")[0])
    inputs = replace(
        release_inputs(flags), native=flags.native, with_remote_code=flags.with_remote_code, dtypes=flags.dtypes
    )
    if not inputs.card.scores.get("student"):
        raise ValueError(
            f"{flags.model} has no scores, and a model is not published without: run `xvlm2vec evaluate {flags.model} "
            "--data BENCHMARK --output scores/student`, then pass --results scores/student."
        )
    target = HubTarget(
        flags.to,
        private=flags.private,
        version=flags.version,
        collection=inputs.card.name if flags.collection is True else flags.collection,
        overwrite=flags.overwrite,
        space=flags.space,
    )
    inputs = name_for_hub(inputs, target)
    parts = target.parts_of(inputs)
    problems = _tell_problems(inputs)
    if flags.dry_run:
        _dry_run(inputs, {part: target.repo_of(part) for part in parts}, flags.to, problems)
        return 1 if problems else 0
    remotes = look_before(api, target, parts)
    with tempfile.TemporaryDirectory(prefix="xvlm2vec-release-") as name:
        logger.info("Writing the release and checking it in fresh processes")
        released = release_to_folder(inputs, name)
        console.show(show_proof(released).replace(name, "draft"))
        pushed = push_release(api, Path(name), target, remotes)
    console.show(_summary(pushed, api.endpoint))
    return 0


def _summary(release: HubRelease, endpoint: str) -> str:
    width = max(len(part.repo_id) for part in release.parts)
    lines = [
        f"v{release.version}" if release.changed else f"v{release.version} is on the Hub already; nothing was sent"
    ]
    for part in release.parts:
        state = "pushed" if part.changed else "unchanged"
        lines.append(f"  {part.repo_id:<{width}}  {part.commit[:12]}  {state:<9}  {part.address(endpoint)}")
    if release.collection:
        lines.append(f"  collection: {release.collection}")
    return "\n".join(lines)


def _tell_problems(inputs: ReleaseInputs) -> list[str]:
    """What the Hub would refuse in the cards, told before the work of an export begins."""
    from xvlm2vec.hub.release import hub_problems

    problems = hub_problems(inputs)
    for problem in problems:
        logger.warning("The Hub will refuse the card: %s.", problem)
    return problems


def _dry_run(inputs: ReleaseInputs, repos: dict[str, str], to: str, problems: Sequence[str]) -> int:
    """Does all but the last step, in a temporary folder, and shows what would be written where."""
    from huggingface_hub import get_token

    from xvlm2vec.hub.push import BASE_REVISION, SPACE, add_space
    from xvlm2vec.hub.release import MODEL, release_to_folder
    from xvlm2vec.hub.scan import scan_folder

    with tempfile.TemporaryDirectory(prefix="xvlm2vec-release-") as name:
        draft = Path(name)
        logger.info("Writing the release into a temporary folder and checking it in fresh processes")
        released = release_to_folder(inputs, draft)
        folders = list(released.folders.values())
        if SPACE in repos:
            folders.append(add_space(draft, repos, dict.fromkeys(repos, BASE_REVISION)))
        lines = []
        for folder in folders:
            place = repos.get(folder.name, f"{to}/{folder.name}")
            contents = scan_folder(folder, {"your token": get_token() or ""})
            lines += [f"{content.size:>13,}  {place}/{content.name}" for content in contents]
            lines.append(f"{sum(content.size for content in contents):>13,}  {place} in all, {len(contents)} files")
        console.show("\n".join(lines))
        card = (draft / MODEL / "README.md").read_text(encoding="utf-8")
        console.show(card.replace(BASE_REVISION, "(its commit)"))
    console.show("\n".join([*(f"The Hub will refuse the card: {problem}." for problem in problems),
                            "Nothing was written or pushed (--dry-run)."]))  # fmt: skip
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "release",
        "Publishes a model: weights, code, processor, sentence-transformers files, card and golden vectors, all that "
        "AutoModel and SentenceTransformer need where this package is not installed. With an adapter also the adapter "
        "alone and the model below it, and with the folder of a quickstart run its benchmark."
        "\n\n"
        "--to org/name pushes to the Hub: one commit per repository (org/name, org/name-adapter, org/name-base, "
        "org/name-native, org/name-benchmark, org/name-space), after fresh processes got the golden vectors from every "
        "part; the pushed commits are downloaded and checked again, then tagged. --to ./folder writes the same as "
        "folders.\n\n"
        "Activated adapters (distill --adapter activated) are released beside their base in one repository: with its "
        "weights, or, if it is on the Hub, with its id and commit. The card says zero drift because a fresh process "
        "measured it.",
        "xvlm2vec release runs/quickstart --to me/emoji-search --private --dry-run\n"
        "xvlm2vec release runs/quickstart --to me/emoji-search --collection\n"
        "xvlm2vec release runs/student --to ./release --name my-embedder --license apache-2.0 \\\n"
        "    --languages en,de,fr --results scores/student --before scores/teacher\n"
        "xvlm2vec release runs/teacher --adapter runs/student/adapter --to ./release --name my-embedder\n"
        "xvlm2vec release runs/turkish/adapter --to ./release --name my-embedder-tr",
    )
    parser.add_argument("model", metavar="RUN", help="folder of a quickstart run; folder or Hub id of an "
                        "XVLM2VecModel, or of an adapter on one; with --adapter, of the model below it")  # fmt: skip
    parser.add_argument("--to", required=True, metavar="PLACE", help="org/name on the Hub, or a folder, such as "
                        "./release; hf://org/name where a folder org is here, too")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="do all but publish: list every file with its size and "
                        "destination, and show the card")  # fmt: skip
    parser.add_argument("--native", action="store_true", help="also release the same weights without remote code, "
                        "where the backbone is part of transformers")  # fmt: skip
    parser.add_argument("--with-remote-code", action="store_true", help="release an embedder that was taken over in "
                        "our form, too, into PLACE/xvlm2vec")  # fmt: skip
    parser.add_argument("--trust-remote-code", action="store_true", help="run code from RUN's folder, as an embedder "
                        "needs that brings modules of its own; it is released with that code")  # fmt: skip
    parser.add_argument("--merge", nargs="?", const=True, metavar="LANGUAGE", help="merge an activated adapter into an "
                        "ordinary model, which moves every vector: the card says by how much; of several adapters the "
                        "one that speaks LANGUAGE")  # fmt: skip
    parser.add_argument("--dtypes", type=console.names, metavar="NAMES", help="prove it in these number formats alone, "
                        "which its card then says, such as float32 for a model that bfloat16 rounds too far (default: "
                        "float32,bfloat16)")  # fmt: skip
    parser.add_argument("--space", action="store_true", help="also release a Space, an app that searches the "
                        "benchmark's images")  # fmt: skip
    model = parser.add_argument_group("what the card says (a run's folder knows most of it)")
    model.add_argument("--adapter", metavar="DIR", help="folder of an adapter that was trained on RUN")
    model.add_argument(
        "--name", metavar="NAME", help="name of the model (default: the repository's, or the last part of RUN)"
    )
    model.add_argument("--description", default="", metavar="TEXT", help="a paragraph for the card")
    model.add_argument("--license", metavar="ID", help="license of the weights, such as apache-2.0")
    console.add_old_name(parser, "--licence", "--license")
    model.add_argument("--languages", type=console.language_codes, default=(), metavar="CODES",
                       help="languages that it is meant for")  # fmt: skip
    model.add_argument("--datasets", type=console.names, default=(), metavar="IDS", help="what it was trained on, by "
                       "Hub ids or names")  # fmt: skip
    model.add_argument("--limit", dest="limits", action="append", default=[], metavar="TEXT", help="a sentence on "
                       "what it cannot do; may be repeated")  # fmt: skip
    model.add_argument("--base-model", metavar="ID", help="Hub id of the model that training started from")
    model.add_argument("--results", metavar="FILE", help="results.json of evaluate, for the card's scores")
    model.add_argument("--before", metavar="FILE", help="results.json of the model before distillation")
    model.add_argument("--benchmark-id", metavar="ID", help="Hub id of the benchmark that the scores are from")
    hub = parser.add_argument_group("on the Hub")
    hub.add_argument("--private", action="store_true", help="make the repositories private")
    hub.add_argument("--version", metavar="X.Y.Z", help="tag of the release (default: one after the last, or 1.0.0)")
    hub.add_argument("--collection", nargs="?", const=True, metavar="TITLE", help="tie them in a collection "
                     "(default title: the model's name)")  # fmt: skip
    hub.add_argument("--overwrite", action="store_true", help="replace what others committed to the repositories "
                     "since the last release")  # fmt: skip
    return parser
