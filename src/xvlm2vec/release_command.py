"""`xvlm2vec release`."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec import console

if TYPE_CHECKING:
    from xvlm2vec.eval.results import Results
    from xvlm2vec.hub.card import ReleaseCard
    from xvlm2vec.hub.release import ReleaseInputs

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Parses the flags, writes the release, and shows the proof that it loads."""
    parser = _parser()
    flags = parser.parse_args(console.with_help(arguments))
    if not flags.to.startswith((".", "/", "~")) and "/" in flags.to and not Path(flags.to).exists():
        parser.error(f"{flags.to} looks like a Hub id, and pushing is not part of this version yet; write "
                     f"./{flags.to} for a folder")  # fmt: skip
    console.set_up()
    inputs = release_inputs(flags)
    if flags.dry_run:
        return _dry_run(inputs, flags.to)
    from xvlm2vec.hub.release import release_to_folder

    logger.info("Writing the release and checking it in fresh processes")
    released = release_to_folder(inputs, flags.to)
    console.show(released.report.table())
    for path in (released.model, released.adapter):
        if path is not None:
            console.show(f"  {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "release",
        "Writes TO/model: weights, code, processor, sentence-transformers files, card and golden vectors, all that "
        "AutoModel and SentenceTransformer need where this package is not installed. It takes its place only after "
        "fresh processes got the same vectors from it. With --adapter the adapter is merged into TO/model and also "
        "written alone into TO/adapter.",
        "xvlm2vec release runs/student --to ./release --name my-embedder --licence apache-2.0 \\\n"
        "    --languages en,de,fr --results scores/student --before scores/teacher\n"
        "xvlm2vec release runs/teacher --adapter runs/student/adapter --to ./release --name my-embedder",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of an XVLM2VecModel; with --adapter, of the "
                        "model below it")  # fmt: skip
    parser.add_argument("--to", required=True, metavar="DIR", help="where to write, such as ./release")
    parser.add_argument("--adapter", metavar="DIR", help="folder of an adapter that was trained on MODEL")
    parser.add_argument("--name", metavar="NAME", help="of the model (default: the last part of MODEL)")
    parser.add_argument("--description", default="", metavar="TEXT", help="a paragraph for the card")
    parser.add_argument("--licence", metavar="ID", help="of the weights, as the Hub spells it, such as apache-2.0")
    parser.add_argument("--languages", type=console.names, default=(), metavar="CODES", help="that it is meant for")
    parser.add_argument("--base-model", metavar="ID", help="Hub id of the model that training started from")
    parser.add_argument("--results", metavar="FILE", help="results.json of evaluate, for the card's scores")
    parser.add_argument("--before", metavar="FILE", help="results.json of the model before distillation")
    parser.add_argument("--benchmark-id", metavar="ID", help="Hub id of the benchmark that the scores are from")
    parser.add_argument("--dry-run", action="store_true", help="list the files with their sizes and show the card; "
                        "they are written to a temporary folder and removed")  # fmt: skip
    return parser


def release_inputs(flags: argparse.Namespace) -> ReleaseInputs:
    """Model, processor and card of the flags.

    Raises:
        ValueError: The model is of another kind, the adapter does not fit, or a results file is damaged.
    """
    from xvlm2vec.hub.release import ReleaseInputs
    from xvlm2vec.sources import load_embedder, put_adapter

    card = release_card(flags)
    model, processor = load_embedder(flags.model)
    if flags.adapter is None:
        return ReleaseInputs(model=model, processor=processor, card=card)
    _check_base(flags.adapter, flags.model)
    adapted = put_adapter(model, flags.adapter)
    return ReleaseInputs(model=adapted, processor=processor, card=card, adapter=adapted)


def _check_base(adapter: str, model: str) -> None:
    """An adapter on another model than its own loads without a complaint and gives wrong vectors."""
    from xvlm2vec.sources import adapter_base

    base = adapter_base(adapter)
    same = base == model or (Path(base).exists() and Path(model).exists() and Path(base).samefile(model))
    if not same:
        raise ValueError(
            f"{adapter} was trained on {base}, not on {model}; pass that model. If it was only moved, correct "
            f"base_model_name_or_path in {adapter}/adapter_config.json."
        )


def release_card(flags: argparse.Namespace) -> ReleaseCard:
    """What the card says: the flags, the scores, and what the training wrote down beside the model."""
    from xvlm2vec.eval.results import Results
    from xvlm2vec.hub.card import LossNote, ReleaseCard

    results = {
        model: Results.load(path) for model, path in (("student", flags.results), ("teacher", flags.before)) if path
    }
    trained = _training_notes(Path(flags.adapter or flags.model))
    loss = trained.get("loss", {})
    base = Path(flags.model)
    return ReleaseCard(
        name=flags.name or base.name,
        repo_id=str(Path(flags.to) / "model"),
        description=flags.description,
        languages=flags.languages,
        base_model=flags.base_model,
        base_model_relation="adapter" if flags.adapter else "finetune",
        method="self-knowledge distillation" if trained else "",
        licence=flags.licence,
        losses=(LossNote(loss["name"], loss["citation"]),) if loss else (),
        hyperparameters=trained.get("settings", {}),
        versions=results["student"].versions if "student" in results else {},
        scores={model: card_scores(found) for model, found in results.items()},
        adapter_id=str(Path(flags.to) / "adapter") if flags.adapter else None,
        adapter_base=(str(base.resolve()) if base.is_dir() else flags.model) if flags.adapter else None,
        benchmark_id=flags.benchmark_id,
    )


def card_scores(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """`{task: {language: {"p_at_1", "n", "ci95"}}}`; data set and style are named where there are several."""
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    varies = [name for name in ("dataset", "style") if len({row[name] for row in results.rows}) > 1]
    for row in results.rows:
        column = " ".join([row["task"], *(row[name] for name in varies)])
        scores.setdefault(column, {})[row["language"]] = {key: row[key] for key in ("p_at_1", "n", "ci95")}
    return scores


def _training_notes(folder: Path) -> dict[str, Any]:
    from xvlm2vec.trainer.distillation import SUMMARY_FILE

    path = folder / SUMMARY_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}); repair it, or remove it to do without it.") from error


def _dry_run(inputs: ReleaseInputs, to: str) -> int:
    """Writes the parts into a temporary folder, and shows what they consist of."""
    from xvlm2vec.hub.export import export_adapter, export_model

    with tempfile.TemporaryDirectory(prefix="xvlm2vec-release-") as name:
        draft = Path(name)
        export_model(inputs.model, inputs.processor, draft / "model", card=inputs.card)
        if inputs.adapter is not None:
            export_adapter(
                inputs.adapter,
                draft / "adapter",
                base=str(inputs.card.adapter_base),
                card=inputs.card,
                processor=inputs.processor,
            )
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        lines = [f"{path.stat().st_size:>13,}  {Path(to) / path.relative_to(draft)}" for path in files]
        console.show("\n".join(lines))
        console.show((draft / "model" / "README.md").read_text(encoding="utf-8"))
    console.show("Nothing was written (--dry-run).")
    return 0
