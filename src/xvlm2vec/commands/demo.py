"""`xvlm2vec demo`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xvlm2vec.flags import console

if TYPE_CHECKING:
    from xvlm2vec.hub.space import Place


def main(arguments: Sequence[str]) -> int:
    """Parses the flags, writes a Space into a temporary folder, and serves it until it is interrupted."""
    flags = _parser().parse_args(console.with_help(arguments))
    console.set_up()
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError('the demo needs Gradio: pip install "xvlm2vec[demo]"') from error
    from xvlm2vec.hub import space_app
    from xvlm2vec.hub.space import write_space

    model, benchmark = find_release(flags.path, flags.benchmark)
    with tempfile.TemporaryDirectory(prefix="xvlm2vec-demo-") as name:
        folder = write_space(Path(name) / "space", model, benchmark, title=flags.title or "xVLM2Vec image search")
        try:
            space_app.main(folder, flags.port, flags.open)
        except KeyboardInterrupt:
            console.show("Stopped.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "demo",
        "Serves a page on this machine that searches a benchmark's images with a text in any language, or with an "
        "image, and shows the scores before and after. It is the app that `release --space` pushes. Images are "
        "embedded once; their vectors are kept in the user's cache folder. The code in the model's repository is run.",
        "xvlm2vec demo runs/quickstart --open\nxvlm2vec demo user/my-embedder --benchmark user/my-embedder-benchmark",
    )
    parser.add_argument("path", metavar="PATH_OR_ID", help="a release or the folder of a run with one, or the Hub id "
                        "of a released model; with --benchmark also an embedder of sentence-transformers")  # fmt: skip
    parser.add_argument("--benchmark", metavar="PATH_OR_ID", help="folder or Hub id of the benchmark (default: beside "
                        "the model, or the id with -benchmark behind it)")  # fmt: skip
    parser.add_argument("--title", metavar="TEXT", help="title of the page")
    parser.add_argument(
        "--port", type=console.positive, metavar="N", help="port of the page (default: the first free one from 7860 on)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser


def find_release(path: str, benchmark: str | None = None) -> tuple[Place, Place]:
    """Model and benchmark of a release, of a run's folder, or of a Hub id.

    Raises:
        FileNotFoundError: There is no such folder, or a part is not in it.
        HubError: The Hub refused, or the connection broke.
    """
    from xvlm2vec.flags.models import snapshot
    from xvlm2vec.hub.space import Place
    from xvlm2vec.modeling.hub_ids import is_path

    if not is_path(path):
        small = ["*.json", "*.md"]  # the app downloads the weights itself
        return Place(snapshot(path, allow_patterns=small), path), _benchmark(benchmark or f"{path}-benchmark")
    folder = next((place for place in (Path(path, "release"), Path(path)) if (place / "model").is_dir()), None)
    if folder is None and benchmark is not None and _is_embedder(path):
        return Place(Path(path)), _benchmark(benchmark)
    if folder is None:
        raise FileNotFoundError(
            f"{path} holds no release: neither {path}/model nor {path}/release/model is a folder. `xvlm2vec release` "
            "writes one. Of an embedder of sentence-transformers, pass the images to search with --benchmark."
        )
    return Place(folder / "model"), _benchmark(benchmark or str(folder / "benchmark"))


def _is_embedder(path: str) -> bool:
    """Whether this is somebody's own embedder."""
    from xvlm2vec.flags.models import has_two_towers, model_kind

    if not Path(path).is_dir():
        return False
    try:
        kind = model_kind(path)
    except FileNotFoundError:
        return False
    return kind == "sentence-transformers" or (kind == "backbone" and has_two_towers(path))


def _benchmark(source: str) -> Place:
    from xvlm2vec.flags.models import dataset_folder
    from xvlm2vec.hub.space import Place
    from xvlm2vec.modeling.hub_ids import is_path

    return Place(dataset_folder(source), None if is_path(source) else source)
