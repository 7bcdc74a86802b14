"""What the export of benchmarks relies on in datasets, beside its documented interface."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, Features, Image, List
from datasets.table import embed_table_storage
from PIL import Image as PILImage


def test_images_of_a_table_are_taken_in_also_those_in_lists(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    PILImage.new("RGB", (2, 2)).save(path)
    features = Features({"image": Image(), "images": List(Image())})
    dataset = Dataset.from_dict({"image": [str(path)], "images": [[str(path)]]}, features=features)
    row = embed_table_storage(dataset.with_format("arrow")[:]).to_pylist()[0]
    assert row["image"]["bytes"] == row["images"][0]["bytes"] == path.read_bytes(), (
        "datasets.table.embed_table_storage no longer reads image files into a table: hub/dataset_export.py would "
        "publish the paths of this machine."
    )
