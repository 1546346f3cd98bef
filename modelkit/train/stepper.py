"""One optimiser step: forward, backward, clipped, applied, with what is pruned kept at zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modelkit.train.config import TrainOptions
from modelkit.train.feed import Fed, loss_of
from modelkit.train.masks import Masks
from modelkit.train.objective import Objective
from modelkit.train.optimizer import make_optimizer, set_rate
from modelkit.train.state import copy_weights

StepHook = Callable[[int, int, nn.Module], Mapping[str, np.ndarray] | None]
"""Called after each step with its number (from 1), the number of all steps and the module. Masks that it returns
replace those in force; the best weights so far are then forgotten, since they do not keep the new masks. Trials of
learning rates call it too, with the number of their own steps, so that they go through the same in small: it must
depend on its arguments only."""


class DivergedError(Exception):
    """The loss or the gradient is no number any more, or far too large."""


class Stepper:
    """Trains a module, step by step.

    Args:
        module: What is trained, on its device; its weights now are those that `restart` goes back to.
        objective: What is minimised.
        options: `optimizer` and its settings, and `clip`, are read.
        masks: What stays zero.
    """

    def __init__(self, module: nn.Module, objective: Objective, options: TrainOptions, masks: Masks) -> None:
        self.module, self.objective, self._options = module, objective, options
        self._start, self._first_masks = copy_weights(module), masks
        self.restart()

    def restart(self) -> None:
        """Go back to the weights and masks of the beginning, with a new optimiser."""
        self.masks = self._first_masks
        self.restore(self._start)
        self.optimizer = make_optimizer(self.module, self._options)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Bring earlier weights back, under the masks of now."""
        self.module.load_state_dict(dict(weights))
        self.masks.zero_weights()

    def change_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        """Replace the masks; weights and momentum obey at once.

        Raises:
            UsageError: A mask fits no weight.
        """
        self.masks = Masks(self.module, masks)
        self.masks.zero_weights()
        self.masks.zero_momentum(self.optimizer)

    def call(self, hook: StepHook | None, step: int, total: int) -> bool:
        """Call a hook after a step; return whether it changed the masks."""
        changed = None if hook is None else hook(step, total, self.module)
        if changed is not None:
            self.change_masks(changed)
        return changed is not None

    def step(self, batches: Sequence[Fed], rate: float, seed: int) -> float:
        """Learn from one batch, or from several as if they were one.

        Args:
            batches: What to learn from.
            rate: Learning rate.
            seed: Seed of layers that draw random numbers.

        Returns:
            The loss before the step.

        Raises:
            DivergedError: The loss or the gradient is not finite; the weights have not changed.
        """
        set_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(seed)
        value, count = 0.0, sum(fed.valid for fed in batches)
        for fed in batches:
            loss, _ = loss_of(self.module, fed, self.objective)
            loss = loss * (fed.valid / count)
            loss.backward()
            value += loss.item()
        if not math.isfinite(value):
            raise DivergedError(f"the loss was {value}")
        self.masks.zero_gradients()
        if self._options.clip:
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._options.clip).item()
            if not math.isfinite(norm):
                raise DivergedError(f"the gradient was {norm}")
        self.optimizer.step()
        self.masks.zero_weights()
        return value
