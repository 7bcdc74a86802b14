"""Turns rows of text and images into a backbone's inputs, as the recipe of the model writes them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import BatchFeature, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save

from .adapter_starts import adapter_starts
from .arguments import check_options, template_options
from .backbone_processors import PROCESSOR_FILE, load_inner, load_plain
from .concurrency import CopyableLock, LockedTokenizer
from .families import Family, check_image_settings, check_layout, family_of
from .hub_files import hub_kwargs, read_json
from .image_marks import marked_family
from .images import load_image
from .messages import read_messages
from .padding import TokenRow, pad_rows, split_rows
from .processor_checks import check_beside, check_padding_side
from .recipe import Recipe, recipe_of
from .row_lengths import measure_rows
from .rows import TextImageRow, make_rows
from .token_inputs import token_inputs
from .towers import tower_inputs
from .truncation import UNCUT, Prompt, cut_texts


class XVLM2VecProcessor(ProcessorMixin):
    """Wraps the processor of any vision-language model and writes its prompts.

    Args:
        inner: The backbone's own processor.
        model_type: `model_type` of the backbone, or a layout of prompts; names its entry in `families`.
        allow_urls: Whether http(s) addresses are fetched as images.
        max_length: Longer rows lose the end of their text; by default the backbone's context. Saved with the processor.
        square: Pixels of the square into which every image is squeezed first, whatever its shape, where a model was
            trained like that. Saved with the processor.
        recipe: How rows are written where it is not the family's way, as by an embedder with a chat template. Saved
            with the processor.
    """

    def __init__(
        self,
        inner: ProcessorMixin,
        model_type: str,
        allow_urls: bool = False,
        max_length: int | None = None,
        square: int | None = None,
        recipe: Recipe | Mapping[str, Any] | None = None,
    ) -> None:
        self.inner = inner
        self.model_type = model_type
        self.allow_urls = allow_urls
        self.max_length = max_length
        self.square = square
        self.own_recipe = recipe if isinstance(recipe, Recipe | None) else Recipe.from_dict(recipe)
        self.chat_template = None
        self._warned_lengths: set[int | None] = set()
        self.lock = CopyableLock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"XVLM2VecProcessor(model_type={self.model_type!r}, inner={type(self.inner).__name__})"

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The wrapper holds one whole processor rather than the parts transformers would look for."""
        return []

    @cached_property
    def family(self) -> Family:
        """How this backbone's prompts are written: the entry of its family, with what its own processor says."""
        name = f"This {self.model_type!r} checkpoint"
        return marked_family(family_of(self.model_type), self.inner, name, reads_template=self.own_recipe is None)

    @cached_property
    def recipe(self) -> Recipe:
        """How rows are written: the recipe of this processor, or that of its family."""
        return self.own_recipe or recipe_of(self.family)

    @property
    def locked_tokenizer(self) -> LockedTokenizer:
        """The backbone's tokenizer, for calls in several threads."""
        return LockedTokenizer(self.inner.tokenizer, self.lock)

    @property
    def image_settings(self) -> dict[str, int | None]:
        """What changes the model's view of an image, under the names of `XVLM2VecConfig.image_settings`."""
        return {"square": self.square, "num_crops": getattr(self.inner.image_processor, "num_crops", None)}

    def other_images(self, trained: Mapping[str, int]) -> str:
        """In which settings a model saw images in another way, such as `"square=None for 1344"`; empty if in none."""
        given, expected = self.image_settings, check_image_settings(trained)
        return ", ".join(f"{key}={given[key]} for {value}" for key, value in expected.items() if given[key] != value)

    @property
    def model_input_names(self) -> list[str]:
        """Names of what a call may return."""
        return self.inner.model_input_names

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> XVLM2VecProcessor:
        """Loads a saved `XVLM2VecProcessor`, or wraps the processor of a plain vision-language checkpoint.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            **kwargs: `allow_urls`, `max_length`, `square`, `recipe`, `layout` (another entry of `families` than that of
                the backbone, as for `"qwen2_vl-vlm2vec"`), and what the backbone's processor and tokenizer take.

        Raises:
            ValueError: transformers knows no processor for the backbone, the layout is unknown or not that of the
                model in the same folder, or the folder holds an adapter only.
        """
        kwargs.pop("_from_auto", None)
        settings = {key: kwargs.pop(key) for key in ("allow_urls", "max_length", "square", "recipe") if key in kwargs}
        layout = check_layout(kwargs.pop("layout")) if kwargs.get("layout") else kwargs.pop("layout", None)
        hub = hub_kwargs(kwargs)
        saved = read_json(pretrained_model_name_or_path, PROCESSOR_FILE, hub)
        if "inner_class" in saved:
            wrapper = saved["xvlm2vec"]
            inner = load_inner(saved["inner_class"], pretrained_model_name_or_path, kwargs)
            saved_settings: dict[str, Any] = {key: wrapper.get(key) for key in ("max_length", "square", "recipe")}
            processor = cls(inner, layout or wrapper["model_type"], **(saved_settings | settings))
            if layout is None:
                check_beside(processor, pretrained_model_name_or_path, hub)
            return processor
        inner, model_type, context = load_plain(pretrained_model_name_or_path, layout, kwargs)
        return cls(inner, model_type, **{"max_length": context, **settings})

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Writes the backbone's processor files, and into `processor_config.json` what rebuilds this wrapper."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.inner.save_pretrained(folder)
        path = folder / PROCESSOR_FILE
        content = json.loads(path.read_text(encoding="utf-8"))
        content |= {
            "processor_class": type(self).__name__,
            "auto_map": {"AutoProcessor": f"processing_xvlm2vec.{type(self).__name__}"},
            "inner_class": type(self.inner).__name__,
            # Whether addresses are fetched is for the loading user to say, not for the files.
            "xvlm2vec": self._settings(),
        }
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        custom_object_save(self, folder)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        return [str(path)]

    def _settings(self) -> dict[str, Any]:
        """What rebuilds this wrapper around its inner processor."""
        settings = {"model_type": self.model_type, "max_length": self.max_length, "square": self.square}
        return settings if self.own_recipe is None else {**settings, "recipe": self.own_recipe.to_dict()}

    def __call__(
        self,
        text: str | Sequence[str | None] | None = None,
        images: Any = None,
        instruction: str | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepares a batch; rows may mix text, images, and both.

        Args:
            text: One string, or one string or `None` per row. A string is text, also where it looks like a path.
            images: One image, or per row an image, a list of images, or `None`; see `load_image`.
            instruction: Put where the recipe says, by default right before every row's text; never cut. `None`
                stands for the recipe's default one.
            max_length: Longer rows lose the end of their text, with one warning per value; by default the
                processor's `max_length` or its tokenizer's, whichever is smaller.
            **kwargs: As for `prepare`.

        Returns:
            `input_ids` and `attention_mask` `(B, L)` int64, and the images as the backbone takes them.

        Raises:
            ValueError: A row is empty, its text holds one of the backbone's image tokens, or what may not be cut
                is longer than `max_length`. The message names the row.
            ImageError: An image cannot be read; the message names the row.
            TypeError: An argument is unknown to the backbone's processor, too.
        """
        rows, _ = make_rows(text, images, instruction)
        return self._prepare_and_warn(rows, max_length=max_length, **kwargs)

    def prepare(
        self,
        rows: Sequence[TextImageRow],
        *,
        numbers: Sequence[Any] | None = None,
        max_length: int | None = None,
        padding: bool | str = True,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str = "pt",
        prompts: Mapping[str, str] | None = None,
        **image_options: Any,
    ) -> tuple[BatchFeature, int]:
        """Prepares a batch and counts the rows whose text was cut.

        Args:
            rows: The rows.
            numbers: How errors number the rows; by default from 0.
            max_length: As in a call.
            padding: `True`, `"longest"` or `"max_length"`.
            padding_side: `"left"` or `"right"`; by default the tokenizer's. Vectors do not depend on it.
            pad_to_multiple_of: The batch gets a width that this divides.
            return_tensors: Only `"pt"`.
            prompts: The `config.prompts` of a model with adapters for languages: the batch then has `adapter_starts`
                (see the function of this name), which the model needs beside a `language`.
            **image_options: Further arguments of the backbone's processor for images.

        Returns:
            The batch, and the number of rows whose text was cut.
        """
        if return_tensors != "pt" or padding not in (True, "longest", "max_length"):
            raise ValueError(
                "A batch is made of padded torch tensors: return_tensors='pt', padding=True or 'max_length'."
            )
        tokenizer, recipe = self.inner.tokenizer, self.recipe
        check_padding_side(self, padding_side)
        numbers = range(len(rows)) if numbers is None else numbers
        limit = self.limit(max_length)
        if prompts is None:
            tokens, extras, cut = self.token_rows(rows, numbers=numbers, max_length=max_length, **image_options)
        else:
            tokens, extras, _ = self.token_rows(rows, numbers=numbers, max_length=UNCUT, **image_options)
            extras |= {"adapter_starts": adapter_starts(self, rows, tokens, numbers, prompts)}
            tokens, cut = cut_texts(self, tokens, rows, numbers, limit)
        batch = pad_rows(
            tokens,
            pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
            side=padding_side or tokenizer.padding_side,
            width=recipe.pad_to or ((limit or 0) if padding == "max_length" else 0),
            multiple=1 if recipe.pad_to else pad_to_multiple_of or 1,
        )
        if recipe.attend_padding:
            batch["attention_mask"][:] = 1
        return BatchFeature({**batch, **extras}), cut

    def token_rows(
        self,
        rows: Sequence[TextImageRow],
        *,
        numbers: Sequence[Any] | None = None,
        max_length: int | None = None,
        **image_options: Any,
    ) -> tuple[list[TokenRow], dict[str, Any], int]:
        """Prepares rows without padding their tokens; the arguments are those of `prepare`.

        Returns:
            Each row's tokens, the images of all rows, and the number of rows whose text was cut.
        """
        image_options = {**self.recipe.image_options, **image_options}
        check_options(self.inner, image_options)
        numbers = range(len(rows)) if numbers is None else numbers
        limit = self.limit(max_length)
        images = [self._load(row, number) for row, number in zip(rows, numbers, strict=True)]
        prompts = [self.prompt_of(row, number) for row, number in zip(rows, numbers, strict=True)]
        tokenize = tower_inputs if self.recipe.two_towers else token_inputs
        tokens, extras = tokenize(self, prompts, images, numbers, image_options)
        for index, number in enumerate(numbers):
            if not len(tokens[index]["input_ids"]) and not (self.recipe.two_towers and images[index]):
                raise ValueError(
                    f"row {number}: the text is empty and the tokenizer adds nothing, so nothing is to embed."
                )
        tokens, cut = cut_texts(self, tokens, rows, numbers, limit)
        return tokens, extras, cut

    def prompt(self, text: str, images: int, row: int = 0) -> str:
        """What the backbone's own processor is given for a row without an instruction, with so many images.

        Raises:
            ValueError: As `prompt_of`.
        """
        string = self.prompt_of(TextImageRow(text, (None,) * images, ""), row).string
        return string.removesuffix(self.family.after_text)

    def prompt_of(self, row: TextImageRow, number: Any = 0) -> Prompt:
        """The string that stands for a row, and where its text lies.

        Raises:
            ValueError: The text or the instruction holds a token that would be taken for an image, the recipe has no
                form for such rows, or how an image is written is unknown.
        """
        recipe = self.recipe
        if row.images and recipe.image is None and not recipe.two_towers:
            raise ValueError(
                f"row {number} has an image, but {self.model_type!r} has no entry in `families` and no chat template "
                "here that writes one, so how its prompts show it is unknown; give it either."
                if self.inner.image_processor is not None
                else f"row {number} has an image, but this model embeds texts only."
            )
        most = self.family.most_images
        if most is not None and len(row.images) > most:
            raise ValueError(f"row {number} has {len(row.images)} images; a {self.model_type!r} model takes {most}.")
        written = recipe.instruction_of(row) + row.text
        marks = [token for token in (recipe.image, *self.family.reserved) if token and token in written]
        if marks:
            raise ValueError(f"row {number}: the text holds {marks[0]!r}, which stands for an image; take it out.")
        try:
            return recipe.render(row)
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error

    def row_lengths(self, rows: Sequence[TextImageRow]) -> list[int]:
        """Tokens of each row: exact for texts, and from their sizes for images, which are not decoded.

        Raises:
            ValueError: A row is bad; the message names it.
        """
        return [size.tokens for size in measure_rows(self, rows)]

    def apply_chat_template(  # type: ignore[override]
        self, conversation: Any, chat_template: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """What sentence-transformers calls: messages in, a batch out, without any chat mark-up.

        Args:
            conversation: One conversation or a list of them. A `system` message is the instruction; its text comes
                before the other texts. Contents are strings or lists of `{"type": "text" | "image", ...}`, with the
                image under any key under which transformers takes it.
            chat_template: Only `None`.
            **kwargs: As in a call, at the top or in `processor_kwargs` as transformers takes them.

        Raises:
            ValueError: A message holds what would be lost, or an argument has no meaning without a template.
            TypeError: An argument is unknown.
        """
        conversations = [conversation] if conversation and isinstance(conversation[0], dict) else conversation
        rows = [read_messages(index, messages) for index, messages in enumerate(conversations)]
        options = template_options({"chat_template": chat_template, **kwargs})
        return self._prepare_and_warn(rows, **options)

    def _prepare_and_warn(
        self, rows: Sequence[TextImageRow], max_length: int | None = None, **kwargs: Any
    ) -> BatchFeature:
        batch, cut = self.prepare(rows, max_length=max_length, **kwargs)
        limit = self.limit(max_length)
        if cut and limit not in self._warned_lengths:
            self._warned_lengths.add(limit)
            warn_cut(cut, len(rows), limit)
        return batch

    def limit(self, max_length: int | None = None) -> int | None:
        """The number of tokens a row may have. Tokenizers without a limit of their own name a huge number."""
        if max_length is not None:
            return max_length
        of_tokenizer = getattr(self.inner.tokenizer, "model_max_length", None)
        limits = [limit for limit in (self.max_length, of_tokenizer) if limit is not None and limit < 10**9]
        return min(limits) if limits else None

    @property
    def max_aspect_ratio(self) -> float | None:
        """The longest side of an image may be this many times the shortest."""
        return self.family.max_aspect_ratio if self.square is None else None

    def _load(self, row: TextImageRow, number: int) -> list[Any]:
        images = [
            load_image(
                image,
                allow_urls=self.allow_urls,
                name=f"row {number}, image {index}",
                max_aspect_ratio=self.max_aspect_ratio,
            )
            for index, image in enumerate(row.images)
        ]
        return images if self.square is None else [image.resize((self.square, self.square)) for image in images]

    def text_ids(self, strings: list[str]) -> list[Any]:
        """Token ids of rows without images, without padding."""
        if not strings:
            return []
        if self.family.texts_by_processor:
            with self.lock:
                batch = self.inner(text=strings, padding=True, return_tensors="pt")
            return [row["input_ids"] for row in split_rows(batch, ["input_ids"])]
        return self.locked_tokenizer(strings, add_special_tokens=self.recipe.special_tokens)["input_ids"]


def warn_cut(cut: int, rows: int, max_length: int | None) -> None:
    """Warns that texts were cut."""
    warnings.warn(f"The texts of {cut} of {rows} rows were cut to fit max_length={max_length} tokens.", stacklevel=4)
