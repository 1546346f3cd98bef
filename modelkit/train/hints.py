"""Tensors inside a module as outputs of it, brought to the teacher's channels by layers that no file gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from modelkit.graph.run import expose
from modelkit.train.follow import Hint
from modelkit.train.module import GraphModule, to_torch


class Hinted(nn.Module):
    """A graph whose inner tensors come out too, in as many channels as the teacher's have.

    The projections are learned with the rest and belong to no initializer: writing the graph back drops them (Romero
    et al., "FitNets" (2015), section 2.2, there a convolutional regressor).

    Args:
        graph: A graph with the tensors among its outputs.
        projections: For some of these outputs, what maps them to the teacher's channels.
    """

    def __init__(self, graph: GraphModule, projections: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.graph = graph
        self._names = list(projections)
        self.projections = nn.ModuleList(projections.values())

    @property
    def initializers(self) -> dict[str, nn.Parameter]:
        """The parameters of the graph by its initializers' names."""
        return self.graph.initializers

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph; outputs by name, those inside projected."""
        outputs = self.graph(inputs)
        for name, projection in zip(self._names, self.projections, strict=True):
            outputs[name] = projection(outputs[name])
        return outputs


class Projection(nn.Module):
    """A linear map of channels, the same at every place: of axis 1, or of the last where there are three dimensions.

    Args:
        channels: How many come in.
        wanted: How many go out.
        seed: Seed of the first weights (He's).
    """

    def __init__(self, channels: int, wanted: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(wanted, channels, generator=generator) * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(wanted))

    def forward(self, values: Tensor) -> Tensor:
        """Map ``[rows, channels, ...]``, or ``[rows, places, channels]``."""
        if values.ndim <= 3:
            return nn.functional.linear(values, self.weight, self.bias)
        kernel = self.weight.reshape(*self.weight.shape, *[1] * (values.ndim - 2))
        return nn.functional.conv2d(values, kernel, self.bias)


def with_hints(
    model: ir.Model,
    hints: Sequence[Hint],
    inputs: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    seed: int,
) -> Hinted:
    """Make a model trainable, with tensors inside it as outputs.

    Args:
        model: The student; it stays as it is.
        hints: Which tensors, and which of the teacher's they follow.
        inputs: A batch of what it takes.
        wanted: What the teacher gives for a batch, by name.
        seed: Seed of the projections' first weights.

    Raises:
        ModelError: An operator cannot be trained.
    """
    inner = model.clone()
    expose(inner, [hint.output for hint in hints])
    graph = to_torch(inner).eval()
    with torch.no_grad():
        found = graph({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()})
    projections: dict[str, nn.Module] = {}
    for number, hint in enumerate(hints):
        own, theirs = found[hint.output].shape, wanted[hint.teacher].shape
        axis = -1 if len(own) == 3 else 1
        if hint.kind == "features" and own[axis] != theirs[axis]:
            projections[hint.output] = Projection(own[axis], theirs[axis], seed + number)
    return Hinted(graph, projections)
