"""Keeps what was pruned at zero while the rest is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from modelkit.errors import UsageError


def named_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's weights by the names of the graph's initializers, else by torch's names."""
    initializers = getattr(module, "initializers", None)
    return dict(initializers) if isinstance(initializers, Mapping) else dict(module.named_parameters())


def zero_masks(module: nn.Module) -> dict[str, np.ndarray]:
    """Return the masks that keep all present zeros of a module's weights.

    Args:
        module: What will be trained. Weights of fewer than two dimensions, such as biases, are left out.

    Returns:
        Name -> booleans of the weight's shape, False at zeros; only weights that have any.
    """
    found = {}
    for name, weight in named_weights(module).items():
        kept = (weight.detach() != 0).cpu().numpy()
        if weight.ndim >= 2 and not kept.all():
            found[name] = kept
    return found


class Masks:
    """The masks of a training run.

    Args:
        module: What is trained.
        masks: Name of a weight -> array of its shape; what is 0 or False there stays exactly 0.

    Raises:
        UsageError: A mask belongs to no weight, or has another shape.
    """

    def __init__(self, module: nn.Module, masks: Mapping[str, np.ndarray] | None) -> None:
        weights = named_weights(module)
        self.arrays = {name: np.asarray(mask).astype(bool) for name, mask in (masks or {}).items()}
        self._pruned: list[tuple[nn.Parameter, Tensor]] = []
        for name, kept in self.arrays.items():
            if name not in weights:
                raise UsageError(f"the mask '{name}' belongs to no weight that is trained")
            weight = weights[name]
            if kept.shape != tuple(weight.shape):
                raise UsageError(
                    f"the mask '{name}' has the shape {list(kept.shape)}, the weight {list(weight.shape)}"
                )
            self._pruned.append((weight, torch.from_numpy(~kept).to(weight.device)))

    @torch.no_grad()
    def zero_weights(self) -> None:
        """Set what is pruned to zero: plus zero, even where the weight was negative or not a number."""
        for weight, pruned in self._pruned:
            weight.masked_fill_(pruned, 0.0)

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Take what is pruned out of the gradient, so that neither its norm nor any momentum sees it."""
        for weight, pruned in self._pruned:
            if weight.grad is not None:
                weight.grad.masked_fill_(pruned, 0.0)

    @torch.no_grad()
    def zero_momentum(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the momentum of what is pruned, needed once after the masks have changed."""
        for weight, pruned in self._pruned:
            for value in optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(pruned, 0.0)
