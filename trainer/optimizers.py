"""Muon for matrices and AdamW for the rest, as one optimizer for `transformers.Trainer`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class MuonFloat32(torch.optim.Muon):
    """`torch.optim.Muon` (with Nesterov momentum) that orthogonalises in float32.

    torch's own iteration runs in bfloat16, which most processors without a GPU emulate: there it takes three times as
    long as in float32, and a third of a training step of the quickstart's model. Rates are matched to AdamW's root mean
    square. Arguments and state are those of `torch.optim.Muon`.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Steps all matrices that have a gradient, a tensor of (rows, columns) each."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                buffer = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalise(matrix.grad.lerp(buffer, group["momentum"]), group["ns_coefficients"])
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * math.sqrt(max(matrix.shape)) * group["lr"])
        return loss


def orthogonalise(matrix: Tensor, coefficients: tuple[float, float, float], steps: int = 5) -> Tensor:
    """Brings the singular values of a matrix near one by Newton and Schulz's iteration.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon

    Args:
        matrix: (rows, columns), float32.
        coefficients: Those of the odd polynomial of degree five that each step applies to the singular values.
        steps: How often it is applied.

    Returns:
        (rows, columns), float32; singular values lie between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    wide = matrix if matrix.size(0) <= matrix.size(1) else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.size(0) <= matrix.size(1) else wide.T


class MuonAdamW(torch.optim.Optimizer):
    """Steps Muon on hidden matrices and `torch.optim.AdamW` on everything else.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) orthogonalises the update of a matrix;
    embeddings, norms, biases and convolutions are not hidden matrices.

    Args:
        model: Its trainable parameters are optimised.
        muon_lr: Peak rate of the matrices (updates matched to AdamW's root mean square).
        adamw_lr: Peak rate of the rest.
        weight_decay: Weight decay of both.
        betas: Betas of AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        muon_lr: float,
        adamw_lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        matrices, rest = split_parameters(model)
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            muon = torch.optim.Muon if any(matrix.is_cuda for matrix in matrices) else MuonFloat32
            self._parts.append(muon(matrices, lr=muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if rest:
            self._parts.append(torch.optim.AdamW(rest, lr=adamw_lr, weight_decay=weight_decay, betas=betas, fused=True))
        if not self._parts:
            raise ValueError("The model has no trainable parameter.")
        # The groups are the parts' own dictionaries, so that a scheduler that sets a rate here sets it there.
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Steps every part."""
        loss = closure() if closure is not None else None
        for part in self._parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of every part."""
        for part in self._parts:
            part.zero_grad(set_to_none)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state, in the layout of every optimizer of torch, and shares it with the parts.

        Raises:
            ValueError: The state is that of other parameters.
        """
        sizes = [
            [len(group["params"]) for group in groups] for groups in (self.param_groups, state_dict["param_groups"])
        ]
        if sizes[0] != sizes[1]:
            raise ValueError("The saved optimizer state belongs to another split of the parameters.")
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Gives the parts the groups and the states of the whole: torch reads and writes both here (FSDP2, too)."""
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable weights of linear layers, an adapter's matrices among them, and all other trainable parameters."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    linear |= {id(weight) for name, weight in model.named_parameters() if name.endswith((".lora_A", ".lora_B"))}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if id(parameter) in linear]
    return matrices, [parameter for parameter in trainable if id(parameter) not in linear]
