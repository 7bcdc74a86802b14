"""What a training run will take of memory, computed on the meta device: no weight is loaded, nothing is multiplied."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel, TrainingArguments

from xvlm2vec.modeling.activated import Routes, acting, adapter_names
from xvlm2vec.modeling.model_parts import embedder_of, language_model
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

from .contrastive_config import ContrastiveConfig
from .distillation_config import SelfDistillationConfig
from .optimizers import split_parameters
from .sharding import repeated_layers
from .vision_parameters import vision_modules

COUNTED = "counted"
QUANTIZED_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per weight in 4 bits: half a byte, an 8-bit scale for each block of 64, and a float32 scale for 256 of these."""

ROW = 32
"""Tokens of a row of towers for texts; what a pass keeps depends on the number of all tokens only."""

# How many states of the size of a trained weight an optimizer keeps, by what stands in its name in transformers.
_STATES = {"adamw": 2, "lion": 1, "sgd": 0, "adafactor": 0}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a run takes, by what they are for. What frameworks and fragments take comes on top: allow a tenth.

    Attributes:
        frozen: Weights that are not trained and can be sharded.
        whole: Frozen weights of the vision tower, which every device keeps whole.
        trained: Weights that are trained.
        copies: Weights cast to bfloat16, which autocast keeps from the forward to the backward pass.
        gradients: Gradients of the trained weights.
        optimizer: Its states.
        activations: What the backward pass needs of one micro-pack.
        teacher: A frozen copy of the model, where the teacher is one.
        unit: The largest layer that FSDP2 gathers at once.
        tower: What is trained of the vision tower, which FSDP2 keeps gathered during a step.
        parameters: How many weights there are.
        trained_parameters: How many of them are trained.
        images: Prepared images of a whole batch, where that is on the device before it is cut into pieces.
    """

    frozen: int
    whole: int
    trained: int
    copies: int
    gradients: int
    optimizer: int
    activations: int
    teacher: int
    unit: int
    tower: int
    parameters: int
    trained_parameters: int
    images: int = 0

    def per_device(self, devices: int = 1) -> dict[str, int]:
        """Bytes on each device by what they are for; on several, FSDP2 divides what it can.

        Plain data parallelism (DDP) takes on each device what one device takes alone, and a second set of gradients in
        its buckets.
        """
        divided = {
            "weights": self.frozen + self.trained,
            "gradients": self.gradients,
            "optimizer states": self.optimizer,
        }
        parts = {name: -(-size // devices) for name, size in divided.items()}
        parts["weights"] += self.whole
        # One layer is in use while the next one is fetched. Casting is FSDP2's affair then, layer by layer.
        more = {"gathered weights": 2 * self.unit + self.tower} if devices > 1 else {"bfloat16 copies": self.copies}
        images = {"prepared images": self.images} if self.images else {}
        return {**parts, **more, "activations": self.activations, **images, "teacher": self.teacher}


def plan_memory(
    model: nn.Module,
    args: SelfDistillationConfig | ContrastiveConfig,
    base_in_4bit: bool = False,
    teacher: nn.Module | None = None,
    tokens: int | None = None,
    batch_tokens: int = 0,
) -> MemoryPlan:
    """Computes what training a model takes.

    Weights, gradients, optimizer states and copies are exact; activations are what autograd saves in one pass of the
    language model over the tokens of one pass, counted on the meta device in the number format of the
    computation, with a fused attention kernel. Those of a trained vision tower are estimated from its configuration,
    as if images filled the whole pack, and so are prepared images.

    Args:
        model: On the meta device, in the number formats of the training, with its adapter, frozen where it is frozen.
        args: Settings of the training.
        base_in_4bit: Whether the frozen linear layers are stored in 4 bits (QLoRA).
        teacher: Another embedder that teaches, on the meta device, in its number format.
        tokens: Of one pass (default: distillation's `max_tokens_per_forward`).
        batch_tokens: Of a batch whose images all are on the device while it is embedded piece by piece.
    """
    embedder = embedder_of(model)
    copied_teacher = False
    if isinstance(args, SelfDistillationConfig):
        tokens = tokens or args.max_tokens_per_forward
        copied_teacher = args.teacher == "copy" and not embedder.language_adapters
    if tokens is None:
        raise ValueError("A plan of contrastive training needs the tokens of one pass.")
    vision = vision_modules(embedder)
    tower = {id(parameter) for part in vision for parameter in part.parameters()}
    whole = {id(p) for part in vision for p in part.parameters() if not p.requires_grad}
    packed = {id(m.weight) for m in embedder.modules() if base_in_4bit and isinstance(m, nn.Linear)} - tower
    named = dict(model.named_parameters())
    parameters = list(named.values())
    trained = [p for p in parameters if p.requires_grad]
    half = args.bf16 or args.fp16
    working = 2 if half else 4
    copied = [p for name, p in named.items() if not is_adapter(name)]
    trained_tower = sum(p.numel() for p in trained if id(p) in tower)
    return MemoryPlan(
        frozen=_bytes((p for p in parameters if not p.requires_grad and id(p) not in whole), packed),
        whole=_bytes(p for p in parameters if id(p) in whole),
        trained=_bytes(trained),
        copies=2 * sum(p.numel() for p in parameters if half and p.dim() > 1 and p.dtype == torch.float32),
        gradients=_bytes(trained),
        optimizer=_optimizer_bytes(model, args),
        activations=_activations(embedder, args, tokens)
        + (_vision_activations(embedder, args, tokens) if trained_tower else 0),
        teacher=0
        if not copied_teacher
        else _bytes(copied, packed)
        if teacher is None
        else _bytes(teacher.parameters()),
        unit=working * max(sum(p.numel() for p in unit.parameters()) for unit in _units(embedder, vision)),
        tower=working * trained_tower,
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in trained),
        images=batch_tokens * _pixel_bytes_per_token(embedder) if batch_tokens else 0,
    )


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter, not to the model below it."""
    return ".lora_" in name or ".modules_to_save." in name


def _bytes(parameters: Iterable[nn.Parameter], packed: Collection[int] = ()) -> int:
    """Bytes of parameters, of which some are stored in 4 bits."""
    return round(sum(p.numel() * (QUANTIZED_BYTES if id(p) in packed else p.element_size()) for p in parameters))


def _units(embedder: XVLM2VecModel, vision: Iterable[nn.Module]) -> list[nn.Module]:
    """What FSDP2 shards one by one: the layers of the language model, and its embeddings."""
    left_out = {id(module) for part in vision for module in part.modules()}
    layers = [layer for layer in repeated_layers(embedder) if id(layer) not in left_out]
    return [*layers, embedder.get_input_embeddings()]


def _optimizer_bytes(model: nn.Module, args: SelfDistillationConfig | ContrastiveConfig) -> int:
    """Bytes of the states: in the number format of their weights, but for those that are kept in 8 bits."""
    if args.muon_learning_rate is not None:
        matrices, rest = split_parameters(model)
        return _bytes(matrices) + 2 * _bytes(rest)
    name = str(getattr(args.optim, "value", args.optim))
    states = next((states for part, states in _STATES.items() if part in name), None)
    if states is None:
        raise ValueError(f"--plan does not know what the states of the optimizer {name!r} take.")
    trained = [p for p in model.parameters() if p.requires_grad]
    return states * (sum(p.numel() for p in trained) if "8bit" in name else _bytes(trained))


def _activations(embedder: XVLM2VecModel, args: TrainingArguments, tokens: int) -> int:
    """Bytes that autograd saves of one pass of the language model; with checkpointing, of one layer at a time."""
    language = language_model(embedder)
    dtype = torch.bfloat16 if args.bf16 or args.fp16 else language.dtype
    saved = activation_bytes(language, tokens, dtype)
    if not args.activation_checkpointing:
        return saved
    layers, width = language.config.num_hidden_layers, language.config.hidden_size
    return layers * tokens * width * dtype.itemsize + saved // layers


def activation_bytes(language: PreTrainedModel, tokens: int, dtype: torch.dtype) -> int:
    """Bytes of the tensors that autograd keeps of one pass of a language model, weights not counted.

    Args:
        language: A model of texts of transformers, without its head. Off the meta device the pass is really run.
        tokens: Length of the one sequence.
        dtype: Number format of the computation.
    """
    language = copy.deepcopy(language).to(dtype).train()  # type: ignore[arg-type]  # transformers wraps `to`
    language.set_attn_implementation(COUNTED)
    weights = {_storage(parameter) for parameter in language.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in weights:
            kept[_storage(tensor)] = tensor.untyped_storage()
        return tensor

    run = _run_embeddings if "inputs_embeds" in inspect.signature(language.forward).parameters else _run_ids
    beside = Routes(tokens, {name: None for name in adapter_names(language)})
    saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with saving, torch.enable_grad(), acting(beside if beside.places else None):
        run(language, tokens, dtype)
    return sum(storage.nbytes() for storage in kept.values())


def _run_embeddings(language: PreTrainedModel, tokens: int, dtype: torch.dtype) -> None:
    """A pass over one row."""
    shape, device = (1, tokens, language.config.hidden_size), language.device
    inputs = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
    positions = torch.arange(tokens, device=device)[None]
    language(inputs_embeds=inputs, position_ids=positions, use_cache=False)


def _run_ids(language: PreTrainedModel, tokens: int, dtype: torch.dtype) -> None:
    """A pass of a tower for texts, which only takes ids, over rows as short as it knows positions for."""
    language.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    length = min(tokens, ROW)
    language(input_ids=torch.zeros(-(-tokens // length), length, dtype=torch.long, device=language.device))


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _vision_activations(embedder: XVLM2VecModel, args: TrainingArguments, tokens: int) -> int:
    """An estimate for a trained tower of plain transformer layers: 8 widths and 2 MLP widths a patch and layer."""
    config: Any = embedder.config.vlm_config
    config = config.vision_config
    names = {"layers": ("num_hidden_layers", "depth"), "width": ("embed_dim", "hidden_size")}
    layers, width = (next(getattr(config, n) for n in options if hasattr(config, n)) for options in names.values())
    mlp = getattr(config, "intermediate_size", None) or round(width * getattr(config, "mlp_ratio", 4))
    patches = tokens * _patches_per_token(embedder)
    size = 2 if args.bf16 or args.fp16 else 4
    if args.activation_checkpointing:
        return patches * size * (layers * width + 8 * width + 2 * mlp)
    return patches * size * layers * (8 * width + 2 * mlp)


def _patches_per_token(embedder: XVLM2VecModel) -> int:
    """How many patches of an image one image token stands for."""
    config: Any = embedder.config.vlm_config
    vision = config.vision_config
    if hasattr(vision, "spatial_merge_size"):
        return int(vision.spatial_merge_size**2)
    if hasattr(config, "scale_factor"):
        return int(config.scale_factor**2)
    if hasattr(config, "downsample_ratio"):
        return round(config.downsample_ratio**-2)
    return 4 if config.model_type == "phi3_v" else 1


def _pixel_bytes_per_token(embedder: XVLM2VecModel) -> int:
    """Bytes of the float32 pixels behind one image token; none of an embedder of texts."""
    config: Any = embedder.config.vlm_config
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return 0
    frames = getattr(vision, "temporal_patch_size", 1)  # Qwen's processors repeat an image as the frames of a film
    return int(4 * 3 * frames * vision.patch_size**2 * _patches_per_token(embedder))


class _FusedAttention(torch.autograd.Function):
    """Keeps what a fused kernel keeps: queries, keys, values and outputs, and no score."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Nothing is computed."""
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out


def _counted_attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    return _FusedAttention.apply(query, key, value).transpose(1, 2), None


AttentionInterface.register(COUNTED, _counted_attention)
