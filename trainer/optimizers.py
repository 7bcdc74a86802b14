"""Muon for matrices and AdamW for the rest, as one optimizer for `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """Steps `torch.optim.Muon` on hidden matrices and `torch.optim.AdamW` on everything else.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) orthogonalises the update of a matrix;
    embeddings, norms, biases and convolutions are not hidden matrices.

    Args:
        model: Its trainable parameters are optimised.
        muon_lr: Peak rate of the matrices (updates matched to AdamW's root mean square).
        adamw_lr: Peak rate of the rest.
        weight_decay: Of both.
        betas: Of AdamW.
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
            self._parts.append(
                torch.optim.Muon(
                    matrices, lr=muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw", ns_steps=5
                )
            )
        if rest:
            self._parts.append(torch.optim.AdamW(rest, lr=adamw_lr, weight_decay=weight_decay, betas=betas, fused=True))
        if not self._parts:
            raise ValueError("The model has no trainable parameter.")
        # The groups are the parts' own dictionaries, so that a scheduler that sets a rate here sets it there.
        super().__init__([group for part in self._parts for group in part.param_groups], {})

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

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in order."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the parts and keeps the shared groups shared.

        Raises:
            ValueError: The state has another number of parts.
        """
        if len(state_dict["parts"]) != len(self._parts):
            raise ValueError("The saved optimizer state belongs to another split of the parameters.")
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable weights of linear layers, and all other trainable parameters."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if id(parameter) in linear]
    return matrices, [parameter for parameter in trainable if id(parameter) not in linear]
