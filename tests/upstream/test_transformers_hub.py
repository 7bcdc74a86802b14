"""What the golden files rely on in transformers, beside its documented interface."""

from __future__ import annotations

from transformers import LlamaConfig


def test_a_configuration_tells_its_attention() -> None:
    config = LlamaConfig(attn_implementation="eager")
    assert getattr(config.get_text_config(), "_attn_implementation", None) == "eager", (
        "transformers no longer tells the attention of a configuration by _attn_implementation: hub/golden.py and "
        "hub/loader_check.py write it into the golden files."
    )
