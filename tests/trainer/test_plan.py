"""The plan's figures against a real model: bytes of weights and optimizer, and what autograd really keeps."""

import pytest
import torch
from steps import is_vision

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.optimizers import MuonAdamW
from xvlm2vec.trainer.plan import QUANTIZED_BYTES, activation_bytes, plan_memory
from xvlm2vec.trainer.vision_parameters import freeze_vision


def arguments(folder, **settings):
    return SelfDistillationConfig(output_dir=str(folder), use_cpu=True, report_to="none", **settings)


def bytes_of(parameters):
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


@pytest.fixture
def empty(model):
    """The tiny model without weights."""
    with torch.device("meta"):
        return XVLM2VecModel(model.config)


def test_all_weights(tmp_path, model, empty):
    plan = plan_memory(empty, arguments(tmp_path, freeze_vision=False, teacher="copy"))
    total = bytes_of(model.parameters())
    assert (plan.trained, plan.gradients, plan.teacher, plan.frozen, plan.whole) == (total, total, total, 0, 0)
    assert plan.parameters == plan.trained_parameters == sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert plan.optimizer == bytes_of(states)


def test_a_frozen_tower_and_an_adapter(tmp_path, model, empty):
    freeze_vision(empty)
    vision = bytes_of(model.backbone.vision_model.parameters()) + bytes_of(model.backbone.connector.parameters())
    plan = plan_memory(empty, arguments(tmp_path, teacher="cached"))
    assert (plan.whole, plan.frozen, plan.teacher) == (vision, 0, 0)
    assert plan.trained == bytes_of(model.parameters()) - vision
    with torch.device("meta"):
        adapted = add_adapter(empty.to(torch.bfloat16), AdapterConfig(rank=2, dora=True))
    plan = plan_memory(adapted, arguments(tmp_path, teacher="adapter-off"))
    adapter = [p for p in add_adapter(model, AdapterConfig(rank=2, dora=True)).parameters() if p.requires_grad]
    assert plan.trained == plan.gradients == plan.optimizer // 2 == bytes_of(adapter)  # in float32
    assert plan.frozen + plan.whole == bytes_of(empty.parameters()) - plan.trained


def test_an_adapter_on_the_tower_is_all_that_fsdp_gathers_of_it(tmp_path, model, empty):
    vision = [*model.backbone.vision_model.parameters(), *model.backbone.connector.parameters()]
    frozen = bytes_of(vision)
    with torch.device("meta"):
        adapted = add_adapter(empty, AdapterConfig(rank=2, train_vision=True))
    plan = plan_memory(adapted, arguments(tmp_path, teacher="adapter-off", freeze_vision=False))
    assert plan.whole == frozen
    added = [p for name, p in adapted.named_parameters() if is_vision(name) and ".lora_" in name]
    assert plan.tower == bytes_of(added) > 0
    with torch.device("meta"):
        blind = add_adapter(XVLM2VecModel(model.config), AdapterConfig(rank=2))
    less = plan_memory(blind, arguments(tmp_path, teacher="adapter-off"))
    assert plan.trained == less.trained + bytes_of(added)
    assert plan.activations > less.activations
    assert plan.frozen == less.frozen


def test_a_base_in_four_bits(tmp_path, model):
    with torch.device("meta"):
        empty = XVLM2VecModel(model.config)
        adapted = add_adapter(empty, AdapterConfig(rank=2))
    whole, packed = (plan_memory(adapted, arguments(tmp_path), base_in_4bit=four) for four in (False, True))
    linears = [m for m in model.backbone.text_model.modules() if isinstance(m, torch.nn.Linear)]
    weights = sum(m.weight.numel() for m in linears)
    assert whole.frozen - packed.frozen == pytest.approx(weights * (4 - QUANTIZED_BYTES), abs=1)
    assert whole.whole == packed.whole


def test_muon_keeps_one_state_of_a_matrix(tmp_path, model, empty):
    plan = plan_memory(empty, arguments(tmp_path, freeze_vision=False, muon_learning_rate=1e-3))
    optimizer = MuonAdamW(model, 1e-3, 1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert plan.optimizer == bytes_of(states)


def kept_by_autograd(language, tokens):
    """Bytes that one real pass keeps for its backward pass."""
    weights = {parameter.data_ptr() for parameter in language.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    inputs = torch.zeros(1, tokens, language.config.hidden_size, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = language(inputs_embeds=inputs, use_cache=False)
    assert output is not None
    return sum(storage.nbytes() for storage in kept.values())


def test_activations_are_those_of_a_real_pass(tmp_path, model, empty):
    tokens = 200
    counted = activation_bytes(empty.backbone.text_model, tokens, torch.float32)
    assert counted == activation_bytes(model.backbone.text_model, tokens, torch.float32)
    assert counted == pytest.approx(kept_by_autograd(model.backbone.text_model, tokens), rel=0.05)
    half = activation_bytes(empty.backbone.text_model, tokens, torch.bfloat16)
    assert counted / 2 <= half < 0.8 * counted  # norms stay in float32
    freeze_vision(empty)
    plans = [
        plan_memory(empty, arguments(tmp_path, max_tokens_per_forward=size, activation_checkpointing=again))
        for size, again in ((200, False), (400, False), (200, True))
    ]
    assert plans[0].activations == counted
    assert plans[1].activations == pytest.approx(2 * counted, rel=0.01)
    assert plans[2].activations < 0.7 * counted  # of two layers
    assert next(empty.parameters()).is_meta


def test_several_devices_divide_what_can_be_divided(tmp_path, empty):
    freeze_vision(empty)
    plan = plan_memory(empty, arguments(tmp_path, bf16=True, teacher="copy"))
    one, four = plan.per_device(), plan.per_device(4)
    assert one["weights"] == plan.trained + plan.whole
    assert four["weights"] == -(-plan.trained // 4) + plan.whole
    assert four["optimizer states"] == -(-plan.optimizer // 4)
    assert (four["teacher"], four["activations"]) == (one["teacher"], one["activations"])
    assert one["bfloat16 copies"] > 0
    assert "bfloat16 copies" not in four
    assert four["gathered weights"] == 2 * plan.unit > 0


def test_an_optimizer_that_is_not_known_is_named(tmp_path, empty):
    with pytest.raises(ValueError, match="does not know what the states of the optimizer 'rmsprop' take"):
        plan_memory(empty, arguments(tmp_path, optim="rmsprop"))


def test_states_in_eight_bits(tmp_path, empty):
    plan = plan_memory(empty, arguments(tmp_path, optim="adamw_bnb_8bit", freeze_vision=False))
    assert plan.optimizer == 2 * plan.trained_parameters
