"""What the files that are shipped to the Hub rely on in transformers, beside its documented interface."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedConfig
from transformers.dynamic_module_utils import get_relative_import_files

from xvlm2vec.modeling import configuration_xvlm2vec


def test_lines_of_a_docstring_name_files_of_a_release() -> None:
    files = {Path(file).name for file in get_relative_import_files(configuration_xvlm2vec.__file__)}
    assert {"modeling_xvlm2vec.py", "processing_xvlm2vec.py", "pack_forward.py"} <= files, (
        "transformers no longer counts the files that the docstring of configuration_xvlm2vec.py names as part of a "
        "release: two releases in folders of one name would share their code."
    )


def test_the_attention_of_one_part_can_be_set() -> None:
    config = PreTrainedConfig()
    config._attn_implementation = {"": "tree"}
    assert config._attn_implementation == "tree", (
        "transformers no longer takes {'': name} as the attention of one configuration without its parts: "
        "modeling/concurrency.py sets it so for packs."
    )
