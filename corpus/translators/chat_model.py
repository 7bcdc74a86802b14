"""Any chat model of transformers as a translator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xvlm2vec.corpus.rows import ENGLISH

from .chat import answer_text, check_languages, messages
from .engine import Answer
from .judging import accepted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ChatModel:
    """A chat model, asked greedily for one text at a time, many texts beside each other.

    Refusals, chatter and other faults that the rules of `corpus check` find are failures.

    Args:
        model: A model that generates text.
        tokenizer: Its tokenizer, which must have a chat template.
        batch_size: Texts at a time.
        max_new_tokens: Most tokens of an answer; a longer one is a failure, never truncated in silence.

    Raises:
        ValueError: There is no chat template.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        max_new_tokens: int = 256,
    ) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"{tokenizer.name_or_path or 'The model'} has no chat template, and is no translation model either: "
                "take a chat model, or a translation model such as NLLB or MADLAD."
            )
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        ends = model.generation_config.eos_token_id
        self._ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def check(self, languages: Sequence[str]) -> None:
        """Checks that there are such languages; whether the model speaks them only its answers tell."""
        check_languages(list(languages))

    def translate(self, texts: Sequence[str], language: str, source: str = ENGLISH) -> Iterator[Answer]:
        """See `Engine`; texts of like length together."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            yield from zip_answers(part, self._ask([texts[number] for number in part], language, source))

    def _ask(self, texts: list[str], language: str, source: str) -> list[tuple[str | None, str]]:
        answers = self._generate([messages(text, language, source) for text in texts])
        whole = [number for number, answer in enumerate(answers) if answer is not None]
        results: list[tuple[str | None, str]] = [
            (None, f"the answer was not at its end after {self.max_new_tokens} tokens") for _ in texts
        ]
        given = [texts[number] for number in whole]
        said = [answer_text(answers[number] or "", texts[number]) for number in whole]
        for number, result in zip(whole, accepted(given, said, language), strict=True):
            results[number] = result
        return results

    def _generate(self, conversations: list[list[dict[str, str]]]) -> list[str | None]:
        """The answers; None where one was not at its end."""
        import torch

        made: Any = self.tokenizer.apply_chat_template(
            conversations, add_generation_prompt=True, enable_thinking=False, tokenize=True, padding=True,
            return_dict=True, return_tensors="pt",
        )  # fmt: skip
        inputs = made.to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        answers = output[:, inputs["input_ids"].shape[1] :].tolist()
        is_whole = [any(token in self._ends for token in answer) for answer in answers]
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text if whole else None for text, whole in zip(texts, is_whole, strict=True)]


def zip_answers(numbers: Sequence[int], results: Sequence[tuple[str | None, str]]) -> Iterator[Answer]:
    """Results with the numbers of their texts."""
    for number, (text, problem) in zip(numbers, results, strict=True):
        yield number, text, problem
