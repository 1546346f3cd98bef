"""Training with shared values: weights stay the nearest of a few numbers, and both are learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from modelkit.train.module import GraphModule, numbers_of
from modelkit.train.parameters import running_statistics, trained
from modelkit.train.program import compile_graph

if TYPE_CHECKING:
    from modelkit.train.program import Program


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, table: Tensor, places: Tensor) -> Tensor:
        ordered, order = table.sort()
        flat = weight.reshape(-1)[places]
        codes = torch.bucketize(flat, (ordered[1:] + ordered[:-1]) / 2)
        ctx.save_for_backward(order[codes], places)
        ctx.count = len(table)
        result = torch.zeros_like(weight).reshape(-1)
        result[places] = ordered[codes]
        return result.reshape(weight.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        codes, places = ctx.saved_tensors
        flat = gradients[0].reshape(-1)[places]
        of_weight = torch.zeros_like(gradients[0]).reshape(-1)
        of_weight[places] = flat
        of_table = torch.zeros(ctx.count, dtype=flat.dtype, device=flat.device).index_add_(0, codes, flat)
        # Divided as in Esser et al., section 2.2: a value sums up the gradients of all that share it.
        return of_weight.reshape(gradients[0].shape), of_table / math.sqrt(max(1.0, len(codes) / ctx.count)), None


def nearest(weight: Tensor, table: Tensor, places: Tensor) -> Tensor:
    """Round numbers to the nearest values of a table; all others are zero.

    A value's gradient is the sum of those of the numbers that it stands for (Han, Mao and Dally, "Deep Compression",
    2016, section 3.3), and a number's own is that of what it is rounded to, as if nothing were rounded, so that it
    can move to another value (Bengio, Léonard and Courville, 2013).

    Args:
        weight: Floats of any shape.
        table: Values in any order, ``[values]``.
        places: Which of the numbers, counted through, are rounded; the others become zero.
    """
    result: Tensor = _Nearest.apply(weight, table, places)
    return result


class SharedModule(GraphModule):
    """A graph whose weights take a few values, with gradients for the values and for what takes them.

    Its ``initializers`` are the float numbers behind; ``write_back`` stores what they are rounded to.

    Args:
        program: The graph, compiled.
        parameters: Float numbers by initializer.
        statistics: Running statistics by initializer.
        tables: Shared values by initializer; what is zero in it now stays zero.
    """

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
        tables: Mapping[str, Tensor],
    ) -> None:
        super().__init__(program, parameters, statistics)
        self._shared: dict[str, tuple[str, str]] = {}
        for number, (name, table) in enumerate(tables.items()):
            names = self._shared[name] = (f"table_{number}", f"places_{number}")
            self.register_parameter(names[0], nn.Parameter(table))
            self.register_buffer(names[1], torch.nonzero(parameters[name].reshape(-1)).reshape(-1), persistent=False)

    def current(self) -> dict[str, Tensor]:
        """What the graph finds in each initializer that may change: shared values where there are any."""
        now = super().current()
        for name, (table, places) in self._shared.items():
            now[name] = nearest(now[name], getattr(self, table), getattr(self, places))
        return now


def shared_module(model: ir.Model, floats: Mapping[str, np.ndarray]) -> SharedModule:
    """Make a trainable module of a graph whose weights take a few values.

    Args:
        model: The graph; its initializers that are named hold the shared values. It is only read.
        floats: What these were made of, by initializer, with zeros where they have zeros. Those that are not trained
            are left out.

    Raises:
        ModelError: The graph cannot be trained.
    """
    parameters, statistics = trained(model.graph), running_statistics(model.graph)
    numbers = {str(value.name): numbers_of(value) for value in parameters}
    tables = {}
    for name in floats.keys() & numbers.keys():
        values = torch.unique(numbers[name])
        values = values[values != 0]
        if len(values):
            tables[name] = values
            behind = torch.from_numpy(np.array(floats[name], dtype=np.float32))
            numbers[name] = torch.where(numbers[name] == 0, torch.zeros(()), behind)
    return SharedModule(
        compile_graph(model, [*parameters, *statistics], widen=True),
        numbers,
        {str(value.name): numbers_of(value) for value in statistics},
        dict(sorted(tables.items())),
    )
