"""What each group costs in error at each width: the network's own output, with that group alone cut and made up for.

Cutting is simulated: the columns of channels that go become zero in the layers that read them, and those layers'
other weights make up for it (see elimination.py), so every entry is one short run of a model of the old shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from modelkit.channels.elimination import Consumer
from modelkit.channels.importance import magnitude
from modelkit.channels.ranking import Observed, Ranking
from modelkit.channels.search import Widths, choose
from modelkit.data.dataset import Dataset
from modelkit.graph.channels import Group, zeroed
from modelkit.linear.grams import LayerGram
from modelkit.linear.sidebyside import BATCH, Tap
from modelkit.progress import Progress, silent

Errors = dict[str, dict[int, float]]

SAMPLES = 128
MOST_POINTS = 8  # widths of a group that are measured; those between are interpolated


def output_errors(
    model: ir.Model,
    groups: Sequence[Group],
    widths: Sequence[Widths],
    rankings: Mapping[str, Ranking],
    observed: Observed,
    data: Dataset,
    *,
    repaired: bool,
    progress: Progress = silent,
) -> Errors:
    """Measure what each group costs at each of its widths.

    Args:
        model: The model before the cut.
        groups: Groups that can be cut.
        widths: Their widths, in the same order.
        rankings: The order in which channels go.
        observed: What was seen of the model's layers.
        data: Inputs.
        repaired: Whether layers that read the group make up for what is gone.
        progress: Told how far the work is.

    Returns:
        For each group and width the squared error of the outputs as a share of their spread; 0 at the full width.
    """
    grams = observed.grams(groups, progress) if repaired else {}
    outputs = [str(value.name) for value in model.graph.outputs]
    batches = list(data.batches(BATCH, min(SAMPLES, data.count)))
    tap = Tap(model, outputs)
    expected = [tap(batch) for batch in batches]
    errors: Errors = {}
    for number, (group, each) in enumerate(zip(groups, widths, strict=True)):
        progress("measuring widths", number, len(groups))
        consumers = observed.consumers(group, grams) or [] if repaired else []
        measured = {each.channels: 0.0}
        gone: set[int] = set()
        for count in reversed(_some(each.choices)):
            kept = choose(group, rankings[group.name].order, count)
            variant = zeroed(model, {group.name: kept})
            _make_up(variant, group, kept, gone, consumers, grams, observed)
            found = Tap(variant, outputs)
            measured[count] = _distance(expected, [found(batch) for batch in batches])
        errors[group.name] = _between(each.choices, measured)
    return errors


def weight_errors(groups: Sequence[Group], widths: Sequence[Widths], rankings: Mapping[str, Ranking]) -> Errors:
    """Guess the same without data: the share of the group's weights' energy that goes with its channels."""
    errors: Errors = {}
    for group, each in zip(groups, widths, strict=True):
        energy = np.square(magnitude(group, 2))
        atoms = np.unique(group.atoms)
        errors[group.name] = {}
        for count in each.choices:
            kept = choose(group, rankings[group.name].order, count)
            lost = [not kept[group.atoms == atom].any() for atom in atoms]
            errors[group.name][count] = float(energy[lost].sum() / max(energy.sum(), 1e-30))
    return errors


def _some(choices: Sequence[int]) -> list[int]:
    """Evenly spread widths, the narrowest among them and without the full one."""
    narrower = list(choices[:-1])
    if len(narrower) <= MOST_POINTS:
        return narrower
    picked = np.linspace(0, len(narrower) - 1, MOST_POINTS).round().astype(int)
    return [narrower[index] for index in np.unique(picked)]


def _make_up(
    variant: ir.Model,
    group: Group,
    kept: np.ndarray,
    gone: set[int],
    consumers: Sequence[Consumer],
    grams: Mapping[str, LayerGram],
    observed: Observed,
) -> None:
    """Let the layers that read a group make up for the channels that are gone, in the variant."""
    lost = [number for number, atom in enumerate(np.unique(group.atoms)) if not kept[group.atoms == atom].any()]
    fresh = np.array([atom for atom in lost if atom not in gone], dtype=np.int64)
    gone.update(lost)
    values = variant.graph.initializers
    for consumer in consumers:
        if len(fresh):
            consumer.remove(fresh)
        layer, linear = observed.layers[consumer.name], observed.linears.get(consumer.name)
        value = values[consumer.name]
        old = value.const_value
        assert old is not None
        before = layer.matrices(layer.array()).astype(np.float64)
        array = layer.stored(consumer.matrices).astype(old.dtype.numpy())
        value.const_value = ir.tensor(array, dtype=old.dtype, name=value.name)
        if linear is None or linear.bias is None:
            continue
        lost = np.einsum("goi,gi->go", before - consumer.matrices, grams[consumer.name].mean).reshape(-1)
        shift = linear.bias_per_weight * lost
        bias = values[str(linear.bias.name)]
        assert bias.const_value is not None
        moved = (bias.const_value.numpy() + shift).astype(bias.const_value.dtype.numpy())
        bias.const_value = ir.tensor(moved, dtype=bias.const_value.dtype, name=bias.name)


def _distance(expected: Sequence[Mapping[str, np.ndarray]], found: Sequence[Mapping[str, np.ndarray]]) -> float:
    """Squared difference as a share of the spread, the mean over outputs of real numbers."""
    shares = []
    for name, first in expected[0].items():
        if first.dtype.kind != "f":
            continue
        wanted = np.concatenate([batch[name].astype(np.float64).reshape(-1) for batch in expected])
        got = np.concatenate([batch[name].astype(np.float64).reshape(-1) for batch in found])
        shares.append(np.square(got - wanted).sum() / max(np.square(wanted - wanted.mean()).sum(), 1e-30))
    return float(np.mean(shares)) if shares else 0.0


def _between(choices: Sequence[int], measured: Mapping[int, float]) -> dict[int, float]:
    """Interpolate, and let no width cost more than a narrower one."""
    points = sorted(measured)
    values = np.maximum.accumulate([measured[point] for point in reversed(points)])[::-1]
    return {count: float(np.interp(count, points, values)) for count in choices}
