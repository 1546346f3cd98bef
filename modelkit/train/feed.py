"""Batches on their way into the module: samples shuffled and varied, the teacher's outputs beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modelkit.data.dataset import Batch
from modelkit.data.shuffle import HeldDataset, shuffled, steps_per_epoch
from modelkit.train.augment import Augmenter
from modelkit.train.device import tensor
from modelkit.train.objective import Objective
from modelkit.train.teacher import Targets


@dataclass(frozen=True)
class Fed:
    """A batch on the device.

    Attributes:
        inputs: What the module takes.
        labels: Labels of the real samples; None without labels.
        wanted: The teacher's outputs for them; empty without a teacher.
        valid: How many samples are real.
        partners: Number of the sample that each real sample was mixed with; None without mixing.
        share: Share of the sample itself in the mixture.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    wanted: dict[str, Tensor]
    valid: int
    partners: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Feed:
    """A dataset, ready to be gone through again and again.

    Attributes:
        data: The samples.
        batch: Samples in a step. A model with a smaller fixed batch is run several times for one step.
        targets: The teacher's outputs; None without a teacher.
        device: Where batches go.
        seed: Seed of the order.
    """

    data: HeldDataset
    batch: int
    targets: Targets | None
    device: torch.device
    seed: int = 0

    @property
    def runs(self) -> int:
        """How many times the model is run in a step."""
        fixed = self.data.plan.fixed
        return max(1, self.batch // fixed) if fixed else 1

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return -(-steps_per_epoch(self.data, self.batch) // self.runs)

    def in_order(self) -> Iterator[tuple[Batch, Fed]]:
        """Go through the samples as they are."""
        done = 0
        for batch in self.data.batches(self.batch):
            yield batch, self._feed(batch, np.arange(done, done + batch.valid), batch.inputs)
            done += batch.valid

    def training(self, epoch: int, skip: int, augment: Augmenter) -> Iterator[list[Fed]]:
        """Go through one epoch in random order.

        Args:
            epoch: Number of the epoch.
            skip: Steps from the start that have been made already.
            augment: Varies the inputs.

        Yields:
            The batches of each step.
        """
        together: list[Fed] = []
        for run, (numbers, batch) in enumerate(shuffled(self.data, self.batch, seed=self.seed, epoch=epoch)):
            if run < skip * self.runs:
                continue
            inputs, partners, share = augment.apply(batch.inputs, epoch, run)
            together.append(self._feed(batch, numbers, inputs, partners, share))
            if len(together) == self.runs:
                yield together
                together = []
        if together:
            yield together

    def _feed(
        self,
        batch: Batch,
        numbers: np.ndarray,
        inputs: Mapping[str, np.ndarray],
        partners: np.ndarray | None = None,
        share: float = 1.0,
    ) -> Fed:
        wanted = {} if self.targets is None else self.targets.of(numbers, inputs, batch.valid)
        # Samples that fill up a fixed batch are copies of the last real one.
        mixed = None if partners is None else np.minimum(partners[: batch.valid], batch.valid - 1)
        return Fed(
            {name: tensor(array, self.device) for name, array in inputs.items()},
            None if batch.labels is None else tensor(batch.labels, self.device),
            {name: tensor(array, self.device) for name, array in wanted.items()},
            batch.valid,
            None if mixed is None else tensor(mixed, self.device),
            share,
        )


def real_outputs(module: nn.Module, inputs: Mapping[str, Tensor], valid: int) -> dict[str, Tensor]:
    """Run a module and keep the outputs of the real samples."""
    return {name: value[:valid] if value.ndim else value for name, value in module(inputs).items()}


def loss_of(module: nn.Module, fed: Fed, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a batch.

    Returns:
        The loss, and the outputs of the real samples.
    """
    outputs = real_outputs(module, fed.inputs, fed.valid)
    own = objective.of(outputs, fed.labels, fed.wanted)
    if fed.partners is None or fed.labels is None or objective.hard is None:
        return own, outputs
    other = objective.of(outputs, fed.labels[fed.partners], fed.wanted)
    return fed.share * own + (1 - fed.share) * other, outputs
