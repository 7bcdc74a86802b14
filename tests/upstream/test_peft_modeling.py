"""What modeling/ takes PEFT for: an upgrade that breaks it fails here with one sentence."""

from __future__ import annotations

from dataclasses import fields

from peft import LoraConfig

from xvlm2vec.modeling.lora_settings import COMPUTED, WITHOUT_EFFECT

REFUSED = {
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
}
"""Settings that would change what is merged, and that no adapter of this package or of VLM2Vec uses."""


def test_every_field_of_an_adapter_is_listed() -> None:
    listed = COMPUTED | WITHOUT_EFFECT | REFUSED
    new = {field.name for field in fields(LoraConfig)} - listed
    assert not new, f"PEFT has new LoRA settings {sorted(new)}: say in modeling/lora_settings.py what becomes of them."


def test_the_lists_do_not_overlap() -> None:
    assert len(COMPUTED) + len(WITHOUT_EFFECT) + len(REFUSED) == len(COMPUTED | WITHOUT_EFFECT | REFUSED)
