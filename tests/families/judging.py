"""What is asked of a family: vectors that depend on nothing but the row, and are those of the model's own prompt."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from xvlm2vec.modeling.loading import CheckpointError
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import check_sharing, token_groups
from xvlm2vec.modeling.rows import TextImageRow

SIZES = ((64, 64), (224, 160), (96, 130), (131, 97), (80, 192), (150, 150))
"""Width and height of the images: square, wide, tall; most of them become several tiles somewhere."""
COUNTED = ((64, 64), (224, 224), (640, 360), (360, 640))
"""Images whose tokens the table of families names."""
TEXTS = (
    "a red bicycle",
    "古いパン屋の壁に",
    "ein rotes Fahrrad lehnt an der Wand",
    "una bicicletta rossa è appoggiata al muro",
)
MIXED = (("both", 0), ("texts", 1), ("two images", 1), ("images", 2), ("texts", 0))
"""Rows of all kinds in one batch."""
SAME = 2e-6
"""1 - cosine below which two vectors of float32 are one."""
OTHER = 1e-6
"""1 - cosine above which two vectors are of different images: tiny models look at them from far away."""


@dataclass
class Verdict:
    """What was found about one type.

    Args:
        name: The `model_type`.
        status: `"right"`, `"refused"`, `"wrong"` or `"crash"`.
        reason: Why it is refused, or what is wrong.
        sharing: `"yes"`, or why texts do not share their images.
        tokens: Tokens of an image of each of `COUNTED`; `None` where it is refused.
        worst: Largest 1 - cosine to a row alone.
    """

    name: str
    status: str
    reason: str = ""
    sharing: str = ""
    tokens: list[int | None] = field(default_factory=list)
    worst: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def noise(number: int) -> Image.Image:
    """An image of noise in large spots, so that no resizing makes it grey."""
    width, height = SIZES[number % len(SIZES)]
    spots = np.random.default_rng(number).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return Image.fromarray(spots).resize((width, height), Image.Resampling.NEAREST)


def rows_of_every_kind() -> dict[str, list[TextImageRow]]:
    """Rows by kind; the images of each kind have unlike sizes."""
    return {
        "texts": [TextImageRow(text) for text in TEXTS],
        "images": [TextImageRow("", (noise(number),)) for number in range(5)],
        "both": [TextImageRow(text, (noise(number + 1),)) for number, text in enumerate(TEXTS)],
        "two images": [
            TextImageRow(TEXTS[0], (noise(0), noise(1))),
            TextImageRow(TEXTS[2], (noise(4), noise(3))),
            TextImageRow("", (noise(2), noise(2))),
        ],
    }


@dataclass(frozen=True)
class Prompt:
    """How a family's authors write rows, from which the reference's prompts are made.

    Args:
        image: One image, before the processor expands it.
        before: What stands before the images.
        after: What stands between images and text.
        texts: `"tokenizer"` or `"processor"`, whichever makes the tokens of a row without images; `None` where the
            authors have no such rows.
    """

    image: str = ""
    before: str = ""
    after: str = ""
    texts: str | None = "tokenizer"


def judge(name: str, folder: Path, prompt: Prompt, most: int = 5) -> Verdict:
    """Puts one checkpoint to the test.

    Args:
        name: The `model_type`.
        folder: The checkpoint.
        prompt: How its authors write rows.
        most: Rows of each kind: fewer where a single image takes seconds. Mixed rows are five in any case.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = XVLM2VecModel.from_backbone(folder, dtype=torch.float32)
        except CheckpointError as error:
            return Verdict(name, "refused", str(error))
        except Exception as error:
            return Verdict(name, "crash", f"loading: {said(error)}")
        trial = Trial(name, folder, model, prompt, most)
        return trial.verdict()


@dataclass
class Trial:
    """One checkpoint and what has been found about it."""

    name: str
    folder: Path
    model: XVLM2VecModel
    prompt: Prompt
    most: int = 5
    wrong: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    alone: dict[str, torch.Tensor] = field(default_factory=dict)
    worst: float = 0.0
    sharing: str = ""

    def verdict(self) -> Verdict:
        """Runs all checks, each as far as it goes."""
        kinds = rows_of_every_kind()
        mixed = [kinds[kind][number] for kind, number in MIXED]
        kinds = {kind: rows[: self.most] for kind, rows in kinds.items()} | {"mixed": mixed}
        tokens: list[int | None] = []
        for kind, rows in kinds.items():
            self.attempt(kind, lambda rows=rows, kind=kind: self.check_alone(kind, rows))
        self.attempt("other images", self.check_images_matter)
        for kind, rows in kinds.items():
            if kind in self.alone:
                for side in ("left", "right"):
                    self.attempt(f"{kind}, {side}", lambda k=kind, r=rows, s=side: self.check_batch(k, r, s))
                self.attempt(f"{kind}, encode", lambda k=kind, r=rows: self.check_encode(k, r))
        self.attempt("own prompts", lambda: self.check_own_prompts(kinds))
        self.attempt("ends", lambda: self.check_ends(kinds))
        self.attempt("sharing", self.check_sharing)
        self.attempt("mark in a text", self.check_marks_refused)
        self.attempt("tokens", lambda: tokens.extend(map(self.count_tokens, COUNTED)))
        status = "wrong" if self.wrong else "crash" if self.crashes else "refused" if self.refusals else "right"
        reasons = [*self.wrong, *self.crashes, *self.refusals]
        return Verdict(self.name, status, "; ".join(reasons), self.sharing, tokens, self.worst)

    def attempt(self, where: str, check: Callable[[], None]) -> None:
        """Runs one check; what it raises is a crash, but for an error that names the row."""
        try:
            check()
        except ValueError as error:
            if "images; a " in str(error):
                return  # one image a row is all that it takes
            named = "row" in str(error) and "rows together" not in str(error)
            (self.refusals if named else self.crashes).append(f"{where}: {said(error)}")
        except Exception as error:
            self.crashes.append(f"{where}: {said(error)}")

    def expect(self, where: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        """Notes vectors that are not the same."""
        far = distance(found, expected)
        self.worst = max(self.worst, far)
        if not far < SAME:
            self.wrong.append(f"{where}: {far:.0e}")

    def embed(self, rows: Sequence[TextImageRow], side: str | None = None) -> torch.Tensor:
        processor = self.model.processor
        inputs, _ = processor.prepare(rows, padding_side=side) if side else processor.prepare(rows)
        with torch.no_grad():
            return self.model(**inputs).embeddings.double()

    def check_alone(self, kind: str, rows: Sequence[TextImageRow]) -> None:
        self.alone[kind] = torch.cat([self.embed([row]) for row in rows])

    def check_images_matter(self) -> None:
        for kind in ("images", "both"):
            row = rows_of_every_kind()[kind][0]
            vectors = torch.cat([self.embed([TextImageRow(row.text, (flat(shade),))]) for shade in (0, 90, 255)])
            vectors = torch.cat([vectors, self.embed([TextImageRow(row.text, (noise(0),))])])
            for one in range(len(vectors)):
                for other in range(one):
                    if distance(vectors[one : one + 1], vectors[other : other + 1]) < OTHER * 1e-3:
                        self.wrong.append(f"{kind}: two images have one vector")
                        return

    def check_batch(self, kind: str, rows: Sequence[TextImageRow], side: str) -> None:
        self.expect(f"{kind}, {side}", self.embed(rows, side), self.alone[kind])

    def check_encode(self, kind: str, rows: Sequence[TextImageRow]) -> None:
        found = self.model.encode(
            text=[row.text if row.text or not row.images else None for row in rows],
            images=[list(row.images) or None for row in rows],
            convert_to_tensor=True,
        )
        self.expect(f"{kind}, encode", found.double(), self.alone[kind])

    def check_own_prompts(self, kinds: dict[str, list[TextImageRow]]) -> None:
        """Compares with the prompts that the family's authors write, through plain transformers."""
        reference = Reference(self.folder, self.model, self.prompt)
        for kind, rows in kinds.items():
            if kind not in self.alone or kind == "mixed" or (kind == "texts" and self.prompt.texts is None):
                continue
            for number, row in enumerate(rows[:3]):
                try:
                    expected = reference.vector(row.text, list(row.images))
                except ValueError:  # plain transformers does not take images of unlike shapes in one row
                    if kind != "two images":
                        raise
                    continue
                self.expect(f"{kind}, own prompt", self.alone[kind][number : number + 1], expected)

    def check_ends(self, kinds: dict[str, list[TextImageRow]]) -> None:
        """Rows with images begin and end with the special tokens with which texts do, unless with the image."""
        tokenizer = self.model.processor.inner.tokenizer
        text, both = (
            self.model.processor.prepare(kinds[kind][:1])[0]["input_ids"][0].tolist() for kind in ("texts", "both")
        )
        marks = tokenizer.convert_ids_to_tokens([both[0]])[0] in self.model.processor.family.reserved
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id}
        if {text[-1]} & special != {both[-1]} & special or (not marks and {text[0]} & special != {both[0]} & special):
            self.wrong.append(f"ends: {text[0]} ... {text[-1]} without an image, {both[0]} ... {both[-1]} with one")

    def check_sharing(self) -> None:
        """Where packs are accepted, rows of other images than those of the check have in them the vectors alone."""
        groups = [[TextImageRow(text, (noise(number),)) for text in TEXTS] for number in (2, 3)]
        report = check_sharing(self.model, self.model.processor, groups[0])
        self.sharing = "yes" if report.ok else report.reason or "?"
        if not report.ok:
            return
        rows = [TextImageRow(text, (noise(number),)) for number in (0, 1, 4, 5)[: self.most] for text in TEXTS]
        rows += [TextImageRow(text) for text in TEXTS]
        units = [rows[start : start + len(TEXTS)] for start in range(0, len(rows), len(TEXTS))]
        made, _ = token_groups(self.model.processor, units)
        packs = self.model.pack(made, 10**6)
        with torch.no_grad():
            found = torch.cat([self.model(pack=pack).embeddings for pack in packs]).double()
        order = torch.tensor([row for pack in packs for row in pack.rows]).argsort()
        self.expect("packs", found[order], torch.cat([self.embed([row]) for row in rows]))

    def check_marks_refused(self) -> None:
        """An image's own mark in a user's text is an error that names the row."""
        mark = self.model.processor.recipe.image or self.model.processor.inner.image_token
        try:
            self.model.processor.prepare([TextImageRow(f"a {mark} b")])
        except ValueError as error:
            if "row 0" not in str(error):
                self.wrong.append(f"mark in a text: {said(error)}")
            return
        self.wrong.append(f"a text may hold {mark!r}")

    def count_tokens(self, size: tuple[int, int]) -> int | None:
        row = TextImageRow("", (Image.new("RGB", size, (200, 30, 90)),))
        try:
            return int(self.model.processor.prepare([row])[0]["attention_mask"].sum())
        except ValueError:
            return None


class Reference:
    """The same checkpoint through plain transformers: its own processor and whole model, the last token's state."""

    def __init__(self, folder: Path, model: XVLM2VecModel, prompt: Prompt) -> None:
        self.inner, self.prompt = model.processor.inner, prompt
        whole = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.base = getattr(whole, "model", whole)
        forward = self.base.forward
        self.names = {*inspect.signature(inspect.unwrap(forward)).parameters, "pixel_values_images"}

    @torch.no_grad()
    def vector(self, text: str, images: list[Image.Image]) -> torch.Tensor:
        marks = self.prompt.before + self.prompt.image * len(images) + self.prompt.after
        inputs = self.with_images(marks + text, images) if images else self.without(text)
        inputs = {name: value for name, value in inputs.items() if name in self.names}
        inputs = {n: v.float() if getattr(v, "dtype", None) == torch.bfloat16 else v for n, v in inputs.items()}
        inputs["use_cache"] = False
        if self.base.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.zeros(1, 1, dtype=torch.long)
        seen: list[torch.Tensor] = []
        heads = [module.lm_head for module in self.base.modules() if hasattr(module, "lm_head")]
        handles = [head.register_forward_pre_hook(lambda _, states: seen.append(states[0])) for head in heads]
        outputs = self.base(**inputs)
        for handle in handles:
            handle.remove()
        states = getattr(outputs, "encoder_last_hidden_state", None)
        states = states if states is not None else getattr(outputs, "last_hidden_state", None)
        state = (seen[-1] if states is None else states)[:, -1].double()
        return torch.nn.functional.normalize(state, dim=-1)

    def with_images(self, prompt: str, images: list[Image.Image]) -> dict[str, Any]:
        options = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in self.names else {}
        nested = type(self.inner).__name__ != "GotOcr2Processor"
        return self.inner(text=[prompt], images=[images] if nested else images, return_tensors="pt", **options)

    def without(self, prompt: str) -> dict[str, Any]:
        made_by = self.inner if self.prompt.texts == "processor" else self.inner.tokenizer
        inputs = made_by(text=[prompt], return_tensors="pt")
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def flat(shade: int) -> Image.Image:
    return Image.new("RGB", (96, 96), (shade, 255 - shade, shade // 2))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest 1 - cosine of rows."""
    if found.shape != expected.shape:
        return float("inf")
    far = 1 - torch.nn.functional.cosine_similarity(found.double(), expected.double(), dim=-1)
    return float(far.max()) if bool(far.isfinite().all()) else float("inf")


def said(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error)[:300]}".replace("\n", " ")
