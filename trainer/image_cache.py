"""What a frozen vision tower made of an image, kept on disk for the next epoch."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState, TrainingArguments

from xvlm2vec.common.files import readable_size, replaced_file
from xvlm2vec.common.fingerprint import fingerprint, saved_digest
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import ImageStates
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .disk_space import bytes_to_come, free_bytes
from .vision_parameters import vision_modules

logger = logging.getLogger(__name__)

FOLDER = "image-states"


class DiskCache:
    """One file for each row's states, by what they were computed from, up to a number of bytes.

    Nothing is ever dropped: rows come in another order in each epoch, so that those kept first are as good as any.

    Args:
        folder: Where the files lie.
        budget: Bytes of all of them.
    """

    what = "rows"
    """What a warning calls them."""

    def __init__(self, folder: str | Path, budget: int) -> None:
        self.folder, self.budget = Path(folder), budget
        self.folder.mkdir(parents=True, exist_ok=True)
        self.used = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def read(self, digest: bytes, device: torch.device) -> dict[str, torch.Tensor] | None:
        """The tensors of a row, or `None` if they are not here."""
        try:
            return load_file(self._path(digest), device=str(device))
        except (OSError, SafetensorError):  # not here, or cut off when the machine stopped
            return None

    def write(self, digest: bytes, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps the tensors of a row if there is room."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        path = self._path(digest)
        if self.used + size > self.budget or path.exists():
            return
        try:
            with replaced_file(path, flush=False) as draft:
                save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, draft)
        except (OSError, SafetensorError) as error:
            self.budget = 0
            logger.warning("No more %s are kept for the next epoch: %s", self.what, error)
            return
        self.used += size

    def _path(self, digest: bytes) -> Path:
        # The digests of several images on end would be too long for a file's name.
        return self.folder / f"{hashlib.sha256(digest).hexdigest()}.safetensors"


class ImageCache(DiskCache):
    """What a frozen vision tower made of each row's images, by their content."""

    what = "images"

    def get(self, digest: bytes, device: torch.device) -> ImageStates | None:
        """The states of a row's images, or `None` if they are not here."""
        tensors = self.read(digest, device)
        if tensors is None:
            return None
        listed = tensors.pop("listed", None) is not None
        layers: dict[str, list[torch.Tensor]] = {}
        for name in sorted(tensors):
            layers.setdefault(name.partition(".")[0], []).append(tensors[name])
        states, *deep = (tuple(parts) for parts in layers.values())
        return ImageStates(states, tuple(deep), listed)

    def put(self, digest: bytes, images: ImageStates) -> None:
        """Keeps the states of a row's images if there is room, and if they are all that the tower gave."""
        if images.others:
            return
        layers = (images.states, *images.deepstack)
        tensors = {f"{i:03}.{j:03}": part for i, parts in enumerate(layers) for j, part in enumerate(parts)}
        self.write(digest, {**tensors, **({"listed": torch.ones(1)} if images.listed else {})})


class UsesCache(Protocol):
    """What computes with kept states where there are some, as `forward_passes.Passes` does."""

    embedder: XVLM2VecModel
    cache: ImageCache | None


class KeepImages(TrainerCallback):
    """Gives a training of several epochs a `ImageCache`, and removes it at the end.

    It lies beside the checkpoints, so that a resumed run reads the very states that the interrupted one computed. What
    checkpoints and final model will need of the disk is left to them, and processes share what remains.

    Args:
        passes: Gets the cache.
        processor: Prepares the images.
        budget: Bytes.
    """

    folder = FOLDER

    def __init__(self, passes: UsesCache, processor: XVLM2VecProcessor, budget: int) -> None:
        self.passes, self.processor, self.budget = passes, processor, budget

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Opens the cache if a row will be seen again."""
        if state.num_train_epochs > 1 and self.budget:
            cache = self._open(Path(str(args.output_dir)) / self.folder / self._name(args))
            room = free_bytes(cache.folder) - bytes_to_come(kwargs["model"], args, state)
            if room < self.budget - cache.used:
                size = readable_size(max(room, 0))
                logger.warning("The disk has room for no more than %s of the states of %s.", size, cache.what)
            more = max(min(self.budget - cache.used, room), 0)
            cache.budget = cache.used + more // args.world_size

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Removes it."""
        self._close()
        if state.is_world_process_zero:
            shutil.rmtree(Path(str(args.output_dir)) / self.folder, ignore_errors=True)

    def _open(self, folder: Path) -> DiskCache:
        self.passes.cache = ImageCache(folder, self.budget)
        return self.passes.cache

    def _close(self) -> None:
        self.passes.cache = None

    def _name(self, args: TrainingArguments) -> str:
        """Changes whenever the states would: with weights, settings and number format."""
        weights = {
            f"{place}.{name}": value
            for place, part in enumerate(vision_modules(self.passes.embedder))
            for name, value in part.state_dict().items()
        }
        settings = {"processor": saved_digest(self.processor), "bf16": args.bf16, "fp16": args.fp16}
        return fingerprint(settings, weights)[:16]
