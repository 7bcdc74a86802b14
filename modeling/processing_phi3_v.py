"""Processor of Phi-3.5-V: prompts with image tags become ids in which placeholders are negative numbers."""

import os
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.processing_utils import MultiModalData

from .image_processing_phi3_v import Phi3VImageProcessor, tokens_of_size

TAG = re.compile(r"<\|image(?:_(\d+))?\|>")


class Phi3VProcessor(ProcessorMixin):
    """Joins the HD image processor and the tokenizer as the published embedding models were trained with them.

    Every chunk of text between images is tokenized alone and begins with its own BOS, no EOS is added, and the i-th
    image of a row is a run of `-i`.

    Args:
        image_processor: The image processor.
        tokenizer: The tokenizer; it needs BOS and padding tokens.
    """

    image_token = "<|image|>"
    """A tag that takes the row's next image; `<|image_1|>`, `<|image_2|>`, ... name them instead."""

    def __init__(self, image_processor: Phi3VImageProcessor, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(image_processor, tokenizer)

    @property
    def model_input_names(self) -> list[str]:
        """Names of what a call may return."""
        return ["input_ids", "attention_mask", "pixel_values", "image_sizes"]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> "Phi3VProcessor":
        """Loads the tokenizer and the image settings of a folder or Hub id, the original's files included.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            **kwargs: `num_crops`, and what the Hub client and the tokenizer take.
        """
        settings = {"num_crops": kwargs.pop("num_crops")} if "num_crops" in kwargs else {}
        kwargs.pop("_from_auto", None)
        tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)
        image_processor = Phi3VImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs, **settings)
        return cls(image_processor, tokenizer)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        padding: bool | str = True,
        padding_side: str = "right",
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        num_crops: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepares a batch; rows with and without images may be mixed.

        Args:
            text: One prompt or one a row, with a tag for every image.
            images: One image; or a flat list, dealt out to the rows by their tags; or one list (or `None`) a row.
            padding: As in tokenizers; longer rows than `max_length` are never cut.
            padding_side: `"right"`, as the published models were trained, or `"left"`.
            max_length: Length for `padding="max_length"`.
            pad_to_multiple_of: As in tokenizers.
            num_crops: Overrides the image processor's setting.
            return_tensors: `"pt"`, `"np"` or `None`.

        Returns:
            `input_ids` and `attention_mask` `(B, L)` int64; if there are images `pixel_values`
            `(P, num_crops + 1, 3, 336, 336)` float32 and `image_sizes` `(P, 2)` int64, in the order of placeholders.

        Raises:
            ValueError: There is no text, or tags and images do not match; the message names the row.
        """
        if text is None:
            raise ValueError("Phi-3.5-V needs a text for every row; an image alone is the prompt '<|image_1|>\\n'.")
        prompts = [text] if isinstance(text, str) else list(text)
        chunks, orders = zip(*(read_tags(prompt, row) for row, prompt in enumerate(prompts)), strict=True)
        rows = deal_images(images, [len(order) for order in orders])
        image_list = [row[index] for row, order in zip(rows, orders, strict=True) for index in order]
        features = self.image_processor.preprocess(image_list, num_crops=num_crops) if image_list else None
        counts = iter(features.pop("num_img_tokens").tolist() if features is not None else [])
        ids = [self._row_ids(row, [next(counts) for _ in order]) for row, order in zip(chunks, orders, strict=True)]
        batch = self.tokenizer.pad(
            {"input_ids": ids},
            padding=padding,
            padding_side=padding_side,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=True,
        )
        data: dict[str, Any] = {key: batch[key] for key in ("input_ids", "attention_mask")}
        return BatchFeature({**data, **(features or {})}, tensor_type=return_tensors)

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[tuple[int, int]] | None = None, num_crops: int | None = None
    ) -> MultiModalData:
        """Placeholders of images of these sizes (height, width), by the name that processors of transformers have."""
        limit = self.image_processor.num_crops if num_crops is None else num_crops
        sizes = image_sizes or ()
        return MultiModalData(
            num_image_tokens=[tokens_of_size(width, height, limit) for height, width in sizes],
            num_image_patches=[1] * len(sizes),
        )

    def _row_ids(self, chunks: Sequence[str], counts: Sequence[int]) -> list[int]:
        texts = self.tokenizer(list(chunks), add_special_tokens=False)["input_ids"]
        ids = [self.tokenizer.bos_token_id, *texts[0]]
        for number, (count, chunk) in enumerate(zip(counts, texts[1:], strict=True), start=1):
            ids += [-number] * count + [self.tokenizer.bos_token_id, *chunk]
        return ids


def read_tags(prompt: str, row: int = 0) -> tuple[list[str], list[int]]:
    """Splits a prompt at its image tags; `row` is its number in errors.

    Returns:
        The texts between the tags, one more than tags, and the index from 0 of the image that each tag shows.

    Raises:
        ValueError: Numbered and plain tags are mixed, or the numbers are not 1 to n, each once.
    """
    parts = TAG.split(prompt)
    numbers = parts[1::2]
    if all(number is None for number in numbers):
        return parts[::2], list(range(len(numbers)))
    order = [int(number) - 1 if number is not None else -1 for number in numbers]
    if sorted(order) != list(range(len(order))):
        tags = " ".join(match.group() for match in TAG.finditer(prompt))
        raise ValueError(f"Row {row}: image tags must be numbered from 1 to {len(order)}, each once; found {tags}.")
    return parts[::2], order


def deal_images(images: Any, counts: Sequence[int]) -> list[list[Any]]:
    """The list of images of each row.

    Args:
        images: Nothing, one image, a flat list for all rows, or one list (or `None`) a row.
        counts: The number of tags in each row.

    Raises:
        ValueError: Tags and images do not match; the message names the row.
    """
    flat = [] if images is None else list(images) if isinstance(images, list | tuple) else [images]
    if any(isinstance(entry, list | tuple) or entry is None for entry in flat):
        rows = [list(entry) if isinstance(entry, list | tuple) else [] if entry is None else [entry] for entry in flat]
        if len(rows) != len(counts):
            raise ValueError(f"There are {len(counts)} rows of text, but {len(rows)} of images.")
    elif len(flat) == sum(counts):
        remaining = iter(flat)
        rows = [list(islice(remaining, count)) for count in counts]
    else:
        raise ValueError(f"The prompts have {sum(counts)} image tag(s), but {len(flat)} image(s) were given.")
    for row, (row_images, count) in enumerate(zip(rows, counts, strict=True)):
        if len(row_images) != count:
            raise ValueError(
                f"Row {row}: the prompt has {count} image tag(s), but {len(row_images)} image(s) were given."
            )
    return rows


__all__ = ["Phi3VProcessor"]
