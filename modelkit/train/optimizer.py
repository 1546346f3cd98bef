"""The optimiser of a module: AdamW or SGD with Nesterov momentum, decay only where it belongs."""

from __future__ import annotations

import torch
from torch import nn

from modelkit.errors import ModelError
from modelkit.train.config import TrainOptions


def make_optimizer(module: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Make the optimiser.

    AdamW is that of Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019). Biases, scales of
    normalisations and all other weights of fewer than two dimensions do not decay.

    Args:
        module: All its parameters that want a gradient are trained.
        options: `optimizer`, `weight_decay` and `momentum` are read; the rate is set at each step.

    Raises:
        ModelError: There is no parameter to train.
    """
    weights = list(dict.fromkeys(weight for weight in module.parameters() if weight.requires_grad))
    if not weights:
        raise ModelError("the model has no weight that can be trained")
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(weight.device.type in ("cpu", "cuda") for weight in weights)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, fused=fused)
    return torch.optim.SGD(groups, lr=0.0, momentum=options.momentum, nesterov=options.momentum > 0, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
