"""What a release is made of: the flags of `xvlm2vec release`, or the folder of a finished run."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .models import TEACHER, adapter_base, base_revision, is_quickstart, load_embedder, model_kind, put_adapter
from .training_notes import loss_notes, training_notes

if TYPE_CHECKING:
    import argparse

    from xvlm2vec.eval.results import Results
    from xvlm2vec.hub.card import ReleaseCard
    from xvlm2vec.hub.release import ReleaseInputs

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
EMISSIONS_FILE = "emissions.csv"
RUN_FLAGS = ("adapter", "results", "before", "base_model")


def is_hub_id(place: str) -> bool:
    """Whether a place is `org/name` on the Hub; a folder with a slash in its path begins with `.`, `/` or `~`."""
    return bool(_HUB_ID.match(place))


def release_inputs(flags: argparse.Namespace) -> ReleaseInputs:
    """Model, processor, cards and benchmark: from a run's folder, or from a model and what the flags say of it.

    Raises:
        ValueError: The model is of another kind, the adapter does not fit, a results file is damaged, or a run is not
            finished.
        FileNotFoundError: A folder is gone.
    """
    return _from_run(flags) if is_quickstart(Path(flags.model)) else _from_flags(flags)


def _from_run(flags: argparse.Namespace) -> ReleaseInputs:
    from dataclasses import replace

    from xvlm2vec.quickstart.release import student_inputs
    from xvlm2vec.quickstart.run_folder import RunFolder

    given = [f"--{name.replace('_', '-')}" for name in RUN_FLAGS if getattr(flags, name)]
    if given:
        raise ValueError(
            f"{flags.model} is the folder of a run, which knows this itself: leave out {', '.join(given)}."
        )
    run = RunFolder.open(flags.model)
    for part in (run.student, "scores/student", "scores/teacher"):
        if not run.path(part).is_dir():
            raise ValueError(
                f"{flags.model} has no {part}: the run did not finish. `xvlm2vec quickstart --output {flags.model}` "
                "(with the flags that it was begun with) goes on where it stopped."
            )
    if run.config.lora and not run.path(TEACHER).is_dir():
        raise FileNotFoundError(
            f"{run.path(TEACHER)} is gone, the model below the adapter of this run: put it back, or run the quickstart "
            "again; without its base an adapter is lost."
        )
    inputs = student_inputs(run)
    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("name", flags.name),
            ("description", flags.description),
            ("licence", flags.licence),
            ("languages", flags.languages),
            ("datasets", flags.datasets),
        )
        if value
    }
    if flags.limits:
        changes["limits"] = (*inputs.card.limits, *flags.limits)
    base = inputs.base
    if base is not None and flags.licence:
        base = replace(base, card=replace(base.card, licence=flags.licence))
    return replace(inputs, card=replace(inputs.card, **changes), base=base)


def _from_flags(flags: argparse.Namespace) -> ReleaseInputs:
    from xvlm2vec.hub.release import BaseInputs, ReleaseInputs

    model_name, adapter = _model_and_adapter(flags.model, flags.adapter)
    revision = hub_revision(model_name, base_revision(adapter)) if adapter else None
    card = release_card(flags, model_name, adapter, revision)
    model, processor = load_embedder(model_name, revision)
    if adapter is None:
        return ReleaseInputs(model=model, processor=processor, card=card)
    base = None
    if Path(model_name).is_dir():
        base = BaseInputs(load_embedder(model_name)[0], base_card(card))
    adapted = put_adapter(model, adapter)
    return ReleaseInputs(model=adapted, processor=processor, card=card, adapter=adapted, base=base)


def _model_and_adapter(model: str, adapter: str | None) -> tuple[str, str | None]:
    """The model below and the adapter on it, if there is one; an adapter alone names the model below itself.

    Raises:
        ValueError: The adapter was trained on another model, which loads without a complaint and gives wrong vectors.
        FileNotFoundError: The model below is gone.
    """
    if adapter is None:
        return (adapter_base(model), model) if model_kind(model) == "adapter" else (model, None)
    base = adapter_base(adapter)
    same = base == model or (Path(base).exists() and Path(model).exists() and Path(base).samefile(model))
    if not same:
        raise ValueError(
            f"{adapter} was trained on {base}, not on {model}; pass that model. If it was only moved, correct "
            f"base_model_name_or_path in {adapter}/adapter_config.json."
        )
    return model, adapter


def release_card(
    flags: argparse.Namespace, model: str, adapter: str | None, base_revision: str | None = None
) -> ReleaseCard:
    """What the card says: the flags, the scores, and what the training wrote down beside the model.

    Args:
        flags: Of `xvlm2vec release`.
        model: Folder or Hub id of the model, or of that below the adapter.
        adapter: Folder or Hub id of the adapter, if there is one.
        base_revision: Commit of the model below the adapter, if that is on the Hub.
    """
    from xvlm2vec.eval.results import Results
    from xvlm2vec.eval.sizes import size_summary
    from xvlm2vec.hub.card import ReleaseCard

    results = {
        name: Results.load(path) for name, path in (("student", flags.results), ("teacher", flags.before)) if path
    }
    trained_in = Path(adapter or model)
    trained = training_notes(trained_in)
    base = Path(model)
    below = model if adapter and not base.is_dir() else None
    return ReleaseCard(
        name=flags.name or Path(flags.to if is_hub_id(flags.to) else flags.model).name,
        repo_id=str(Path(flags.to) / "model"),
        description=flags.description,
        languages=flags.languages,
        base_model=flags.base_model or below or trained.get("start"),
        base_model_relation="finetune",
        method="self-knowledge distillation" if trained else "",
        licence=flags.licence,
        datasets=flags.datasets,
        limits=flags.limits,
        losses=loss_notes(trained),
        hyperparameters=trained.get("settings", {}),
        versions=trained.get("versions") or (results["student"].versions if "student" in results else {}),
        scores={name: card_scores(found) for name, found in results.items()},
        english_drift=english_drift(results),
        sizes=size_summary(results["student"].sizes) if "student" in results else (),
        emissions=measured_emissions(trained_in),
        adapter_id=str(Path(flags.to) / "adapter") if adapter else None,
        adapter_base=(str(base.resolve()) if base.is_dir() else model) if adapter else None,
        base_revision=base_revision,
        benchmark_id=flags.benchmark_id,
    )


def base_card(card: ReleaseCard) -> ReleaseCard:
    """What the card of the model below an adapter says: what it has in common with the model, and its own scores."""
    from xvlm2vec.hub.card import ReleaseCard

    own = card.scores.get("teacher")
    return ReleaseCard(
        name=f"{card.name} (base)",
        repo_id=card.adapter_base,
        description=f"The model that the adapter of {card.name} was trained on, as it was before.",
        languages=("en",) if "en" in card.languages else (),
        base_model=card.base_model,
        licence=card.licence,
        versions=card.versions if own else {},
        scores={"student": own} if own else {},
        benchmark_id=card.benchmark_id,
    )


def hub_revision(model: str, revision: str | None = None) -> str | None:
    """The commit that a model's Hub id stands for at a revision, by default now; `None` for a folder."""
    if Path(model).is_dir():
        return None
    from xvlm2vec.hub.verify import download

    return download(model, revision).name


def card_scores(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """`{task: {language: {"p_at_1", "n", "ci95"}}}`; data set and style are named where there are several."""
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    varies = [name for name in ("dataset", "style") if len({row[name] for row in results.rows}) > 1]
    for row in results.rows:
        column = " ".join([row["task"], *(row[name] for name in varies)])
        scores.setdefault(column, {})[row["language"]] = {key: row[key] for key in ("p_at_1", "n", "ci95")}
    return scores


def english_drift(results: dict[str, Results]) -> dict[str, float]:
    """Student minus teacher on English in points, per task that both were scored on."""
    tables = [card_scores(results[name]) for name in ("student", "teacher") if name in results]
    if len(tables) < 2:
        return {}
    student, teacher = tables
    return {
        task: round(100 * (student[task]["en"]["p_at_1"] - teacher[task]["en"]["p_at_1"]), 1)
        for task in student
        if "en" in student[task] and "en" in teacher.get(task, {})
    }


def measured_emissions(folder: Path) -> dict[str, Any]:
    """What CodeCarbon measured in a training (`--report-to codecarbon`), as a card tells it; empty without it."""
    paths = [path for path in (folder / EMISSIONS_FILE, folder / "checkpoints" / EMISSIONS_FILE) if path.is_file()]
    if not paths:
        return {}
    with paths[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        grams = 1000 * sum(float(row["emissions"]) for row in rows)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{paths[0]} is no emissions file of CodeCarbon ({error}); remove it.") from error
    last = rows[-1] if rows else {}
    hardware = ", ".join(last[name] for name in ("gpu_model", "cpu_model") if last.get(name))
    place = last.get("country_name", "")
    return {
        "emissions": round(grams, 3),
        "source": "codecarbon",
        **({"hardware_used": hardware} if hardware else {}),
        **({"geographical_location": place} if place else {}),
    }
