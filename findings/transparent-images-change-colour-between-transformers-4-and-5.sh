#!/usr/bin/env bash
# CLIP's image processor of transformers 4.57 gives a transparent PNG the pixels under its transparency, which are black in
# most files; that of 5.23 puts it on white. So the vectors of logos, icons and cut-out products change with an upgrade, and
# nothing says so. Met by who searches an index of such images with another transformers than the one that made it.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
for version in 4.57.3 5.23.0; do
  python3 -m venv "$version"
  "$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version" numpy==2.4.6 pillow==12.1.0
done
cat > run.py <<'PY'
import numpy as np, transformers
from PIL import Image, ImageDraw
try:
    from transformers import CLIPImageProcessorPil as Processor
except ImportError:
    from transformers import CLIPImageProcessor as Processor

drawing = Image.new("RGBA", (224, 224))
ImageDraw.Draw(drawing).ellipse((64, 64, 160, 160), fill=(220, 30, 30, 255))
processor = Processor(do_normalize=False)
pixels = np.asarray(processor(drawing, return_tensors="np")["pixel_values"])[0]
print(transformers.__version__, "corner (transparent):", [round(float(value), 2) for value in pixels[:, 0, 0]],
      "middle (red):", [round(float(value), 2) for value in pixels[:, 112, 112]])
PY
old=$(4.57.3/bin/python run.py 2>/dev/null); new=$(5.23.0/bin/python run.py 2>/dev/null)
echo "$old"; echo "$new"
[[ $old == *"(transparent): [0.0, 0.0, 0.0]"* && $new == *"(transparent): [1.0, 1.0, 1.0]"* ]] || { echo "the behaviour has changed"; exit 1; }
