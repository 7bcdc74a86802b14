"""A recipe: how one embedder writes its rows, as data. Rendering is here; what reads recipes from models is not.

A row has one of three kinds, `text`, `image` and `image+text`, and for each kind a recipe has a form: a string with
the slots `{images}`, `{instruction}` and `{text}`. A second form, of the name `text+instruction` and so on, is for rows
with an instruction where these are written in another way, as by a chat template with a system turn of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from .families import Family
from .rows import TextImageRow
from .truncation import Prompt

KINDS = ("text", "image", "image+text")
WITH_INSTRUCTION = "+instruction"
FORMS = (*KINDS, *(kind + WITH_INSTRUCTION for kind in KINDS))
_SLOT = re.compile(r"(\{images\}|\{instruction\}|\{text\})")


@dataclass(frozen=True)
class Recipe:
    """How an embedder writes rows.

    Args:
        forms: Strings with slots, by the names of `FORMS`. A kind without a form is refused.
        image: What stands for one image, before the backbone's processor expands it.
        between_images: What stands between two images.
        default_instruction: Of rows that name no instruction; an empty one is chosen by an empty string.
        end_of_instruction: Put behind an instruction that does not end in a punctuation mark.
        strip_instruction: Whether instructions lose their outer white space.
        empty_text: Written for a row of nothing but an empty text.
        strip_text: Whether texts lose their outer white space.
        lower_text: Whether texts become lower case.
        special_tokens: Whether the tokenizer adds its own special tokens; `False` where the forms hold them all.
        pad_to: Tokens to which every text is padded, however short the batch is (SigLIP), or `None`.
        attend_padding: Whether the model sees this padding, as one that was trained without an attention mask does.
        image_options: Arguments of the backbone's processor for images, such as a budget of pixels.
        two_towers: Whether texts and images have a tower each: a row is then one of them.

    Raises:
        ValueError: A form has a name, a slot or a number of slots that it cannot have.
    """

    forms: Mapping[str, str]
    image: str | None = None
    between_images: str = ""
    default_instruction: str = ""
    end_of_instruction: str = ""
    strip_instruction: bool = False
    empty_text: str = ""
    strip_text: bool = False
    lower_text: bool = False
    special_tokens: bool = True
    pad_to: int | None = None
    attend_padding: bool = False
    image_options: Mapping[str, Any] = field(default_factory=dict)
    two_towers: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "forms", dict(self.forms))
        object.__setattr__(self, "image_options", dict(self.image_options))
        for name, form in self.forms.items():
            _check_form(name, form, self.two_towers)
        if not self.forms:
            raise ValueError(f"a recipe needs one form at least; forms are {', '.join(FORMS)}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from what `to_dict` gave, or from a YAML file.

        Raises:
            ValueError: A key is unknown: this version would write other prompts than those that are meant.
        """
        unknown = sorted(values.keys() - {each.name for each in fields(cls)})
        if unknown or "forms" not in values:
            fault = (
                f"has {', '.join(map(repr, unknown))}, which this version does not know" if unknown else "has no forms"
            )
            raise ValueError(f"the recipe {fault}; it may have {', '.join(each.name for each in fields(cls))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields that are not as by default, as plain data."""
        defaults = {each.name: each.default for each in fields(self)} | {"image_options": {}}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    def render(self, row: TextImageRow) -> Prompt:
        """The string that stands for a row, and where its text lies in it.

        Raises:
            ValueError: The recipe has no form for such rows.
        """
        slots = {"{images}": self.between_images.join([self.image or ""] * len(row.images))}
        slots["{instruction}"] = self.instruction_of(row)
        slots["{text}"] = self._text(row.text) or ("" if row.images else self.empty_text)
        string, start, stop = "", 0, 0
        for part in self._parts[self._form_name(row)]:
            if part == "{text}":
                start, stop = len(string), len(string) + len(slots[part])
            string += slots.get(part, part)
        return Prompt(string, start, stop)

    def instruction_of(self, row: TextImageRow) -> str:
        """The instruction that is written for a row; empty if none is."""
        instruction = self.default_instruction if row.instruction is None else row.instruction
        instruction = instruction.strip() if self.strip_instruction else instruction
        ends = not instruction or unicodedata.category(instruction[-1]).startswith("P")
        return instruction if ends else instruction + self.end_of_instruction

    def start_of_own(self, row: TextImageRow, prompt: Prompt) -> int:
        """Where in a row's string begins what is in the language of its text: the instruction, too, if that is so.

        A mark that always stands right before the text counts, so that the tokens that an adapter acts on begin alike
        in all rows, as servers want that look for them.
        """
        instruction = self.instruction_of(row)
        place = prompt.string.rfind(instruction, 0, prompt.start) if row.own_instruction and instruction else -1
        return prompt.start - len(self.start_mark) if place < 0 else place

    def shared_part(self, row: TextImageRow) -> str | None:
        """What of a row's string other texts over the same images may share: all through its last image.

        `None` where a text or nothing stands before the images, so that nothing of an image can be shared.
        """
        parts = self._parts[self._form_name(row)]
        if "{images}" not in parts or "{text}" in parts[: parts.index("{images}")]:
            return None
        front = replace_slots(parts[: parts.index("{images}")], self.instruction_of(row))
        return front + self.between_images.join([self.image or ""] * len(row.images))

    @property
    def shares_images(self) -> bool:
        """Whether images stand before the text in every form that has both."""
        names = [name for name in self.forms if name.startswith("image+text")]
        return all(self._parts[name].index("{images}") < self._parts[name].index("{text}") for name in names)

    @cached_property
    def start_mark(self) -> str:
        """What stands right before the text in every form that has one; empty where an image or instruction does."""
        forms = [parts for parts in self._parts.values() if "{text}" in parts]
        before = ["".join(parts[: parts.index("{text}")][-1:]) for parts in forms]
        shortest = min(before, key=len, default="")
        ends = (shortest[start:] for start in range(len(shortest)))
        mark = next((end for end in ends if all(part.endswith(end) for part in before)), "")
        return "" if _SLOT.search(mark) else mark

    @cached_property
    def _parts(self) -> dict[str, list[str]]:
        return {name: [part for part in _SLOT.split(form) if part] for name, form in self.forms.items()}

    def _form_name(self, row: TextImageRow) -> str:
        kind = kind_of(row)
        with_instruction = kind + WITH_INSTRUCTION
        if with_instruction in self.forms and self.instruction_of(row):
            return with_instruction
        if kind in self.forms:
            return kind
        if kind == "image+text" and self.two_towers:
            raise ValueError(
                "it has an image and a text, but this model has one tower for images and one for texts, and embeds "
                "either: make two rows of it."
            )
        raise ValueError(
            f"the model's recipe has no form for rows of the kind {kind!r}; it has {', '.join(self.forms)}."
        )

    def _text(self, text: str) -> str:
        text = text.strip() if self.strip_text else text
        return text.lower() if self.lower_text else text


def kind_of(row: TextImageRow) -> str:
    """The kind of a row, one of `KINDS`; an empty text beside an image counts for none."""
    if not row.images:
        return "text"
    return "image+text" if row.text else "image"


def replace_slots(parts: list[str], instruction: str) -> str:
    """Parts of a form without images and text, as a string."""
    return "".join(instruction if part == "{instruction}" else part for part in parts)


def recipe_of(family: Family) -> Recipe:
    """The recipe of a backbone that was trained without a chat template: images, instruction, text.

    Args:
        family: The backbone's family.
    """
    text = "{instruction}{text}" + family.after_text
    forms = {"text": family.before_text + text}
    if family.image is not None:
        front = family.before_images + "{images}" + family.after_images
        forms |= {"image": front + text, "image+text": front + text}
    return Recipe(forms, image=family.image)


def _check_form(name: str, form: str, two_towers: bool) -> None:
    if name not in FORMS:
        raise ValueError(f"a recipe has no form {name!r}; forms are {', '.join(FORMS)}.")
    kind = name.removesuffix(WITH_INSTRUCTION)
    needed = {"text": ("{text}",), "image": ("{images}",), "image+text": ("{images}", "{text}")}[kind]
    if two_towers and kind == "image":
        needed = ()
    several = [slot for slot in set(_SLOT.findall(form)) if form.count(slot) > 1]
    missing = [slot for slot in needed if slot not in form]
    if name.endswith(WITH_INSTRUCTION) and "{instruction}" not in form:
        missing.append("{instruction}")
    if several or missing:
        fault = f"has {several[0]} twice" if several else f"lacks {missing[0]}"
        raise ValueError(f"the form {name!r} of a recipe {fault}: {form!r}.")
