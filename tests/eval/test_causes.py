"""What misses come from, on a model whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from xvlm2vec.eval.causes import bare_text
from xvlm2vec.eval.encoders import CallableEncoder
from xvlm2vec.eval.ranking import RankingTask, Row
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.runner import Extras, evaluate

ITEMS = 24
EYE = np.eye(ITEMS, dtype=np.float32)
INSTRUCTION = "find: {text}!"
IMAGES = {str(i): Image.new("RGB", (2, 2), (10 * i, 0, 0)) for i in range(ITEMS)}


def task(code: str, direction: str, captions: int = 1) -> RankingTask:
    """Images by number, and texts such as `de 3`, or `de 3.1` where an image has more than one."""
    owners = np.repeat(np.arange(ITEMS), captions)
    names = [f"{owner}.{i % captions}" if captions > 1 else str(owner) for i, owner in enumerate(owners)]
    texts = [Row(INSTRUCTION.replace("{text}", f"{code} {name}")) for name in names]
    images = [Row(None, name) for name in IMAGES]
    if direction == "t2i":
        sides, golds, wrap = (texts, images), [[int(owner)] for owner in owners], (INSTRUCTION, "")
    else:
        sides, golds, wrap = (
            (images, texts),
            [np.flatnonzero(owners == i).tolist() for i in range(ITEMS)],
            ("", INSTRUCTION),
        )
    return RankingTask("B", "d", direction, code, "plain", *sides, golds, IMAGES, whole_pool=True, instructions=wrap)


def embed(texts: list, images: list) -> np.ndarray:
    """Half of a vector is an image, the other half what a text says.

    English texts 12 to 23 point to the wrong image. Of the German ones, 6 to 17 do so, and 18 to 23 also say something
    else than they should.
    """

    def vector(text: str | None, image: Image.Image | None) -> np.ndarray:
        if image is not None:
            return np.concatenate([EYE[np.asarray(image)[0, 0, 0] // 10], np.zeros(ITEMS)])
        code, _, name = bare_text(text, INSTRUCTION).partition(" ")
        item = int(name.split(".")[0])
        wrong = (item + 1) % ITEMS
        seen = item if item < {"en": 12, "de": 6}[code] else wrong
        said = wrong if code == "de" and item >= 18 else item
        return np.concatenate([EYE[seen], 3 * EYE[said]])

    return np.stack([vector(*row) for row in zip(texts, images, strict=True)])


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each letter that it knows; all of English and digits, but no `d`."""
    vocabulary = {letter: i for i, letter in enumerate("?en0123456789 ")}
    inner = Tokenizer(models.BPE(vocabulary, [], unk_token="?"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")


def scored(direction: str = "t2i", captions: int = 1, codes: tuple[str, ...] = ("en", "de")) -> Results:
    encoder = CallableEncoder(embed, name="known", fingerprint="1")
    encoder.tokenizer = tokenizer()
    tasks = [task(code, direction, captions) for code in codes]
    return evaluate(encoder, tasks, bootstrap=10, progress=False, extras=Extras(examples=ITEMS))


def test_text_english_and_image_are_told_apart() -> None:
    results = scored()
    german = results.select(language="de")[0]["misses"]
    assert (german["n"], german["missed"], german["translation_at_1"]) == (ITEMS, 18 / ITEMS, 18 / ITEMS)
    assert [german[part] for part in ("image", "english", "text")] == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert (german["translation_rank"], german["rank"]) == (1, 13)  # all images but the one that is seen are level
    assert "misses" not in results.select(language="en")[0]
    items = {example["row"]: example["item"] for example in results.examples if example["language"] == "de"}
    assert items[3] == {"text": "de 3", "english": "en 3", "translation_rank": 1}
    assert items[20]["translation_rank"] > 1


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_any_english_caption_of_the_image_is_its_translation(direction: str) -> None:
    german = scored(direction, captions=2).select(language="de")[0]["misses"]
    assert german["translation_at_1"] == 18 / ITEMS, "both captions have one vector: either would be half of a hit"


def test_nothing_is_split_without_english_or_parallel_rows() -> None:
    assert "misses" not in scored(codes=("de",)).rows[0]
    apart = [task(code, "t2i") for code in ("en", "de")]
    for one in apart:
        one.parallel = False
    results = evaluate(embed, apart, bootstrap=10, progress=False)
    assert [set(row) & {"misses", "tokens"} for row in results.rows] == [set(), set()]


def test_tokens_are_those_of_texts_without_instructions() -> None:
    english, german = (scored().select(language=code)[0]["tokens"] for code in ("en", "de"))
    letters = sum(len(f"en {i}") for i in range(ITEMS))
    assert english == {"texts": ITEMS, "per_character": 1, "unknown": 0, "bytes": 0}
    assert german == {"texts": ITEMS, "per_character": 1, "unknown": ITEMS / letters, "bytes": 0, "over_english": 1}


@pytest.mark.parametrize(
    ("instruction", "text"),
    [("find: {text}!", "find: a dog!"), ("find: {text}.", "find: a dog"), ("{text}\n", "a dog"), ("{text}", " a dog")],
)
def test_a_text_without_its_instruction(instruction: str, text: str) -> None:
    assert bare_text(text, instruction) == "a dog", "styles change how texts end"
