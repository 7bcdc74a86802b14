"""What a release is made of: the flags of `xvlm2vec release`, or the folder of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.result_keys import CELL_KEYS

from .models import (
    TEACHER,
    adapter_base,
    base_below,
    holds_activated,
    is_quickstart,
    load_below,
    load_embedder,
    model_kind,
    put_adapter,
)
from .training_notes import loss_notes, measured_emissions, training_notes

if TYPE_CHECKING:
    import argparse

    from xvlm2vec.eval.results import Results
    from xvlm2vec.hub.card import ReleaseCard
    from xvlm2vec.hub.release import ReleaseInputs

RUN_FLAGS = ("adapter", "results", "before", "base_model", "merge")


def is_hub_id(place: str) -> bool:
    """Whether a place is `org/name` on the Hub; a folder with a slash in its path begins with `.`, `/` or `~`."""
    from xvlm2vec.modeling import hub_ids

    return place.count("/") == 1 and hub_ids.is_hub_id(place)


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

    extra = [f"--{name.replace('_', '-')}" for name in RUN_FLAGS if getattr(flags, name)]
    if extra:
        raise ValueError(
            f"{flags.model} is the folder of a run, which knows this itself: leave out {', '.join(extra)}."
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
    names = ("name", "description", "license", "languages", "datasets")
    changes: dict[str, Any] = {name: getattr(flags, name) for name in names if getattr(flags, name)}
    if flags.limits:
        changes["limits"] = (*inputs.card.limits, *flags.limits)
    base = inputs.base
    if base is not None and flags.license:
        base = replace(base, card=replace(base.card, license=flags.license))
    return replace(inputs, card=replace(inputs.card, **changes), base=base)


def _from_flags(flags: argparse.Namespace) -> ReleaseInputs:
    from xvlm2vec.hub.release import BaseInputs, ReleaseInputs

    source = flags.adapter or flags.model
    if holds_activated(source):
        if flags.adapter:
            _model_and_adapter(flags.model, flags.adapter)
        return activated_inputs(flags, source)
    if flags.merge:
        raise ValueError(
            f"--merge is for activated adapters, and {source} holds none; an adapter of --lora is merged anyway."
        )
    model_name, adapter = _model_and_adapter(flags.model, flags.adapter)
    revision = hub_revision(model_name, adapter_base(adapter).revision) if adapter else None
    card = release_card(flags, model_name, adapter, revision)
    model, processor = load_embedder(model_name, revision, flags.trust_remote_code)
    if adapter is None:
        return ReleaseInputs(model=model, processor=processor, card=card)
    base = None
    if Path(model_name).is_dir():
        base = BaseInputs(load_embedder(model_name)[0], base_card(card))
    adapted = put_adapter(model, adapter)
    return ReleaseInputs(model=adapted, processor=processor, card=card, adapter=adapted, base=base)


def activated_inputs(flags: argparse.Namespace, source: str) -> ReleaseInputs:
    """Model, processor and card of activated adapters: beside their base, or one of them merged into it.

    A base on the Hub is named by its id and commit; one in a folder becomes part of the release.

    Args:
        flags: The flags of `xvlm2vec release`.
        source: Folder or Hub id of the adapters.

    Raises:
        ValueError: It is not said which of several adapters is to be merged, or they belong to another base.
    """
    from dataclasses import replace

    from xvlm2vec.hub.activated_release import Below
    from xvlm2vec.hub.merged_adapter import measured_drift, merge_language
    from xvlm2vec.hub.release import ReleaseInputs
    from xvlm2vec.modeling.adapters import AdapterBase
    from xvlm2vec.modeling.language_adapters import languages_of

    model, processor = load_embedder(source)
    base = base_below(model)
    commit = hub_revision(base.source, base.revision)
    below = load_below(base)
    card = release_card(flags, base.source, source, commit)
    card = replace(card, adapter_id=None, adapter_base=None, languages=card.languages or ("en", *languages_of(model)))
    if flags.merge:
        languages = merge_language(model, None if flags.merge is True else flags.merge)
        card = replace(
            card, languages=flags.languages or ("en", *languages), drift=measured_drift(model, below, processor)
        )
        return ReleaseInputs(model=model, processor=processor, card=card)
    stays = commit is not None and model_kind(base.source, commit) == "xvlm2vec"
    place = AdapterBase(base.source, commit) if stays else None
    return ReleaseInputs(model=model, processor=processor, card=card, below=Below(below, place))


def _model_and_adapter(model: str, adapter: str | None) -> tuple[str, str | None]:
    """The model below and the adapter on it, if there is one; an adapter alone names the model below itself.

    Raises:
        ValueError: The adapter was trained on another model, which loads without a complaint and gives wrong vectors.
        FileNotFoundError: The model below is gone.
    """
    if adapter is None:
        return (adapter_base(model).source, model) if model_kind(model) == "adapter" else (model, None)
    base = adapter_base(adapter).source
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
        flags: The flags of `xvlm2vec release`.
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
        license=flags.license,
        datasets=flags.datasets,
        limits=flags.limits,
        losses=loss_notes(trained),
        hyperparameters=trained.get("settings", {}),
        versions=trained.get("versions") or (results["student"].versions if "student" in results else {}),
        scores={name: card_scores(table) for name, table in results.items()},
        english_change_points=english_change_points(results),
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

    scores = card.scores.get("teacher")
    return ReleaseCard(
        name=f"{card.name} (base)",
        repo_id=card.adapter_base,
        description=f"The model that the adapter of {card.name} was trained on, as it was before.",
        languages=("en",) if "en" in card.languages else (),
        base_model=card.base_model,
        license=card.license,
        versions=card.versions if scores else {},
        scores={"student": scores} if scores else {},
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
        scores.setdefault(column, {})[row["language"]] = {key: row[key] for key in CELL_KEYS}
    return scores


def english_change_points(results: dict[str, Results]) -> dict[str, float]:
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
