"""Training while weights are taken out: which of them are zero is decided anew again and again.

Gradual pruning (Zhu and Gupta, "To prune, or not to prune", 2017, equation 1) with the numbers behind the zeros kept
and trained on, so that one that was taken out too early comes back (Guo, Yao and Chen, "Dynamic Network Surgery",
2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from modelkit.train.loop import fit
from modelkit.train.module import GraphModule, numbers_of, write_back
from modelkit.train.parameters import running_statistics, trained
from modelkit.train.program import compile_graph
from modelkit.train.teacher import check_target

if TYPE_CHECKING:
    from modelkit.data.dataset import Dataset
    from modelkit.progress import Progress
    from modelkit.train.config import TrainOptions
    from modelkit.train.history import History
    from modelkit.train.program import Program
    from modelkit.train.teacher import Teacher

_RISING = 0.6
"""Part of all steps in which the sparsity rises; in the rest what is left settles."""

_CHANGES = 100
"""How often the zeros are chosen anew in all."""


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, threshold: Tensor) -> Tensor:
        return torch.where(
            weight.abs() > threshold, weight, torch.zeros((), dtype=weight.dtype, device=weight.device)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class SparseModule(GraphModule):
    """A graph in which weights up to a threshold count as zero; gradients reach them all the same.

    Its ``initializers`` are the numbers behind; ``write_back`` stores the zeros.

    Args:
        program: The graph, compiled.
        parameters: Numbers by initializer.
        statistics: Running statistics by initializer.
        pruned: Names of the initializers that lose numbers.
        together: Whether they are ranked as one, or each for itself.
    """

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
        pruned: Sequence[str],
        together: bool,
    ) -> None:
        super().__init__(program, parameters, statistics)
        self.thresholds: Tensor
        self._pruned, self._together = list(pruned), together
        self.register_buffer("thresholds", torch.full((len(self._pruned),), -1.0))

    @torch.no_grad()
    def prune(self, sparsity: float) -> None:
        """Set the thresholds so that this share of the weights is zero, or at least one of each is left."""
        weights = self.initializers
        sizes = [weights[name].detach().abs().reshape(-1) for name in self._pruned]
        if self._together:
            threshold = _threshold(torch.cat(sizes), sparsity)
            found = [torch.minimum(threshold, _threshold(each, 1.0)) for each in sizes]
        else:
            found = [_threshold(each, sparsity) for each in sizes]
        self.thresholds.copy_(torch.stack(found))

    def current(self) -> dict[str, Tensor]:
        """What the graph finds in each initializer that may change: zero up to the threshold."""
        now = super().current()
        for number, name in enumerate(self._pruned):
            now[name] = _Kept.apply(now[name], self.thresholds[number])
        return now


def _threshold(sizes: Tensor, share: float) -> Tensor:
    """The magnitude up to which this share of numbers lies, all but one at most; -1 where that is none."""
    count = min(round(share * len(sizes)), len(sizes) - 1)
    return torch.kthvalue(sizes, count).values if count else sizes.new_tensor(-1.0)


def sparsity_at(step: int, total: int, start: float, end: float) -> float:
    """Share of zeros after a step, ``end`` from the first `_RISING` part of all on."""
    done = min(1.0, step / max(1, round(_RISING * total)))
    return end + (min(start, end) - end) * (1 - done) ** 3


def train_sparse(
    model: ir.Model,
    data: Dataset,
    options: TrainOptions,
    *,
    names: Sequence[str],
    sparsity: float,
    together: bool = True,
    teacher: Teacher | None = None,
    progress: Progress,
    seed: int = 0,
    folder: Path | None = None,
) -> History:
    """Train a model while ever more of its weights become zero, in place.

    Args:
        model: The graph.
        data: Samples to train on; never those that test the result.
        options: How to train.
        names: The initializers that lose weights.
        sparsity: Share of them that is zero at the end.
        together: Whether all are ranked as one, by magnitude, or each for itself.
        teacher: A model to follow; needed without labels.
        progress: Told after each step.
        seed: Seed of everything random.
        folder: Where to keep a checkpoint, and to go on from the one of the same run.

    Returns:
        What happened, epoch by epoch. The best epoch is one in which the sparsity was reached.

    Raises:
        DataError: There are neither labels nor a teacher, or the labels do not fit.
        ModelError: The graph cannot be trained.
    """
    check_target(data, teacher, "the original model")
    progress("making the graph trainable", 0, 1)
    parameters, statistics = trained(model.graph), running_statistics(model.graph)
    module = SparseModule(
        compile_graph(model, [*parameters, *statistics], widen=True),
        {str(value.name): numbers_of(value) for value in parameters},
        {str(value.name): numbers_of(value) for value in statistics},
        [name for name in names if name in {value.name for value in parameters}],
        together,
    )
    start = _zeros(module)

    def step(number: int, total: int, trained_module: nn.Module) -> Mapping[str, np.ndarray] | None:
        every = max(1, total // _CHANGES)
        rising = number <= round(_RISING * total)
        if number % every and number != round(_RISING * total) and number != total:
            return None
        assert isinstance(trained_module, SparseModule)
        trained_module.prune(sparsity_at(number, total, start, sparsity))
        # What was best with fewer zeros is no longer to be had.
        return {} if rising else None

    history = fit(
        module,
        data,
        options,
        teacher=teacher,
        on_step=step,
        by_loss=True,
        progress=progress,
        seed=seed,
        folder=folder,
    )
    module.prune(sparsity)
    write_back(module, model)
    return history


@torch.no_grad()
def _zeros(module: SparseModule) -> float:
    """Share of zeros among the weights that are to lose some."""
    weights = [module.initializers[name] for name in module._pruned]
    return sum(int((each == 0).sum()) for each in weights) / max(1, sum(each.numel() for each in weights))
