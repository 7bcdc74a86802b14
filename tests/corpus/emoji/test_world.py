from __future__ import annotations

import copy
import hashlib
import pickle
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xvlm2vec.corpus.emoji.text import LANGUAGES
from xvlm2vec.corpus.emoji.world import SPLITS, TABLE, EmojiWorld, EmojiWorldConfig

FINGERPRINT = """
import hashlib
from xvlm2vec.corpus.emoji.training import contrastive_rows, parallel_rows
from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig
world = EmojiWorld.load(EmojiWorldConfig(concepts=64, image_size=32, languages=("en", "de", "ja", "ko")))
digest = hashlib.sha256(repr(sorted(world.withheld)).encode() + world.pair_splits.tobytes())
for row in contrastive_rows(world, {"c": 1, "vqa": 1, "vg": 1}, 96, 16, seed=3):
    digest.update((row["qry"] + row["pos_text"]).encode() + row["qry_image"].tobytes())
for row in parallel_rows(world, None, 60, seed=3):
    digest.update(repr({**row, "image": row["image"] and row["image"].tobytes()}).encode())
print(digest.hexdigest())
"""


def test_other_processes_make_the_same_world() -> None:
    answers = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={"PYTHONHASHSEED": hash_seed, "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(answers) == 1
    assert len(answers.pop().strip()) == 64


def test_images_follow_from_the_seed(world: EmojiWorld) -> None:
    seed = world.scene_seed("train", "x", 0)
    first, again = (world.render(world.compose((1, 2, 3), seed)) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert (first.mode, first.size) == ("RGB", (48, 48))
    other = world.render(world.compose((1, 2, 3), world.scene_seed("train", "x", 1)))
    assert first.tobytes() != other.tobytes()


def test_pickling_and_copying_keep_the_world(small_world: EmojiWorld) -> None:
    loaded = pickle.loads(pickle.dumps(small_world))
    assert loaded.config == small_world.config
    assert loaded.withheld == small_world.withheld
    assert len(pickle.dumps(small_world)) < 2000
    assert copy.deepcopy(small_world) is small_world


def test_no_image_is_constant(world: EmojiWorld) -> None:
    for index in range(300):
        scene = world.compose([index % len(world)], world.scene_seed("train", "constant", index))
        image = world.render(scene)
        assert np.asarray(image).std() > 1
        assert np.asarray(world.crop(image, scene.objects[0])).std() > 1


def test_objects_stand_from_left_to_right(world: EmojiWorld) -> None:
    for index in range(200):
        scene = world.compose(range(2 + index % 3), world.scene_seed("train", "order", index))
        xs = [thing.x for thing in scene.objects]
        assert xs == sorted(xs)
        assert min(b - a for a, b in pairwise(xs)) > 0.15
    with pytest.raises(ValueError, match="1 to 4 objects"):
        world.compose(range(5), 0)


def test_drawing_is_fast(world: EmojiWorld) -> None:
    scenes = [world.compose([i % 300, (7 * i + 1) % 300], world.scene_seed("train", "speed", i)) for i in range(2000)]
    for scene in scenes:
        world.render(scene)
    start = time.process_time()
    for scene in scenes:
        world.render(scene)
    assert (time.process_time() - start) / len(scenes) < 0.001, "a scene of 48 pixels takes about 0.1 ms"


def test_pairs_are_split_by_share(world: EmojiWorld) -> None:
    splits = world.pair_splits
    assert (splits == splits.T).all()
    assert (np.diag(splits) == -1).all()
    pairs = splits[np.triu_indices(len(world), 1)]
    shares = [float((pairs == place).mean()) for place in range(3)]
    assert shares == pytest.approx([0.85, 0.05, 0.10], abs=0.01)
    assert world.split_of(3, 5) == world.split_of(5, 3) == SPLITS[splits[3, 5]]


def test_pair_splits_do_not_depend_on_the_number_of_concepts(world: EmojiWorld, small_world: EmojiWorld) -> None:
    assert (world.pair_splits[:64, :64] == small_world.pair_splits).all()


def test_rendering_seeds_are_disjoint_between_splits(world: EmojiWorld) -> None:
    seeds = {split: {world.scene_seed(split, "s", i) for i in range(500)} for split in SPLITS}
    assert all(len(found) == 500 for found in seeds.values())
    assert all(seed % 4 == SPLITS.index(split) and seed < 2**62 for split, found in seeds.items() for seed in found)


def test_withheld_concepts_scale_with_the_world(world: EmojiWorld, small_world: EmojiWorld) -> None:
    assert len(world.withheld) == 24
    assert len(small_world.withheld) == 5
    assert small_world.config.taught_languages == ("de", "ja")
    assert small_world.config.control_languages == ("ko",)
    concept = min(world.withheld)
    assert not world.may_name(concept, "ja")
    assert world.may_name(concept, "fr")
    assert world.may_name(next(c for c in range(300) if c not in world.withheld), "ja")


def test_default_languages(world: EmojiWorld) -> None:
    config = world.config
    assert {"en", *config.taught_languages, *config.control_languages} == set(LANGUAGES)
    assert len(config.taught_languages) == 11


def test_names_and_captions(world: EmojiWorld) -> None:
    dolphin = world.names("en").index("dolphin")
    rooster = world.names("en").index("rooster")
    assert world.name(dolphin, "de") == "delfin"
    assert world.caption([dolphin, rooster], "de") == "delfin und hahn"
    assert world.emoji[rooster] == "🐓"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": ("en", "jp")}, "Unknown language code 'jp'.*Did you mean .*'ja'.*Known codes: en, de"),
        ({"taught_languages": ("xx",)}, "Unknown language code 'xx'"),
        ({"languages": ("de",)}, "must contain 'en'"),
        ({"taught_languages": ("ko",)}, "both taught and control: ko"),
        ({"concepts": 3}, "16 concepts"),
        ({"test_share": 0.9}, "less than 0.5"),
    ],
)
def test_bad_configurations(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        EmojiWorldConfig(**changes)


def test_unknown_language_of_a_world(small_world: EmojiWorld) -> None:
    with pytest.raises(ValueError, match=r"Unknown language code 'fr'.*Known codes: en, de, ja, ko"):
        small_world.name(0, "fr")


def test_too_many_concepts() -> None:
    with pytest.raises(ValueError, match="fewer than the 5000 asked for"):
        EmojiWorld.load(EmojiWorldConfig(concepts=5000))


def test_missing_and_damaged_tables_say_how_to_rebuild(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="corpus build-emoji"):
        EmojiWorld.load(table=tmp_path / "none.parquet")
    whole = TABLE.read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b""}.items():
        broken = tmp_path / f"{name}.parquet"
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged.*corpus build-emoji"):
            EmojiWorld.load(table=broken)


def test_tables_with_bad_content_say_how_to_rebuild(tmp_path: Path) -> None:
    table = pq.read_table(TABLE)
    place = table.column_names.index("image")
    garbage = table.set_column(place, "image", pa.array([b"no png"] * table.num_rows, pa.binary()))
    for name, bad in {"column": table.drop_columns(["name_ja"]), "garbage": garbage, "rows": table.slice(0, 0)}.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(bad, path)
        with pytest.raises(ValueError, match="corpus build-emoji"):
            EmojiWorld.load(table=path)


def test_seeds_change_the_world() -> None:
    config = EmojiWorldConfig(concepts=64, seed=1)
    first, second = EmojiWorld.load(config), EmojiWorld.load(EmojiWorldConfig(concepts=64))
    assert first.withheld != second.withheld
    assert (first.pair_splits != second.pair_splits).any()
    digests = [hashlib.sha256(str(w.scene_seed("train", "x", 0)).encode()).hexdigest() for w in (first, second)]
    assert digests[0] != digests[1]
