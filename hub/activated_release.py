"""Releases a base with activated adapters beside it, in one repository, and proves that they move no vector."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers.dynamic_module_utils import custom_object_save

from xvlm2vec.modeling.adapters import HERE, AdapterBase
from xvlm2vec.modeling.language_adapters import languages_of, write_adapter, write_index
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.sentence_transformers_files import write_sentence_transformers_files

from .alora import AloraError, export_alora
from .card import ReleaseCard, write_card, write_license_note, write_scores
from .export import check_self_contained, check_weights, complete_config, describe_weights
from .golden import write_golden
from .staging import ExportError, staged_folder
from .zero_drift import compare_released

logger = logging.getLogger(__name__)

FOLDER_ABOVE = ".."
ALORA = "alora"


@dataclass(frozen=True)
class Below:
    """The model below activated adapters, loaded by itself.

    Args:
        model: The model.
        place: Its id and commit where it stays on the Hub; a base in a folder becomes part of the release.
    """

    model: XVLM2VecModel
    place: AdapterBase | None = None


def export_activated(
    model: XVLM2VecModel,
    processor: XVLM2VecProcessor,
    folder: str | os.PathLike[str],
    *,
    below: Below,
    card: ReleaseCard | None = None,
    max_shard_size: int | str = "5GB",
) -> Path:
    """Writes adapters with their base, or with its name, and all that their users need, and proves the zero.

    Args:
        model: The base with the adapters beside it.
        processor: Its processor.
        folder: Where to write: missing, empty, or an earlier export, which is replaced.
        below: The base by itself, as it was before.
        card: What to say in `README.md`.
        max_shard_size: Largest weights file.

    Raises:
        ExportError: The release would move a vector of the base, speaks no language, or does not load.
        LoadingFailed: It does not load in a fresh process.
    """
    if not languages_of(model):
        raise ExportError("the adapters speak no language, as none was trained; train them first.")
    card = card or ReleaseCard(name=Path(folder).name)
    with staged_folder(folder, "model") as staging:
        _write_base(below, staging, max_shard_size)
        processor.save_pretrained(staging)
        complete_config(staging / "config.json")
        place = below.place or AdapterBase(FOLDER_ABOVE)
        write_index(staging, sorted(model.language_adapters), **({} if below.place else {"base": HERE}))
        for name in model.language_adapters:
            write_adapter(model, name, staging / name, place)
        with_alora = _write_alora(model, processor, staging)
        golden = write_golden(staging, below.model, processor, speaker=model)
        drift = compare_released(staging, golden, below.model, processor)
        if not drift.ok:
            raise ExportError(drift.summary())
        write_card(
            staging,
            card,
            prompts=golden.prompts,
            image_size=golden.image_size,
            dims=golden.vectors.shape[1],
            weights=describe_weights(below.model),
            taught=drift.languages,
            zero_drift=drift.summary(),
            with_alora=with_alora,
            base_place=None if below.place is None else _spelled(below.place),
        )
        write_scores(staging, card)
        write_license_note(staging, card)
        check_self_contained(staging)
    return Path(folder)


def _write_alora(model: XVLM2VecModel, processor: XVLM2VecProcessor, folder: Path) -> bool:
    """Writes the adapters in PEFT's own form, too, where it has one for them."""
    try:
        for name in model.language_adapters:
            export_alora(model, processor, name, folder / ALORA / name)
    except AloraError as error:
        logger.info("The release has no %s folder for PEFT and servers: %s", ALORA, error)
        shutil.rmtree(folder / ALORA, ignore_errors=True)
        return False
    return True


def _spelled(place: AdapterBase) -> str:
    return f"`{place.source}`" + (f" at revision `{place.revision}`" if place.revision else "")


def _write_base(below: Below, folder: Path, max_shard_size: int | str) -> None:
    """The base's weights, configuration and code; without the weights where these stay on the Hub."""
    config = copy.deepcopy(below.model.config)
    if below.place is None:
        below.model.save_pretrained(folder, max_shard_size=max_shard_size)
        check_weights(folder)
    else:
        custom_object_save(below.model, folder, config=config)  # type: ignore[arg-type]  # as `save_pretrained` calls it
        config.save_pretrained(folder)
    write_sentence_transformers_files(folder, config, has_languages=True)
