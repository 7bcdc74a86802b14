"""The recipes in configs/: each parses, and its plan is computed from a configuration of the real size."""

import json
import re
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from transformers import Qwen2VLConfig, Qwen3VLConfig

from xvlm2vec.cli import main
from xvlm2vec.commands import contrast, distill
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.flags.training import parse
from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig

CONFIGS = Path(__file__).parents[1] / "configs"
ALL = sorted(CONFIGS.glob("recipes/*.yaml"), key=lambda path: path.name)
CONTRAST = [path for path in ALL if path.name.startswith("mmeb-")]
RECIPES = [path for path in ALL if path not in CONTRAST and path.stem != "remote-sensing"]
QWEN2 = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
         "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True}  # fmt: skip
QWEN3 = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}  # fmt: skip
TOWERS = {
    "qwen2": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14},
    "qwen3": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
              "deepstack_visual_indexes": [5, 11, 17]},
}  # fmt: skip
SHAPES = {
    "phi-3.5-v": lambda: Phi3VConfig(dtype="bfloat16"),
    "qwen2-vl-2b": lambda: Qwen2VLConfig(text_config=QWEN2, vision_config=TOWERS["qwen2"], dtype="bfloat16"),
    "qwen3-vl-embedding-2b": lambda: Qwen3VLConfig(text_config=QWEN3, vision_config=TOWERS["qwen3"], dtype="bfloat16"),
}
BILLIONS = {"phi-3.5-v": 4.05, "qwen2-vl-2b": 2.21, "qwen3-vl-embedding-2b": 2.13}
ONE_STEP = ["--use-cpu", "--max-steps", "1", "--save-steps", "1"]


def shape_of(recipe):
    return next(name for name in SHAPES if recipe.name.startswith(name))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders with nothing but a configuration."""
    found = {name: tmp_path_factory.mktemp(name) for name in SHAPES}
    for name, folder in found.items():
        SHAPES[name]().save_pretrained(folder)
    return found


def test_there_are_recipes_for_three_models_and_two_machines():
    assert {shape_of(path) for path in RECIPES} == set(SHAPES)
    assert {path.stem.rpartition("-")[2] for path in RECIPES} == {"24gb", "fsdp4"}


@pytest.mark.parametrize("recipe", ALL, ids=lambda path: path.stem)
def test_a_recipe_parses_into_settings(recipe, tmp_path):
    command = contrast if recipe in CONTRAST else distill
    parsed = parse(command.FORM, ["--config", str(recipe), "--use-cpu"])
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    args = command.training_arguments(parsed, str(tmp_path))
    for name, value in content.items():
        flags = parsed.adapter if hasattr(parsed.adapter, name) else parsed.flags
        found = getattr(flags, name, getattr(args, name, None))
        assert getattr(found, "value", found) == value, name
    assert f"--config configs/recipes/{recipe.name}" in recipe.read_text(encoding="utf-8")


def test_the_papers_run_has_the_papers_settings(tmp_path):
    recipe = CONFIGS / "recipes" / "phi-3.5-v-paper-fsdp4.yaml"
    args = distill.training_arguments(parse(distill.FORM, ["--config", str(recipe), "--use-cpu"]), str(tmp_path))
    assert (args.learning_rate, args.lr_scheduler_type.value, args.warmup_steps) == (1e-5, "cosine", 0)
    assert (args.weight_decay, args.max_grad_norm, args.num_train_epochs) == (0, 0.3, 1)
    assert args.bf16
    assert args.activation_checkpointing
    assert not args.freeze_vision
    languages, processes = 4, 4
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    assert rows * languages == 8 * 4 * 16


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_plan_needs_no_weights(recipe, folders, capsys):
    name = shape_of(recipe)
    assert main(["distill", "--config", str(recipe), "--model", str(folders[name]), "--plan"]) == 0
    text = capsys.readouterr().out
    billions, trained = re.search(r"([\d.]+) billion weights, ([\d,.]+) million of them trained", text).groups()
    adapter = float(trained.replace(",", "")) / 1000 if "lora" in recipe.stem else 0
    assert float(billions) - adapter == pytest.approx(BILLIONS[name], abs=0.02)
    cards = re.search(r"fits a GPU of\s+(.*)", text).group(1)
    one, _, four, _ = re.findall(r"(\d+|none)", cards)
    if recipe.stem.endswith("24gb"):
        assert int(one) <= 24
    else:
        assert int(four) <= 80
    assert sorted(path.name for path in folders[name].iterdir()) == ["config.json"]


@pytest.mark.parametrize("recipe", CONTRAST, ids=lambda path: path.stem)
def test_a_plan_of_contrastive_training(recipe, folders, capsys):
    shape = {"mmeb-qwen2-vl-2b": "qwen2-vl-2b", "mmeb-qwen3-vl-2b": "qwen3-vl-embedding-2b"}
    folder = folders[shape[recipe.stem.removesuffix("-lora-24gb")]]
    tokens = int(re.search(r"--plan (\d+)", recipe.read_text(encoding="utf-8"))[1])
    flags = ["contrast", "--config", str(recipe), "--model", str(folder), "--plan", str(tokens)]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert f"one mini-batch: 8 rows of {tokens:,} tokens, activations computed twice" in text
    assert int(re.search(r"fits a GPU of\s+(\d+)", text)[1]) <= 24
    # An image of the whole width and height is 1,176 or 1,536 floats for each of four patches behind a token.
    floats = 4 * (1176 if "qwen2" in recipe.stem else 1536)
    images = float(re.search(r"prepared images\s+([\d.]+)", text)[1])
    assert images == pytest.approx(2 * 128 * tokens * floats * 4 / 1e9, abs=0.01)
    assert main([*flags, "--mini-batch-size", "4"]) == 0
    halves = [float(re.search(r"activations\s+([\d.]+)", out)[1]) for out in (text, capsys.readouterr().out)]
    assert halves[1] == pytest.approx(halves[0] / 2, abs=0.01)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model, pairs as MMEB has them, and a parallel corpus."""
    folder = tmp_path_factory.mktemp("tiny")
    words = ("river", "pond", "runway", "forest")
    model, processor = build_tiny_model(
        TinyModelConfig(image_size=16, vision_layers=1, text_layers=1, vocab_size=300), words
    )
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    pairs = [{"qry": f"Find: {word}", "pos_text": f"a {word}", "neg_text": "", "neg_image_path": ""} for word in words]
    for name in ("first", "second"):
        (folder / name).mkdir()
        Dataset.from_list(pairs).to_parquet(folder / name / "original-00000-of-00001.parquet")
    rows = [
        {
            "id": word,
            "image": None,
            "text_en": word,
            "translations": [{"lang": "de", "text": f"{word}en"}],
            "source": "",
        }
        for word in words
    ]
    Dataset.from_list(rows).save_to_disk(str(folder / "parallel"))
    return folder


def steps_of(output):
    states = Path(output).glob("**/checkpoint-1/trainer_state.json")
    return [json.loads(path.read_text(encoding="utf-8"))["global_step"] for path in states]


def test_a_recipe_for_mmeb_takes_a_step(tiny, tmp_path):
    data = [str(tiny / name / "original-00000-of-00001.parquet") for name in ("first", "second")]
    sizes = ["--per-device-train-batch-size", "4", "--sub-batch-size", "2", "--mini-batch-size", "2"]
    assert main(["contrast", "--config", str(CONTRAST[0]), "--model", str(tiny / "model"), "--data", *data, *sizes,
                 *ONE_STEP, "--output", str(tmp_path)]) == 0  # fmt: skip
    assert steps_of(tmp_path) == [1]
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_the_recipe_for_remote_sensing_takes_a_step(tiny, tmp_path):
    recipe = CONFIGS / "recipes" / "remote-sensing.yaml"
    sizes = ["--per-device-train-batch-size", "4", "--gradient-accumulation-steps", "1"]
    assert main(["distill", "--config", str(recipe), "--model", str(tiny / "model"), "--data", str(tiny / "parallel"),
                 *sizes, *ONE_STEP, "--output", str(tmp_path)]) == 0  # fmt: skip
    assert steps_of(tmp_path) == [1]
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_launch_configurations_name_no_class_and_leave_the_number_format_to_the_recipe(name):
    content = yaml.safe_load((CONFIGS / "accelerate" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert content["mixed_precision"] == "no"
    assert "fsdp_transformer_layer_cls_to_wrap" not in content.get("fsdp_config", {})
