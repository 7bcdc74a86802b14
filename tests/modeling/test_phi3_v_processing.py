"""Pixels, sizes, token counts and ids of Phi-3.5-V against those of the original."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from xvlm2vec.modeling.image_processing_phi3_v import Phi3VImageProcessor, count_tokens
from xvlm2vec.modeling.processing_phi3_v import Phi3VProcessor

DATA = Path(__file__).parent / "data" / "phi3v"
CASES = json.loads((DATA / "cases.json").read_text(encoding="utf-8"))
RECORDED = json.loads((DATA / "image_processor.json").read_text(encoding="utf-8"))
IMAGES = {"1000x240": "wide", "250x700": "tall", "500x480": "square"}


def image(name):
    return Image.open(DATA / f"{name}.png")


@pytest.fixture(scope="module")
def processor():
    """Ids as recorded: bytes are `3 + byte`, BOS is 1, padding 32000."""
    letters = bytes_to_unicode()
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<|endoftext|>": 32000}
    vocabulary |= {letters[byte]: 3 + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<|endoftext|>"}
    return Phi3VProcessor(Phi3VImageProcessor(), PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special))


@pytest.mark.parametrize("key", list(RECORDED))
def test_sizes_and_token_counts(key):
    recorded = RECORDED[key]
    size, crops = key.split("_c")
    width, height = map(int, size.split("x"))
    batch = Phi3VImageProcessor(num_crops=int(crops)).preprocess(Image.new("RGB", (width, height), (9, 99, 199)))
    assert list(batch["pixel_values"].shape) == recorded["pixel_values_shape"]
    assert batch["image_sizes"].tolist() == recorded["image_sizes"]
    assert batch["num_img_tokens"].tolist() == recorded["num_img_tokens"]
    assert count_tokens(*recorded["image_sizes"][0]) == recorded["calc_from_size"]
    real = batch["pixel_values"][0].abs().sum((1, 2, 3)) > 0
    assert real.sum() == recorded["real_crops"]


@pytest.mark.parametrize("key", [key for key in RECORDED if key.split("_c")[0] in IMAGES])
def test_pixels_are_those_of_the_original(key):
    recorded = RECORDED[key]
    name, crops = IMAGES[key.split("_c")[0]], int(key.split("_c")[1])
    pixels = Phi3VImageProcessor().preprocess(image(name), num_crops=crops)["pixel_values"]
    assert pixels.double().mean().item() == pytest.approx(recorded["mean"], abs=1e-6)
    sums = pixels[0, : len(recorded["per_crop_sum"])].double().sum((1, 2, 3))
    assert torch.allclose(sums, torch.tensor(recorded["per_crop_sum"], dtype=torch.float64), atol=0.05, rtol=0)
    for found, field in [
        (pixels[0, 0, 0, 168, :8], "global_row168_first8_ch0"),
        (pixels[0, 1, 1, 168, 160:168], "crop1_row168_cols160_168_ch1"),
        (pixels[0, recorded["real_crops"] - 1, 2, 10, 300:308], "crop_last_real_row10_cols300_308_ch2"),
    ]:
        assert torch.allclose(found, torch.tensor(recorded[field]), atol=1e-3)
    assert hashlib.sha256(pixels.half().numpy().tobytes()).hexdigest() == recorded["sha256_fp16"]


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("case", list(CASES))
def test_ids_are_those_of_the_original(processor, case, nested):
    expected = load_file(DATA / "expected.safetensors")
    rows = [[image(name) for name in row["images"]] for row in CASES[case]]
    images = rows if nested else [one for row in rows for one in row]
    batch = processor(text=[row["prompt"] for row in CASES[case]], images=images)
    assert torch.equal(batch["input_ids"], expected[f"{case}.input_ids"])
    assert torch.equal(batch["attention_mask"], expected[f"{case}.attention_mask"].long())
    if f"{case}.image_sizes" in expected:
        assert torch.equal(batch["image_sizes"], expected[f"{case}.image_sizes"])
    else:
        assert "pixel_values" not in batch


def test_images_follow_their_tags(processor):
    wide, tall = image("wide"), image("tall")
    straight = processor("<|image_1|>a<|image_2|>b", [wide, tall])
    crossed = processor("<|image_2|>a<|image_1|>b", [tall, wide])
    plain = processor("<|image|>a<|image|>b", [[wide, tall]])
    for other in (crossed, plain):
        assert straight.keys() == other.keys()
        assert all(torch.equal(straight[key], other[key]) for key in straight)
    assert straight["image_sizes"].tolist() == [[336, 1344], [672, 336]]
    ids = straight["input_ids"][0]
    assert ((ids == -1).sum(), (ids == -2).sum(), (ids == 1).sum()) == (745, 469, 3)


def test_padding_side_and_length(processor):
    left = processor(["ab", "c"], padding_side="left", padding="max_length", max_length=5)
    assert left["input_ids"].tolist() == [[32000, 32000, 1, 100, 101], [32000, 32000, 32000, 1, 102]]
    assert left["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        (["a", "<|image_1|>b"], [[], []], r"Row 1: the prompt has 1 image tag\(s\), but 0"),
        ("a", [0], r"0 image tag\(s\), but 1"),
        (["a", "b"], [[0]], "2 rows of text, but 1 of images"),
        ("<|image_1|><|image_1|>", [0, 0], "Row 0: image tags must be numbered from 1 to 2"),
        ("<|image_1|><|image|>", [0, 0], "Row 0: image tags must be numbered"),
        (None, [0], "needs a text"),
    ],
)
def test_tags_and_images_that_do_not_match_are_errors(processor, text, images, message):
    images = [[image("wide")] * len(row) if isinstance(row, list) else image("wide") for row in images]
    with pytest.raises(ValueError, match=message):
        processor(text, images)


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "LA", "L", "1"])
def test_every_mode_becomes_rgb(mode):
    pixels = Phi3VImageProcessor().preprocess(image("square").convert(mode))["pixel_values"]
    assert pixels.shape == (1, 5, 3, 336, 336)
    assert pixels.isfinite().all()


def test_arrays_are_images_and_other_things_are_not():
    tall = image("tall")
    arrays = Phi3VImageProcessor().preprocess([np.array(tall)])
    assert torch.equal(arrays["pixel_values"], Phi3VImageProcessor().preprocess(tall)["pixel_values"])
    with pytest.raises(TypeError, match="float64 array"):
        Phi3VImageProcessor().preprocess(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="at least 1"):
        Phi3VImageProcessor().preprocess(tall, num_crops=0)


def test_an_extremely_long_image_keeps_one_line_of_pixels():
    assert Phi3VImageProcessor().preprocess(Image.new("RGB", (5000, 1)))["image_sizes"].tolist() == [[336, 1344]]


def test_saved_and_original_files_reload(processor, tmp_path):
    prompt, images = "<|image_1|>\nx", [image("wide")]
    processor.save_pretrained(tmp_path / "saved")
    again = Phi3VProcessor.from_pretrained(tmp_path / "saved")
    before, after = processor(prompt, images), again(prompt, images)
    assert all(torch.equal(before[key], after[key]) for key in before)

    processor.tokenizer.save_pretrained(tmp_path / "original")
    settings = {
        "auto_map": {"AutoImageProcessor": "processing_phi3_v.Phi3VImageProcessor"},
        "image_processor_type": "Phi3VImageProcessor",
        "num_crops": 16,
        "num_img_tokens": 144,
    }
    (tmp_path / "original" / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    published = Phi3VProcessor.from_pretrained(tmp_path / "original")
    assert published.image_processor.num_crops == 16
    assert published(prompt, images)["pixel_values"].shape[1] == 17
    assert Phi3VProcessor.from_pretrained(tmp_path / "original", num_crops=4).image_processor.num_crops == 4
