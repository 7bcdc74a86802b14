"""`xvlm2vec verify`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from xvlm2vec.flags import console

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Parses the flags; exit code 1 if a vector differs."""
    parser = console.parser(
        "verify",
        "Loads a model through AutoModel and SentenceTransformer, an adapter through PeftModel over its base, in fresh "
        "processes without this package, and compares the vectors of a dozen fixed rows with those stored beside it: "
        "alone and in batches, in float32 and bfloat16. Exit code 1 if a row differs. The code in the model's "
        "repository is run, in a process that is not given your token and whose Hub client is offline. An embedder "
        "of sentence-transformers without golden files is taken over and compared with itself, as by `xvlm2vec adopt`. "
        "Of activated adapters (distill --adapter activated) it is compared, bit for bit, whether they leave all "
        "vectors of their base as they are.",
        "xvlm2vec verify release/model\nxvlm2vec verify user/model@v1.0.0 --dtypes float32\n"
        "xvlm2vec verify --write runs/student",
    )
    parser.add_argument("path", metavar="PATH_OR_ID[@REVISION]", help="folder, or Hub id with or without a revision")
    parser.add_argument("--write", action="store_true", help="store the vectors of the model in this folder instead: "
                        "golden.json and golden.safetensors")  # fmt: skip
    parser.add_argument("--loaders", type=console.names, metavar="NAMES", help="automodel,sentence-transformers; "
                        "peft for an adapter; native without remote code (default: all that fit)")  # fmt: skip
    console.add_old_name(parser, "--doors", "--loaders", type=console.names)
    parser.add_argument("--dtypes", type=console.names, default=("float32", "bfloat16"), metavar="NAMES",
                        help="any of float32,bfloat16,float16 (default float32,bfloat16)")  # fmt: skip
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code from the folder of an embedder "
                        "without golden files, in this process")  # fmt: skip
    flags = parser.parse_args(console.with_help(arguments))
    console.set_up()
    if flags.write:
        return _write(flags.path)
    if _is_activated(flags.path) and not _is_released(flags.path):
        return _compare_with_base(flags.path)
    if _has_no_golden_files(flags.path):
        return _adopt(flags.path, flags.device, flags.trust_remote_code)
    from xvlm2vec.hub.verify import verify

    logger.info("Opening %s in fresh processes", flags.path)
    report = verify(flags.path, loaders=flags.loaders, dtypes=flags.dtypes, device=flags.device)
    console.show(report.table())
    return 0 if report.ok else 1


def _is_activated(path: str) -> bool:
    """Whether these are adapters that lie beside their base."""
    from xvlm2vec.flags.models import holds_activated

    source, _, revision = path.partition("@")
    return holds_activated(source, revision or None)


def _is_released(path: str) -> bool:
    """Whether a release wrote down what the vectors must be."""
    from xvlm2vec.flags.models import read_json

    source, _, revision = path.partition("@")
    return read_json(source, "golden.json", revision or None) is not None


def _compare_with_base(path: str) -> int:
    """Proves that adapters beside their base move none of its vectors."""
    from xvlm2vec.flags.models import base_below, load_below, load_embedder
    from xvlm2vec.hub.zero_drift import compare_with_base

    source, _, revision = path.partition("@")
    logger.info("Comparing %s with its base", path)
    model, processor = load_embedder(source, revision or None)
    result = compare_with_base(model, load_below(base_below(model)), processor)
    console.show(result.summary())
    return 0 if result.ok else 1


def _has_no_golden_files(path: str) -> bool:
    """Whether this is somebody's own embedder, which has none."""
    from xvlm2vec.flags.models import has_two_towers, model_kind

    source, _, revision = path.partition("@")
    if _is_released(path):
        return False
    kind = model_kind(source, revision or None)
    return kind == "sentence-transformers" or (kind == "backbone" and has_two_towers(source, revision or None))


def _adopt(path: str, device: str | None, trust: bool) -> int:
    """Proves that an embedder without golden files can be taken over as it is."""
    import torch

    from xvlm2vec.common.adoption.adopt import adopt
    from xvlm2vec.common.adoption.describe import describe

    source, _, revision = path.partition("@")
    logger.info("%s has no golden files: comparing it with its own SentenceTransformer", path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    console.show(describe(adopt(source, revision=revision or None, device=device, trust_remote_code=trust)))
    return 0


def _write(folder: str) -> int:
    from xvlm2vec.hub.golden import write_golden

    golden = write_golden(folder)
    console.show(f"Wrote golden.json and golden.safetensors in {folder}: {len(golden.rows)} rows of "
                 f"{golden.vectors.shape[1]} values")  # fmt: skip
    return 0
