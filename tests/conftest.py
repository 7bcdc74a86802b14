"""What all tests share: one thread each, no hub, and skips that count as failures where the machine is complete."""

from __future__ import annotations

import os
import tempfile

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A session of tests has a cache of its own, and leaves none behind.
_CACHE = tempfile.TemporaryDirectory(prefix="xvlm2vec-tests-")
os.environ.setdefault("XVLM2VEC_CACHE", _CACHE.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs torchvision where it does not import, as PyPI's does not beside a CPU build of torch.

    Files with slow tests go first, so that of several workers none has a long one alone at the end.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    vision = [item for item in items if item.get_closest_marker("vision")]
    if vision and not _torchvision_imports():
        for item in vision:
            item.add_marker(pytest.mark.skip(reason="torchvision does not import here; `make vision` runs this test"))


def _torchvision_imports() -> bool:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With XVLM2VEC_NO_SKIPS set, a skipped test fails the run: something that should be installed is not."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("XVLM2VEC_NO_SKIPS") and skipped and exitstatus == 0:
        reporter.write_line(f"{len(skipped)} skipped tests count as failures (XVLM2VEC_NO_SKIPS)", red=True)
        session.exitstatus = 1
