"""A quantized graph as a trainable module: float numbers behind its integers, and steps that are learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from modelkit.errors import ModelError
from modelkit.train.module import GraphModule, numbers_of
from modelkit.train.parameters import running_statistics, trained
from modelkit.train.program import Program, compile_graph
from modelkit.train.rounding import round_through, spread
from modelkit.train.sites import Sites, find_sites

_BIAS = float(2**31 - 1)


class FakeQuantModule(GraphModule):
    """A graph with QuantizeLinear and DequantizeLinear that torch runs, with gradients through the rounding.

    It computes what the graph computes, from float weights and biases that are rounded in each pass. Steps are
    learned by Esser et al., "Learned Step Size Quantization" (2020), in the logarithm (Jain et al., "Trained
    Quantization Thresholds", 2020, section 3.2): a step stays positive and moves in proportion to its size.

    Its ``initializers`` are the float numbers: a weight or bias under the name of its integers, and under the name of
    a step the logarithm of how many times larger it has become. ``write_back`` stores integers and steps.

    Args:
        program: The graph, compiled so that gradients pass through the rounding.
        parameters: Float numbers by initializer.
        statistics: Running statistics by initializer.
        sites: Where they belong.
        steps: The steps as they are, by initializer; of activations and weights.
        learn: Whether the steps are learned too, or stay.
    """

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
        sites: Sites,
        steps: Mapping[str, Tensor],
        learn: bool,
    ) -> None:
        moved = {name: torch.zeros_like(step) for name, step in steps.items()} if learn else {}
        super().__init__(program, {**parameters, **moved}, statistics)
        self._sites, self._learn = sites, learn
        self._starts: dict[str, str] = {}
        for number, (name, step) in enumerate(steps.items()):
            self._starts[name] = f"step_{number}"
            self.register_buffer(f"step_{number}", step)
        for number, weight in enumerate(sites.weights):
            if weight.zero is not None:
                self.register_buffer(f"zero_{number}", torch.from_numpy(weight.zero), persistent=False)
        if learn:
            self._weigh_gradients()

    def _weigh_gradients(self) -> None:
        """Divide a step's gradient by the root of how much it sums up (Esser et al., section 2.2)."""
        logarithms = self.initializers
        sums = {name: top * count for name, (top, count) in self._sites.activations.items()}
        for weight in self._sites.weights:
            sums[weight.scale] = weight.high * max(1, weight.floats.size // logarithms[weight.scale].numel())
        for name, total in sums.items():
            logarithms[name].register_hook(partial(torch.mul, other=1 / math.sqrt(total)))

    def current(self) -> dict[str, Tensor]:
        """What the graph finds in each initializer that may change: integers, as floats, and steps."""
        now = super().current()
        for name, attribute in self._starts.items():
            start: Tensor = getattr(self, attribute)
            now[name] = start * now[name].exp() if self._learn else start
        for number, weight in enumerate(self._sites.weights):
            floats = now[weight.stored]
            step = spread(now[weight.scale], floats, weight.axis)
            if weight.zero is None:
                now[weight.stored] = round_through(floats, step, weight.low, weight.high)
                continue
            zero = spread(getattr(self, f"zero_{number}"), floats, weight.axis)
            now[weight.stored] = round_through(floats, step, weight.low - zero, weight.high - zero) + zero
        for bias in self._sites.biases:
            step = (now[bias.activation] * now[bias.weight]).detach()
            now[bias.scale] = step
            now[bias.stored] = round_through(now[bias.stored], step, -_BIAS, _BIAS)
        return now


def fake_quantized(
    model: ir.Model, weights: Mapping[str, np.ndarray] | None = None, *, bits: int = 8, learn: bool = True
) -> FakeQuantModule:
    """Make a trainable module of a quantized graph.

    Trained are the weights of Conv, Gemm and MatMul that come from DequantizeLinear, their biases, the steps of both
    and of activations, and whatever ``to_torch`` trains of what is left in float. Zero points stay, and so do other
    constants in integers.

    Args:
        model: A graph with QuantizeLinear and DequantizeLinear; it is only read.
        weights: The float numbers that integers were made of, by the initializer of the integers; of others it
            takes what the integers stand for.
        bits: Bits of a signed weight, 2 to 8: it becomes ±(2^(bits-1) - 1).
        learn: Whether steps are learned.

    Raises:
        ModelError: No layer in it has integer weights, or the graph cannot be trained.
    """
    sites, values = find_sites(model.graph, bits), model.graph.initializers
    if not sites.weights:
        raise ModelError(
            "no layer of the graph multiplies by integer weights, so there is no rounding to train",
            "Conv, Gemm and MatMul behind DequantizeLinear can be trained",
        )
    floats = {weight.stored: weight.floats for weight in sites.weights}
    floats.update({bias.stored: bias.floats for bias in sites.biases})
    floats.update({name: array for name, array in (weights or {}).items() if name in floats})
    numbers = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in floats.items()}
    steps = {name: numbers_of(values[name]) for name in (*sites.activations, *(w.scale for w in sites.weights))}
    parameters, statistics = trained(model.graph), running_statistics(model.graph)
    moving = dict.fromkeys([*numbers, *steps, *(bias.scale for bias in sites.biases)])
    return FakeQuantModule(
        compile_graph(
            model,
            [*parameters, *statistics, *(values[name] for name in moving)],
            widen=True,
            straight_through=True,
        ),
        {**{str(v.name): numbers_of(v) for v in parameters}, **numbers},
        {str(v.name): numbers_of(v) for v in statistics},
        sites,
        steps,
        learn,
    )
