"""Makes up for cut channels without training: least squares, layer by layer, front to back.

Each layer behind the cut gets the weights that bring its output, computed from what the *cut* model feeds it, closest
to what the *original* computed there, over calibration data (He et al. 2017, "Channel Pruning for Accelerating Very
Deep Neural Networks", arXiv:1707.06168, section 3.1). Three things make the difference:

* The error that is already upstream is in the layer's input, so it is absorbed and not passed on.
* Where the output is added to a shortcut, the target is the original's *sum* minus the cut model's shortcut: the
  layer also makes up for the error that comes along the shortcut.
* Where a Relu follows, what it sets to zero on both sides is no error: with the target renewed accordingly a few
  times, the fit is one of the layer and its Relu together.

The pull toward the cut weights is scaled by the mean of the Gram matrix's diagonal, so that it means the same for
every layer; sums are in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelkit.algorithm.activations import check_finite
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.linear.fit import Fit
from modelkit.linear.layers import Linear, linear_layers
from modelkit.linear.sidebyside import BATCH, Tap
from modelkit.progress import Progress, silent


@dataclass
class Stayed:
    """What stayed of the original's weights.

    Attributes:
        outputs: For each weight whose output channels were cut, those that stayed, as positions in the original.
        read: Names of the weights whose input channels were cut.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Step:
    """A layer to fit.

    Attributes:
        linear: The layer in the cut model.
        end: The value that is compared with the original's: the layer's output, or the sum that it goes into.
        relu: Whether only a Relu reads ``end``.
        level: Layers of one level do not depend on each other.
    """

    linear: Linear
    end: str
    relu: bool
    level: int


@dataclass(frozen=True)
class Repair:
    """How cut models are repaired.

    Attributes:
        original: The model before anything was cut.
        data: Inputs; no labels are needed.
        limit: At most this many samples.
        ridge: Pull toward the cut weights.
        bias_only: Only make up for the shift of each output's mean.
        shortcuts: Whether a layer also makes up for the error in the shortcut that it is added to.
        relu: Whether layer and Relu are fitted together.
        threads: Threads of the forward passes.
    """

    original: ir.Model
    data: Dataset
    limit: int
    ridge: float = 1e-3
    bias_only: bool = False
    shortcuts: bool = True
    relu: bool = True
    threads: int = 0

    def apply(self, model: ir.Model, stayed: Stayed, progress: Progress = silent) -> list[Decision]:
        """Repair a cut model in place.

        Args:
            model: The cut model; values have the names that they have in the original.
            stayed: What stayed of the original's weights.
            progress: Told how far the work is.

        Returns:
            A decision for each layer that was fitted.

        Raises:
            DataError: An activation became infinite or NaN.
        """
        steps = _steps(model, stayed, self.shortcuts, self.relu and not self.bias_only)
        levels = sorted({step.level for step in steps})
        decisions: list[Decision] = []
        for number, level in enumerate(levels):
            progress("repairing", number, len(levels))
            decisions += self._fit(model, [step for step in steps if step.level == level], stayed)
        progress("repairing", len(levels), len(levels))
        return decisions

    def _fit(self, model: ir.Model, steps: Sequence[_Step], stayed: Stayed) -> list[Decision]:
        fits = [Fit(step.linear.matrices(), step.linear.takes_bias, step.relu) for step in steps]
        mine = Tap(model, [name for step in steps for name in (step.linear.reading.source, step.end)], self.threads)
        theirs = Tap(self.original, [step.end for step in steps], self.threads)
        count = min(self.limit, self.data.count)
        generator = np.random.default_rng(0)
        for batch in self.data.batches(BATCH, count):
            found, wanted = mine(batch), theirs(batch)
            for step, fit in zip(steps, fits, strict=True):
                linear = step.linear
                rows = linear.reading.rows(found[linear.reading.source])
                most = -(-fit.rows_wanted * batch.valid // count)
                picked = np.arange(rows) if rows <= most else np.sort(generator.permutation(rows)[:most])
                targets = linear.outputs_of(_finite(wanted, step.end), picked)
                kept = stayed.outputs.get(linear.name)
                fit.add(
                    linear.reading.columns(_finite(found, linear.reading.source), picked),
                    linear.outputs_of(found[step.end], picked),
                    targets if kept is None else targets[:, kept],
                )
        return [self._put(step.linear, fit) for step, fit in zip(steps, fits, strict=True)]

    def _put(self, linear: Linear, fit: Fit) -> Decision:
        before = fit.error(fit.matrices, np.zeros(fit.matrices.shape[:2]))
        matrices, shift = (fit.matrices, fit.shift()) if self.bias_only else fit.solve(self.ridge)
        after = fit.error(matrices, shift)
        if not self.bias_only:
            linear.put(matrices)
        if linear.takes_bias:
            linear.shift_bias(shift.reshape(-1))
        reason = "its bias makes up for what was cut" if self.bias_only else "fitted to the original's outputs"
        numbers: dict[str, float | int | str] = {"error_before": _short(before), "error": _short(after)}
        return Decision(linear.name, "repaired", reason, numbers)


def _steps(model: ir.Model, stayed: Stayed, shortcuts: bool, relu: bool) -> list[_Step]:
    """Find the layers whose inputs are not the original's, and the order in which they can be fitted."""
    linears = {linear.node: linear for linear in linear_layers(model).values()}
    order = {node: number for number, node in enumerate(model.graph)}
    changed: set[ir.Value] = set()
    level: dict[ir.Value, int] = {}
    steps: list[_Step] = []
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        linear = linears.get(node)
        moved = any(value in changed or str(value.name) in stayed.read for value in inputs)
        deepest = max((level.get(value, 0) for value in inputs), default=0)
        if moved and linear is not None:
            end, deepest = _end(linear, order, level, deepest) if shortcuts else (_own_end(linear), deepest)
            deepest += 1
            steps.append(_Step(linear, str(end.name), relu and _only_relu(end), deepest))
        for value in node.outputs:
            level[value] = deepest
            if moved:
                changed.add(value)
    return steps


def _own_end(linear: Linear) -> ir.Value:
    """The layer's output with its bias."""
    return linear.output if linear.adder is None else linear.adder.outputs[0]


def _end(
    linear: Linear, order: Mapping[ir.Node, int], level: Mapping[ir.Value, int], deepest: int
) -> tuple[ir.Value, int]:
    """The sum that a layer's output goes into, as far as all else in it is final when the layer's turn comes."""
    end = _own_end(linear)
    while not end.is_graph_output():
        uses = list(end.uses())
        if len(uses) != 1 or uses[0][0].op_type != "Add" or uses[0][0].domain:
            break
        adder, index = uses[0]
        other, total = adder.inputs[1 - index], adder.outputs[0]
        producer = other.producer() if other is not None else None
        earlier = producer is not None and order.get(producer, len(order)) < order[linear.node]
        if other is None or not earlier or end.shape is None or end.shape != total.shape:
            break
        end, deepest = total, max(deepest, level.get(other, 0))
    return end, deepest


def _only_relu(value: ir.Value) -> bool:
    uses = list(value.uses())
    return bool(uses) and not value.is_graph_output() and all(node.op_type == "Relu" for node, _ in uses)


def _finite(found: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    values = found[name].astype(np.float32, copy=False)
    check_finite(name, values, "on the data")
    return values


def _short(value: float) -> float:
    return float(f"{value:.3g}")
