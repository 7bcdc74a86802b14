"""Private names of transformers that modeling/ uses: an upgrade that breaks one fails here with one sentence."""

from __future__ import annotations

import inspect
from unittest.mock import patch

import torch
from transformers import (
    Idefics3Processor,
    Lfm2Config,
    LlavaConfig,
    LlavaNextProcessor,
    PreTrainedModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3_5TextConfig,
    core_model_loading,
)
from transformers.models.auto import processing_auto
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet
from transformers.utils import PushToHubMixin, extract_commit_hash

from xvlm2vec.modeling.state_forks import States, cache_name, is_mixer


def test_push_hook() -> None:
    names = list(inspect.signature(PushToHubMixin._upload_modified_files).parameters)
    assert names[:2] == ["self", "working_dir"], "transformers calls another hook before it uploads: see push_to_hub."
    for method in (PushToHubMixin.push_to_hub, PreTrainedModel.save_pretrained):
        source = inspect.getsource(method)
        assert "self._upload_modified_files(" in source, f"{method.__qualname__} no longer uploads through our hook."


def test_recurrent_layers_take_and_give_states() -> None:
    config = Qwen3_5TextConfig(
        hidden_size=16,
        linear_num_key_heads=1,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    convolution = Lfm2Config(hidden_size=16, num_hidden_layers=1, layer_types=["conv"])
    torch.manual_seed(0)
    rows = torch.randn(2, 12, 16)
    for mixer in (Qwen3_5GatedDeltaNet(config, 0), Lfm2ShortConv(convolution, 0)):
        name = type(mixer).__name__
        assert is_mixer(mixer), f"{name} takes its states, or the layout of a pack, in another way: see state_forks.py."
        first = States()
        outputs = [mixer(rows[:, :7], **{cache_name(mixer): first})]
        outputs.append(mixer(rows[:, 7:], **{cache_name(mixer): first.fork(1)}))
        same = torch.allclose(torch.cat(outputs, dim=1), mixer(rows), atol=1e-5)
        assert same, f"{name} calls its cache in another way: see state_forks.py."


def test_from_config() -> None:
    config = Qwen2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=8)
    config.dtype = torch.bfloat16
    model = Qwen2Model._from_config(config)
    assert model.dtype == torch.bfloat16, "_from_config no longer builds a model in the dtype of its configuration."


def test_attention_by_name() -> None:
    config = LlavaConfig(attn_implementation="sdpa")
    text = config.get_text_config()
    text._attn_implementation = {"": "tree"}
    names = (text._attn_implementation, config.vision_config._attn_implementation, config._attn_implementation)
    assert names == ("tree", "sdpa", "sdpa"), "the empty name no longer changes the attention of one model alone."


def test_tokens_of_an_image() -> None:
    for processor in (Idefics3Processor, LlavaNextProcessor):
        count = getattr(processor, "_get_num_multimodal_tokens", None)
        assert count is not None, f"{processor.__name__} no longer counts tokens: row_lengths runs each size instead."
        names = inspect.signature(count).parameters
        assert "image_sizes" in names, f"{processor.__name__} counts tokens by another argument than image_sizes."


def test_mark_of_the_auto_classes() -> None:
    source = inspect.getsource(processing_auto.AutoProcessor.from_pretrained)
    assert 'kwargs["_from_auto"] = True' in source, "AutoProcessor no longer passes `_from_auto`: stop taking it out."


def test_conversions_are_kept_on_the_model() -> None:
    source = inspect.getsource(core_model_loading)
    assert "_weight_conversions" in source, "transformers keeps the renaming elsewhere: see modeling_phi3_v."


def test_commit_in_a_configuration() -> None:
    source = inspect.getsource(PreTrainedModel.from_pretrained)
    assert "_commit_hash" in source, "loading no longer takes the commit from the configuration: see modeling/adapters."


def test_commit_of_a_file_in_the_cache() -> None:
    """Public, and the reason why a processor comes from the commit of the weights."""
    path = f"/cache/models--org--name/snapshots/{'a' * 40}/config.json"
    with patch("os.path.exists", return_value=True):
        assert extract_commit_hash(path, None) == "a" * 40, "the cache of the Hub has another layout: see hub_files."
