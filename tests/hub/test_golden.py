from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.hub.golden import (
    GOLDEN_JSON,
    GOLDEN_VECTORS,
    ROWS,
    draw_checked,
    draw_image,
    golden_vectors,
    image_size,
    read_golden,
    write_golden,
)
from xvlm2vec.hub.saved_weights import GoldenError, weights_fingerprint

CHECKSUMS = {"disc": "05a1520888699d4b", "stripes": "7cb063044d5c6bb2", "checks": "16e0ba6620c740f1"}


def test_images_are_the_same_bytes_everywhere() -> None:
    found = {name: hashlib.sha256(draw_image(name, (48, 32)).tobytes()).hexdigest()[:16] for name in CHECKSUMS}
    assert found == CHECKSUMS
    with pytest.raises(ValueError, match="'moon'"):
        draw_image("moon", (8, 8))


def test_rows_cover_scripts_images_and_mixtures() -> None:
    assert len(ROWS) == 12
    assert len({row.name for row in ROWS}) == 12
    kinds = {(row.text is not None, len(row.images)) for row in ROWS}
    assert kinds == {(True, 0), (False, 1), (True, 1), (True, 2)}


def test_golden_files_hold_the_vectors_and_how_they_were_made(
    exported: Path, model: XVLM2VecModel, processor: XVLM2VecProcessor
) -> None:
    golden = read_golden(exported)
    texts = [row.text for row in golden.rows]
    image_list = draw_checked(golden)
    images = [[image_list[name] for name in row.images] for row in golden.rows]
    again = model.encode(text=texts, images=images, processor=processor, convert_to_tensor=True)
    assert golden.vectors.dtype == torch.float32
    assert torch.allclose(golden.vectors, again, atol=1e-5)
    assert golden.image_size == (32, 32)
    assert golden.made_with["dtype"] == "float32"
    assert golden.made_with["image_backend"] == "pil"
    assert golden.made_with["attn_implementation"] == "sdpa"
    assert golden.made_with["transformers"]
    assert golden.prompts == {"query": "Find the image: ", "document": ""}


def test_no_two_rows_have_the_same_vector(exported: Path) -> None:
    vectors = read_golden(exported).vectors
    likeness = vectors @ vectors.T - torch.eye(len(vectors))
    assert likeness.max() < 0.999


def test_writing_again_gives_the_same_bytes(export_copy: Path) -> None:
    before = [(export_copy / name).read_bytes() for name in (GOLDEN_JSON, GOLDEN_VECTORS)]
    write_golden(export_copy)
    assert [(export_copy / name).read_bytes() for name in (GOLDEN_JSON, GOLDEN_VECTORS)] == before


def test_a_half_precision_model_gets_float32_vectors_and_stays_as_it_is(
    model: XVLM2VecModel, processor: XVLM2VecProcessor
) -> None:
    half = copy.deepcopy(model).bfloat16().train()
    half.backbone.vision_model.eval()  # a part that stays frozen
    vectors = golden_vectors(half, processor, image_size(processor))
    assert half.dtype == torch.bfloat16
    assert half.training
    assert not half.backbone.vision_model.training
    exact = golden_vectors(copy.deepcopy(half).float(), processor, image_size(processor))
    assert torch.equal(vectors, exact)


def test_a_model_that_gives_nan_gets_no_golden_files(export_copy: Path, model: XVLM2VecModel, processor) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        next(broken.backbone.text_model.layers.parameters()).fill_(float("nan"))
    before = (export_copy / GOLDEN_JSON).read_bytes()
    with pytest.raises(GoldenError, match="text en"):
        write_golden(export_copy, broken, processor)
    assert (export_copy / GOLDEN_JSON).read_bytes() == before


def test_fingerprint_is_that_of_the_weights_not_of_the_shards(
    export_copy: Path, model: XVLM2VecModel, tmp_path: Path
) -> None:
    assert len(list(export_copy.glob("model-*.safetensors"))) > 1
    model.save_pretrained(tmp_path / "whole")
    assert weights_fingerprint(tmp_path / "whole") == weights_fingerprint(export_copy)
    shard = next(export_copy.glob("model-*.safetensors"))
    tensors = load_file(shard)
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, shard, metadata={"format": "pt"})
    assert weights_fingerprint(tmp_path / "whole") != weights_fingerprint(export_copy)
    shard.unlink()
    with pytest.raises(GoldenError, match=shard.name):
        weights_fingerprint(export_copy)


def test_damaged_golden_files_are_named(export_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match=r"has no golden\.json"):
        read_golden(tmp_path)
    (export_copy / GOLDEN_VECTORS).write_bytes(b"short")
    with pytest.raises(GoldenError, match="damaged"):
        read_golden(export_copy)


def test_missing_rows_and_other_images_are_noticed(export_copy: Path) -> None:
    content = json.loads((export_copy / GOLDEN_JSON).read_text(encoding="utf-8"))
    content["image_sha256"]["disc"] = "0" * 64
    (export_copy / GOLDEN_JSON).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(GoldenError, match="'disc'"):
        draw_checked(read_golden(export_copy))
    content["rows"].pop()
    (export_copy / GOLDEN_JSON).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(GoldenError, match="11 rows"):
        read_golden(export_copy)


def test_images_are_oblong_where_the_backbone_resizes() -> None:
    class Resizing:
        do_resize = True

    class Holder:
        image_processor = Resizing()

    assert image_size(Holder()) == (96, 64)  # type: ignore[arg-type]
    assert isinstance(draw_image("disc", (96, 64)), Image.Image)


def test_golden_files_of_earlier_releases_are_read(export_copy: Path) -> None:
    """Before images were called images, their keys were `pictures`, `picture_size` and `picture_sha256`."""
    path = export_copy / "golden.json"
    new = read_golden(export_copy)
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [{"name": row["name"], "text": row["text"], "pictures": row["images"]} for row in content.pop("rows")]
    size, checksums = content.pop("image_size"), content.pop("image_sha256")
    old = {"rows": rows, "picture_size": size, "picture_sha256": checksums, **content}
    path.write_text(json.dumps(old), encoding="utf-8")
    with pytest.warns(DeprecationWarning, match=r"picture_size in golden\.json is now called image_size"):
        golden = read_golden(export_copy)
    assert (golden.rows, golden.image_size, golden.image_sha256) == (new.rows, new.image_size, new.image_sha256)
    assert set(draw_checked(golden)) == set(checksums)
