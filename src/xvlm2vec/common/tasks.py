"""The tasks of the benchmarks, as people are told of them."""

TASK_TITLES: dict[str, str] = {
    "c": "Classification",
    "i2t": "Image to text",
    "t2i": "Text to image",
    "vqa": "Question answering",
    "vg": "Grounding",
}
