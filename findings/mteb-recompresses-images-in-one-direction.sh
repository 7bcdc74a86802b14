#!/usr/bin/env bash
# A data set of JPEGs in WIT's layout, read by mteb's two tasks of it: from image to text they are the files as published,
# from text to image they are decoded and compressed once more, so that the two directions embed different pixels and no
# cache of embeddings by content can share them. Met by who compares the directions, or counts images in a store.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check mteb==2.26.24 datasets==5.2.0 pillow==12.3.0 torch==2.13.0
cat > run.py <<'PY'
import io, pathlib
import datasets, mteb, numpy as np, PIL
from PIL import Image

data = pathlib.Path("wit/data")
data.mkdir(parents=True)
noise = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
buffer = io.BytesIO()
Image.fromarray(noise).save(buffer, "JPEG", quality=95)
columns = {"image_id": ["a"], "image": [{"bytes": buffer.getvalue(), "path": "a.jpg"}], "captions": [["noise"]]}
datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()).to_parquet(data / "en-00000-of-00001.parquet")

seen = {}
for name, part in (("WITT2IRetrieval", "corpus"), ("WITI2TRetrieval", "queries")):
    real = type(mteb.get_task(name))
    made = real.metadata.model_copy(update={"dataset": {"path": "wit", "revision": "1"}, "eval_langs": {"en": ["eng-Latn"]}})
    task = type(name, (real,), {"metadata": made})()
    task.load_data()
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    stored = task.dataset["en"]["test"][part].cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"]
    seen[name] = np.asarray(Image.open(io.BytesIO(stored)), dtype=int)
    print(name, "bytes as published:", stored == buffer.getvalue())
difference = np.abs(seen["WITT2IRetrieval"] - seen["WITI2TRetrieval"])
print("mteb", mteb.__version__, "datasets", datasets.__version__, "pillow", PIL.__version__)
print("largest and mean difference of a value of 255:", difference.max(), round(float(difference.mean()), 1))
assert difference.max() > 0, "both directions have the same pixels now"
PY
HF_HUB_OFFLINE=1 HF_HOME="$place/home" env/bin/python run.py
