"""`xvlm2vec corpus push`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.run_state import STATE_FILE

from . import console
from .corpus_check import add_kind

if TYPE_CHECKING:
    from datasets import Dataset

    from xvlm2vec.hub.corpus_export import CorpusCard
    from xvlm2vec.hub.dataset_export import DataSource

_COUNTS = ("rows", "kept", "dropped", "repaired", "told")


def add_push(kinds: Any) -> None:
    """Adds `xvlm2vec corpus push`."""
    parser = add_kind(
        kinds, "push", "publish a corpus on the Hub, with a card",
        "Pushes a corpus as a data set: parquet files with the images inside, in one commit, which is downloaded "
        "again, compared and tagged. The card says what is in it: languages, sources with their licenses, the "
        "translator and the counts of `corpus check`. Where licenses differ, each row has a column license.\n\nAfter "
        "an interruption the same command goes on, and files that went over whole are not sent twice. If nothing "
        "has changed, nothing is sent. Sources are named in a YAML or JSON file, as in the column source:\n\n"
        "coco: {license: cc-by-4.0, url: https://cocodataset.org}",
        "xvlm2vec corpus push checked/parallel --to me/captions --license cc-by-4.0 --check counts.json\n"
        "xvlm2vec corpus push mixed/parallel --to me/mixed --sources sources.yaml --private", _run,
    )  # fmt: skip
    parser.add_argument("path", metavar="CORPUS", help="folder of save_to_disk or of parquet files")
    parser.add_argument("--split", default="train", help="which part of the corpus, if it has several (default train)")
    parser.add_argument("--to", required=True, metavar="ORG/NAME", help="Hub id of the data set")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--version", metavar="X.Y.Z", help="its tag (default: one after the last, or 1.0.0)")
    parser.add_argument("--overwrite", action="store_true", help="replace what others committed since the last push")
    parser.add_argument("--dry-run", action="store_true", help="list the files and show the card; push nothing")
    card = parser.add_argument_group("what the card says")
    card.add_argument("--license", metavar="ID", help="license of all rows, such as cc-by-4.0")
    card.add_argument("--sources", metavar="FILE", help="licenses by source, where they differ")
    card.add_argument("--name", metavar="NAME", help="name of the corpus (default: that of the repository)")
    card.add_argument("--description", default="", metavar="TEXT", help="a paragraph")
    card.add_argument("--translator", metavar="TEXT", help="who translated it (default: what `xvlm2vec translate` has "
                      "noted beside the corpus)")  # fmt: skip
    card.add_argument("--check", metavar="FILE", help="the counts that `corpus check --json` wrote")


def _run(flags: argparse.Namespace) -> int:
    from huggingface_hub import HfApi

    from xvlm2vec.corpus.stored import load_parallel
    from xvlm2vec.hub.corpus_export import CORPUS, export_corpus
    from xvlm2vec.hub.push import HubTarget, look_before, push_release

    from .release import is_hub_id

    if not is_hub_id(flags.to):
        raise ValueError(f"{flags.to!r} is no Hub id; it must look like org/name.")
    corpus = load_parallel(flags.path, flags.split)
    card = _card(flags, corpus)
    target = HubTarget(flags.to, private=flags.private, version=flags.version, overwrite=flags.overwrite)
    remotes = {} if flags.dry_run else look_before(HfApi(), target, [CORPUS])
    with tempfile.TemporaryDirectory(prefix="xvlm2vec-corpus-") as name:
        draft = Path(name)
        export_corpus(corpus, draft / CORPUS, card)
        if flags.dry_run:
            return _show_draft(draft / CORPUS, flags.to)
        pushed = push_release(HfApi(), draft, target, remotes)
    (part,) = pushed.parts
    state = "pushed" if part.changed else "is on the Hub already; nothing was sent"
    console.show(f"v{pushed.version} {state}: {part.address(HfApi().endpoint)} (commit {part.commit[:12]})")
    return 0


def _show_draft(folder: Path, repo_id: str) -> int:
    from xvlm2vec.hub.scan import scan_folder

    console.show("\n".join(f"{file.size:>13,}  {repo_id}/{file.name}" for file in scan_folder(folder)))
    console.show((folder / "README.md").read_text(encoding="utf-8"))
    console.show("Nothing was pushed (--dry-run).")
    return 0


def _card(flags: argparse.Namespace, corpus: Dataset) -> CorpusCard:
    from xvlm2vec.corpus.statistics.counts import corpus_stats
    from xvlm2vec.hub.corpus_export import CorpusCard

    check = _counts(flags.check) if flags.check else None
    stats = corpus_stats(corpus, progress=True).as_json()
    return CorpusCard(
        name=flags.name or flags.to.partition("/")[2],
        repo_id=flags.to,
        sources=_sources(flags, stats["sources"]),
        stats=stats,
        description=flags.description,
        translator=flags.translator or _noted_translator(Path(flags.path)),
        check=check,
    )


def _sources(flags: argparse.Namespace, present: Mapping[str, int]) -> list[DataSource]:
    """The sources of the corpus with their licenses.

    Raises:
        ValueError: The file does not say what it should.
    """
    import yaml

    from xvlm2vec.hub.dataset_export import DataSource

    if flags.sources is None:
        return [DataSource(name, flags.license or "") for name in present]
    try:
        content = yaml.safe_load(Path(flags.sources).read_text(encoding="utf-8"))
        named = {str(name): DataSource(str(name), **{"license": flags.license or "", **fields})
                 for name, fields in content.items()}  # fmt: skip
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        form = "NAME: {license: cc-by-4.0, url: https://..., remark: ...}, a line for each source"
        raise ValueError(f"{flags.sources} must look like {form} ({error}).") from error
    others = [DataSource(name, flags.license or "") for name in present if name not in named]
    return [*named.values(), *others]


def _counts(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {name: content[name] for name in _COUNTS} | {"not_run": content.get("not_run", {})}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what `corpus check --json` writes ({error!r}).") from error


def _noted_translator(path: Path) -> str:
    """Who translated a corpus, from what `xvlm2vec translate` keeps in the folder above it."""
    try:
        settings = json.loads((path.resolve().parent / STATE_FILE).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError):
        return ""
    models = settings.get("model") or []
    names = [models] if isinstance(models, str) else [*models]
    names += [settings["server_model"]] if settings.get("server_model") else []
    names += ["Apertium"] if settings.get("apertium") else []
    names += [f"the word list {Path(settings['words']).name}"] if settings.get("words") else []
    vote = settings.get("vote") or "rules"
    return ", ".join(f"`{name}`" if "/" in name else name for name in names) + (
        f"; of several translations the best was kept, by {vote}" if len(names) > 1 else ""
    )
