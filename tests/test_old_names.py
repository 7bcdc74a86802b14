"""Names of the release before: they are read for one release, with a warning, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xvlm2vec.commands.corpus import _parser as corpus_parser
from xvlm2vec.commands.distill import FORM
from xvlm2vec.corpus.readers.records import LineFields
from xvlm2vec.flags.training import parse
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.losses import CrossModalAlignmentLoss


def test_the_size_of_the_image_cache(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="picture_cache_gb is now called image_cache_gb"):
        args = SelfDistillationConfig(output_dir=str(tmp_path), picture_cache_gb=2.0, use_cpu=True)
    assert args.image_cache_gb == 2.0
    settings = tmp_path / "run.yaml"
    settings.write_text("picture_cache_gb: 3\n")
    paths = ["--model", "m", "--data", "d", "--output", "o"]
    for words in (["--picture-cache-gb", "3"], ["--config", str(settings)]):
        with pytest.warns(DeprecationWarning, match="image_cache_gb"):
            parsed = parse(FORM, [*paths, *words])
        assert parsed.settings == {"image_cache_gb": 3.0}


def test_the_field_of_an_image() -> None:
    with pytest.warns(DeprecationWarning, match="image"):
        assert LineFields(picture="file") == LineFields(image="file")
    with pytest.warns(DeprecationWarning, match="--picture-field is now called --image-field"):
        flags = corpus_parser().parse_args(["jsonl", "a.jsonl", "--output", "o", "--picture-field", "file"])
    assert flags.image_field == "file"


def test_what_a_loss_is_called_with() -> None:
    texts, images = torch.eye(3), torch.eye(3)
    loss = CrossModalAlignmentLoss()
    expected = loss(student_lang=texts, teacher_image=images)
    with pytest.warns(DeprecationWarning, match="teacher_picture is now called teacher_image"):
        assert loss(student_lang=texts, teacher_picture=images) == expected
