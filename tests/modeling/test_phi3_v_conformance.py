"""Phi-3.5-V against numbers recorded from the original implementation (a tiny random model, fp32, eager attention)."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import mse_loss

from xvlm2vec.modeling.image_processing_phi3_v import Phi3VImageProcessor
from xvlm2vec.modeling.modeling_phi3_v import Phi3VModel

DATA = Path(__file__).parent / "data" / "phi3v"
CASES = json.loads((DATA / "cases.json").read_text(encoding="utf-8"))
HIDDEN_TOLERANCE, POOLED_TOLERANCE = 5e-4, 1e-4


def write_original(folder, name, config):
    """Restores a full checkpoint under the original key names: the stored one holds only the embedding rows in use."""
    weights = load_file(DATA / f"{name}.safetensors")
    rows, values = weights.pop("embedding_rows"), weights.pop("embedding_values")
    embedding = torch.zeros(config["vocab_size"], config["hidden_size"], dtype=values.dtype)
    embedding[rows] = values
    weights["model.embed_tokens.weight"] = embedding
    weights["lm_head.weight"] = torch.zeros_like(embedding)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    config = json.loads((DATA / "config.json").read_text(encoding="utf-8"))
    root = tmp_path_factory.mktemp("phi3v")
    return {name: write_original(root / name, name, config) for name in ("teacher", "student")}


@pytest.fixture(scope="module")
def teacher(checkpoints):
    return Phi3VModel.from_pretrained(checkpoints["teacher"], dtype=torch.float32)


@pytest.fixture(scope="module")
def expected():
    return load_file(DATA / "expected.safetensors")


def pixels(names):
    if not names:
        return {}
    batch = Phi3VImageProcessor().preprocess([Image.open(DATA / f"{name}.png") for name in names])
    # the original's numbers were recorded from pixels stored in half precision
    return {"pixel_values": batch["pixel_values"].half().float(), "image_sizes": batch["image_sizes"]}


def pool(hidden, mask):
    return hidden[torch.arange(len(hidden)), mask.long().sum(-1) - 1]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("case", list(CASES))
def test_hidden_states_and_vectors_are_those_of_the_original(teacher, expected, case, attention):
    recorded = {key.removeprefix(f"{case}."): value for key, value in expected.items() if key.startswith(f"{case}.")}
    images = pixels([name for row in CASES[case] for name in row["images"]])
    if images:
        assert images["image_sizes"].tolist() == recorded["image_sizes"].tolist()
    teacher.set_attn_implementation(attention)
    inputs = {"input_ids": recorded["input_ids"], "attention_mask": recorded["attention_mask"], **images}
    before = {key: value.clone() for key, value in inputs.items()}
    with torch.no_grad():
        hidden = teacher(**inputs).last_hidden_state
    mask = recorded["attention_mask"]
    assert (hidden * mask[..., None] - recorded["last_hidden_state"]).abs().max() < HIDDEN_TOLERANCE
    assert (pool(hidden, mask) - recorded["pooled"]).abs().max() < POOLED_TOLERANCE
    for key, value in inputs.items():
        assert torch.equal(value, before[key]), f"{key} was changed in place"


def test_the_fault_of_the_original_in_long_batches_is_out_and_can_be_called_back(teacher, expected):
    text = expected["batch_mixed.input_ids"][0, :5]
    vector = expected["batch_mixed.pooled"][0]
    length = teacher.config.original_max_position_embeddings + 1
    ids = torch.full((2, length), 70)
    ids[0] = torch.cat([text, torch.full((length - 5,), 32000)])
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0

    @torch.no_grad()
    def cosine():
        pooled = teacher(input_ids=ids, attention_mask=mask).last_hidden_state[0, 4]
        return torch.cosine_similarity(pooled, vector, dim=0).item()

    assert cosine() == pytest.approx(1, abs=1e-6)
    teacher.config.legacy_rope_by_batch = True
    try:
        assert cosine() == pytest.approx(0.974, abs=1e-3)  # measured on the original
    finally:
        teacher.config.legacy_rope_by_batch = False


def test_distillation_loss_and_gradients_are_those_of_the_paper(checkpoints, teacher):
    recorded = json.loads((DATA / "loss_expected.json").read_text(encoding="utf-8"))["self_distillation"]
    inputs = load_file(DATA / "loss_inputs.safetensors")
    images = pixels(["tall", "wide"])
    assert images["image_sizes"].tolist() == inputs["image_sizes"].tolist()
    student = Phi3VModel.from_pretrained(checkpoints["student"], dtype=torch.float32)
    student.activation_checkpointing_enable()
    student.train()

    def embed(model, language):
        mask = inputs[f"attention_mask_{language}"]
        output = model(input_ids=inputs[f"input_ids_{language}"], attention_mask=mask, **images)
        return pool(output.last_hidden_state, mask)

    with torch.no_grad():
        target = embed(teacher, "eng")
    loss = (mse_loss(embed(student, "eng"), target) + mse_loss(embed(student, "lang"), target)) / 2
    loss.backward()
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-4)
    gradients = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert total.item() == pytest.approx(recorded["grad_norm_global"], rel=1e-4)
    for name, norm in recorded["grad_norms"].items():
        assert gradients[name.removeprefix("model.")].norm().item() == pytest.approx(norm, rel=1e-4), name


def test_a_published_dora_adapter_lands_whole(checkpoints, expected):
    model = Phi3VModel.from_pretrained(checkpoints["teacher"], dtype=torch.float32)
    config = json.loads((DATA / "dora" / "adapter_config.json").read_text(encoding="utf-8"))
    fields = {key: config[key] for key in ("r", "lora_alpha", "lora_dropout", "target_modules", "use_dora")}
    adapted = get_peft_model(model, LoraConfig(**fields)).eval()
    stored = load_file(DATA / "dora" / "adapter_model.safetensors")
    prefix = "base_model.model."
    renamed = {prefix + key.removeprefix(prefix).removeprefix("model."): value for key, value in stored.items()}
    result = set_peft_model_state_dict(adapted, renamed)
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora_" in key]
    reference = load_file(DATA / "dora" / "expected.safetensors")
    ids, mask = expected["text_only.input_ids"], expected["text_only.attention_mask"]
    with torch.no_grad():
        unmerged = pool(adapted(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
        merged = pool(adapted.merge_and_unload()(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
    assert (unmerged - reference["unmerged.text_only"]).abs().max() < POOLED_TOLERANCE
    assert (merged - reference["merged.text_only"]).abs().max() < POOLED_TOLERANCE
    assert (unmerged - expected["text_only.pooled"]).abs().max() > 100 * POOLED_TOLERANCE
