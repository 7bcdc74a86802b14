from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xvlm2vec.common import store as store_module
from xvlm2vec.common.store import EmbeddingStore, StoreError, content_digest, row_key

KEYS = [row_key(f"text {i}") for i in range(10)]
VECTORS = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)


@pytest.fixture
def filled(tmp_path: Path) -> EmbeddingStore:
    store = EmbeddingStore(tmp_path, "model-1")
    store.add(KEYS[:4], VECTORS[:4])
    store.add(KEYS[2:], VECTORS[2:])
    return store


def reopen(store: EmbeddingStore, **kwargs) -> EmbeddingStore:
    return EmbeddingStore(store.folder.parent, store.fingerprint, **kwargs)


def shards(store: EmbeddingStore) -> list[Path]:
    return sorted(store.folder.glob("*.npy"), key=lambda path: path.stat().st_size)


def test_round_trip_in_any_order(filled: EmbeddingStore) -> None:
    again = reopen(filled)
    assert len(again) == 10
    assert again.width == 6
    assert KEYS[3] in again
    assert row_key("other") not in again
    order = [7, 0, 3, 3, 9]
    np.testing.assert_array_equal(again.get([KEYS[i] for i in order]), VECTORS[order])
    assert again.get([]).shape == (0, 6)
    with pytest.raises(KeyError):
        again.get([row_key("other")])


def test_models_do_not_mix(filled: EmbeddingStore) -> None:
    assert len(EmbeddingStore(filled.folder.parent, "model-2")) == 0


def test_reads_are_memory_mapped(filled: EmbeddingStore) -> None:
    assert all(isinstance(shard, np.memmap) for shard in reopen(filled)._shards)


def test_a_view_reads_what_is_asked_for(filled: EmbeddingStore) -> None:
    order = np.array([7, 0, 3, 3, 9])
    view = reopen(filled).view([KEYS[i] for i in order])
    assert view.shape == (5, 6)
    np.testing.assert_array_equal(view[1:3], VECTORS[order[1:3]])
    np.testing.assert_array_equal(view.select(np.array([4, 0]))[np.array([0])], VECTORS[[9]])
    np.testing.assert_array_equal(np.asarray(view), VECTORS[order])
    with pytest.raises(KeyError):
        filled.view([row_key("other")])


def test_another_width_is_refused(filled: EmbeddingStore) -> None:
    with pytest.raises(StoreError, match="width 6, the model gives 5"):
        reopen(filled).add([row_key("new")], np.ones((1, 5)))
    assert len(reopen(filled)) == 10


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_torn_shard_is_an_error_and_stays(filled: EmbeddingStore, size: int) -> None:
    torn = shards(filled)[-1]
    os.truncate(torn, torn.stat().st_size + size if size < 0 else size)
    content = torn.read_bytes()
    with pytest.raises(StoreError, match=f"{torn.name} is damaged; delete it"):
        reopen(filled)
    assert torn.read_bytes() == content
    torn.unlink()
    again = reopen(filled)
    assert len(again) == 4
    again.add(KEYS, VECTORS)
    np.testing.assert_array_equal(reopen(filled).get(KEYS), VECTORS)


@pytest.mark.parametrize("position", [0, 60, -3])
def test_changed_byte_is_an_error_that_names_the_file(filled: EmbeddingStore, position: int) -> None:
    path = shards(filled)[0]
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StoreError, match=path.name):
        reopen(filled)


def test_damaged_or_lost_meta(filled: EmbeddingStore) -> None:
    meta = filled.folder / "meta.json"
    meta.write_text("{")
    with pytest.raises(StoreError, match=r"meta.json is damaged"):
        reopen(filled)
    meta.unlink()
    with pytest.raises(StoreError, match=r"no meta\.json"):
        reopen(filled)


def test_nan_is_not_stored(filled: EmbeddingStore) -> None:
    with pytest.raises(StoreError, match="NaN"):
        filled.add([row_key("bad")], np.full((1, 6), np.nan))
    assert row_key("bad") not in reopen(filled)


def test_full_disk_leaves_the_store_as_it_was(filled: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        filled.add([row_key("new")], np.ones((1, 6)))
    assert len(reopen(filled)) == 10
    assert not list(filled.folder.glob("*.tmp"))


def test_old_drafts_are_removed(filled: EmbeddingStore) -> None:
    old, fresh = filled.folder / "a.npy.1.tmp", filled.folder / "b.npy.2.tmp"
    old.touch()
    fresh.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    reopen(filled)
    assert not old.exists()
    assert fresh.exists()


WRITER = """
import sys, itertools
import numpy as np
from xvlm2vec.common.store import EmbeddingStore, row_key
store = EmbeddingStore(sys.argv[1], "m")
for i in itertools.count():
    store.add([row_key(f"{i} {j}") for j in range(50)], np.full((50, 300), i, dtype=np.float32))
    print(i, flush=True)
"""


def test_kill_loses_at_most_the_last_call(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(5):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = max([last, *map(int, writer.stdout.read().split())])
    store = EmbeddingStore(tmp_path, "m")
    assert len(store) >= 50 * (last + 1)
    for i in range(last + 1):
        assert (store.get([row_key(f"{i} {j}") for j in range(50)]) == i).all()


def test_row_key_separates_its_parts() -> None:
    image = content_digest(Image.new("RGB", (2, 2)))
    keys = {
        row_key("a"), row_key("a", image), row_key(None, image), row_key("", image), row_key("ab", image),
    }  # fmt: skip
    assert len(keys) == 5
    assert row_key("a").hex()[:8] == "888cf09e", "stores that were written keep their rows"


def test_content_digest(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 3), "red")
    path = tmp_path / "a.png"
    image.save(path)
    assert content_digest(path) == content_digest(str(path))
    assert content_digest(image) == content_digest(image.copy()) != content_digest(Image.new("RGB", (3, 2), "red"))
    stored = {"bytes": path.read_bytes(), "path": "elsewhere.png"}
    assert content_digest(stored) == content_digest(path) == content_digest({"bytes": None, "path": str(path)})
    with pytest.raises(TypeError, match="not int"):
        content_digest(3)
