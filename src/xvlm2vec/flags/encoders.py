"""Any model as the runner of evaluations takes it, by what a user calls it on the command line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xvlm2vec.modeling.hub_ids import is_path

from .models import has_two_towers, load_embedder, model_kind

if TYPE_CHECKING:
    from xvlm2vec.eval.encoders import Encoder

logger = logging.getLogger(__name__)

MTEB = "mteb:"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_encoder(
    source: str, *, dim: int | None = None, max_tokens: int = 16_384, batch_size: int = 32, trust: bool = False
) -> Encoder:
    """Any model that embeds.

    Args:
        source: Folder or Hub id of an `XVLM2VecModel`, of an adapter on one, of a model of sentence-transformers, or of
            a CLIP or SigLIP; `mteb:NAME` or a name that mteb knows; `package.module:function`.
        dim: Vectors are cut to this size.
        max_tokens: Rows times padded length of one forward pass of an `XVLM2VecModel`.
        batch_size: Rows of one forward pass of another model.
        trust: Whether the code in another model's repository may be run.

    Raises:
        ValueError: It does not embed, or cannot be cut to a size.
        FileNotFoundError: There is no such model.
    """
    kind = encoder_kind(source)
    if kind == "mteb":
        return _mteb(source.removeprefix(MTEB), dim, batch_size)
    if kind == "function":
        return _function(source, dim)
    if kind == "sentence-transformers":
        return _sentence_transformer(source, dim, batch_size, trust)
    return _embedder(source, dim, max_tokens)


def encoder_kind(source: str) -> Literal["mteb", "function", "sentence-transformers", "embedder"]:
    """What reads a model, from its name and its small files.

    Raises:
        FileNotFoundError: There is no such model.
    """
    if source.startswith(MTEB):
        return "mteb"
    if _FUNCTION.fullmatch(source) and not os.path.exists(source):
        return "function"
    try:
        kind = model_kind(source)
    except OSError as error:
        if not _mteb_knows(source):
            raise
        logger.info("%s is taken from mteb: %s", source, error)
        return "mteb"
    if kind == "sentence-transformers":
        return kind
    if kind == "backbone" and has_two_towers(source):
        return "sentence-transformers"
    return "mteb" if kind == "backbone" and _mteb_knows(source) else "embedder"


def _embedder(source: str, dim: int | None, max_tokens: int) -> Encoder:
    import torch

    from xvlm2vec.eval.encoders import ModelEncoder

    model, processor = load_embedder(source)
    model.to(torch.device(_device()))  # type: ignore[arg-type]  # transformers wraps `to`
    return ModelEncoder(model.eval(), processor, name=source, dim=dim, max_tokens_per_batch=max_tokens)


def _sentence_transformer(source: str, dim: int | None, batch_size: int, trust: bool) -> Encoder:
    from sentence_transformers import SentenceTransformer

    from xvlm2vec.eval.encoders import SentenceTransformerEncoder

    model = SentenceTransformer(source, trust_remote_code=trust, device=_device())
    _pad_as_trained(model, source)
    return SentenceTransformerEncoder(model, name=source, batch_size=batch_size, dim=dim)


def _pad_as_trained(model: Any, source: str) -> None:
    """Gives a SigLIP the padding that it was trained with, without which a vector depends on its batch."""
    from xvlm2vec.common.adoption.padding import pad_as_trained

    pad_to = pad_as_trained(model[0])
    if pad_to is not None:
        logger.warning(
            "%s pools the last of %d places, but its folder pads texts to their batch only. Every text is padded to "
            "%d, as in its training; otherwise vectors would depend on their batch.",
            source,
            pad_to,
            pad_to,
        )


def _mteb(name: str, dim: int | None, batch_size: int) -> Encoder:
    if not importlib.util.find_spec("mteb"):
        raise ImportError("models of mteb need it: pip install 'xvlm2vec[eval]'")
    import mteb

    from xvlm2vec.eval.mteb.models import MtebModelEncoder

    _refuse_dim(dim, name)
    try:
        meta = mteb.get_model_meta(name)
    except KeyError as error:
        raise ValueError(f"mteb knows no model {name!r}: {error.args[0] if error.args else error}") from error
    return MtebModelEncoder(meta.load_model(device=_device()), name=name, batch_size=batch_size)


def _mteb_knows(name: str) -> bool:
    if is_path(name) or "/" not in name or not importlib.util.find_spec("mteb"):
        return False
    import mteb

    return name in {meta.name for meta in mteb.get_model_metas()}


def _function(source: str, dim: int | None) -> Encoder:
    """A function, or an object that is an `Encoder`, named as entry points are; the working folder comes first."""
    from xvlm2vec.eval.encoders import CallableEncoder, is_encoder

    _refuse_dim(dim, source)
    module_name, _, name = source.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise FileNotFoundError(f"there is no Python module {error.name}, which {source} needs.") from error
    function = getattr(module, name, None)
    if function is None:
        raise ValueError(f"the module {module_name} has no {name}.")
    if is_encoder(function):
        return function
    if not callable(function):
        raise ValueError(f"{source} is a {type(function).__name__}; it must be a function (texts, images) -> vectors.")
    return CallableEncoder(function, name=source, fingerprint=_code_fingerprint(source, function, module))


def _code_fingerprint(source: str, function: Any, module: Any) -> str:
    """The function's own `fingerprint`, or a digest of its code and of what that refers to.

    Where that is a model, or anything else without known contents, the file of the module stands for all.
    """
    from xvlm2vec.eval.function_fingerprint import function_fingerprint

    if hasattr(function, "fingerprint"):
        return str(function.fingerprint)
    digest = function_fingerprint(function)
    if digest is not None:
        return f"{source} {digest}"
    path = getattr(module, "__file__", None)
    return f"{source} {hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ''}"


def _refuse_dim(dim: int | None, name: str) -> None:
    if dim is not None:
        raise ValueError(f"--dim cannot cut the vectors of {name}; --dims scores cut vectors of any model")


def _device() -> str:
    import torch

    from xvlm2vec.eval.processes import processes

    return processes().device or ("cuda" if torch.cuda.is_available() else "cpu")
