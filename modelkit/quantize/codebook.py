"""Palettes: a layer's weights become a few shared values, found by k-means.

Han, Mao and Dally, "Deep Compression" (2016), section 3. What is zero in a pruned weight stays zero. With inputs at
hand a weight counts by the mean square of what it is multiplied with, as it does in the error of the layer's output
(Choi et al., "Towards the Limit of Network Quantization", 2017, section 3.2, with the Hessian of a layer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.graph.edit import Namer
from modelkit.graph.layers import Role, WeightUse, weight_uses
from modelkit.graph.patterns import chosen, names_of
from modelkit.linear.grams import collect
from modelkit.linear.matrix import MATRIX_ROLES, Layer, layer_of
from modelkit.progress import Progress, silent
from modelkit.quantize import affine, encode
from modelkit.quantize.config import Codebook
from modelkit.quantize.kmeans import kmeans, nearest
from modelkit.quantize.select import float_weights, role_name

# What a call or a Gather, its initializers and their names add to a file, in bytes.
_OVERHEAD = 200
# Biases of fewer numbers take less room than what would rebuild them.
_LEAST_BIAS = 64


@dataclass(frozen=True)
class Palette:
    """A tensor as places in tables.

    Attributes:
        tables: The values of each group, ascending, the last one repeated where there are fewer: float32
            ``[groups, values]``.
        codes: For each number its place in its group's table, ``int64`` in the tensor's shape.
        groups: The group of each slice along `axis`, ``int64[length]``.
        axis: The axis along which groups follow one another.
    """

    tables: np.ndarray
    codes: np.ndarray
    groups: np.ndarray
    axis: int

    @property
    def array(self) -> np.ndarray:
        """The numbers that it stands for, float32."""
        return np.asarray(self.tables.reshape(-1)[self.places])

    @property
    def places(self) -> np.ndarray:
        """Places in all tables one after the other, in the tensor's shape."""
        return self.codes + self.offsets

    @property
    def offsets(self) -> np.ndarray:
        """What codes of a slice are moved by, in a shape that broadcasts against them."""
        shape = [1] * self.codes.ndim
        if self.codes.ndim:
            shape[self.axis] = -1
        return (self.groups * self.tables.shape[1]).reshape(shape)


def palette_of(
    array: np.ndarray, values: int, *, axis: int = 0, group: int = 0, weights: np.ndarray | None = None
) -> Palette:
    """Find shared values for a tensor.

    Args:
        array: Finite floats.
        values: Most values of a table, 2 to 256; a zero that is kept counts as one.
        axis: The axis of the outputs.
        group: Outputs that share a table; 0 for all.
        weights: How much each number counts, in the same shape; all alike by default.
    """
    length = array.shape[axis] if array.ndim else 1
    size = group or max(length, 1)
    groups = np.arange(length) // size
    tables = np.zeros((int(groups[-1]) + 1 if length else 1, values), np.float32)
    codes = np.zeros(array.shape, np.int64)
    for number in range(len(tables)):
        part = [slice(None)] * array.ndim
        if array.ndim:
            part[axis] = slice(number * size, (number + 1) * size)
        numbers = array[tuple(part)]
        if not numbers.size:
            continue
        table = _table(numbers, values, None if weights is None else weights[tuple(part)])
        tables[number, : len(table)], tables[number, len(table) :] = table, table[-1]
        codes[tuple(part)] = nearest(numbers, table)
    return Palette(tables, codes, groups, axis)


def _table(numbers: np.ndarray, values: int, weights: np.ndarray | None) -> np.ndarray:
    """Values for some numbers, ascending, float32; zero is one of them where many numbers are zero."""
    zero = numbers == 0
    if not zero.sum() * values > numbers.size:
        return np.unique(kmeans(numbers, values, weights).astype(np.float32))
    found = np.zeros(1, np.float32)
    if not zero.all():
        others = kmeans(numbers[~zero], values - 1, None if weights is None else weights[~zero])
        found = np.concatenate([found, others.astype(np.float32)])
    return np.unique(found)


def share_values(
    model: ir.Model,
    options: Codebook,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    packed: bool,
    data: Dataset | None = None,
    progress: Progress = silent,
) -> list[Decision]:
    """Let the weights of layers take a few values only, in place.

    Args:
        model: A normalised model; its opset must be 21 where places of 4 bits are stored (see `needs_four_bits`).
        options: How many values, and what shares them.
        include: Name patterns; empty means all.
        exclude: Name patterns of what stays float.
        packed: Whether the weights are packed afterwards: then they stay the floats that they are, where a tensor has
            one table. Otherwise places and tables are stored, and a ``Gather`` that is folded when the model loads.
        data: Inputs by which weights count; None where all count alike.
        progress: Called once for each weight.

    Returns:
        A decision for every float tensor, clustered or kept.

    Raises:
        UsageError: A pattern matches nothing.
    """
    uses, decisions = float_weights(model, include, exclude)
    by_input = {} if data is None else _importance(model, uses, data, options.samples, progress)
    namer = Namer(model)
    for index, use in enumerate(uses):
        progress("finding shared values", index, len(uses))
        decisions.append(_share_one(use, options, packed, by_input, namer))
    progress("finding shared values", len(uses), len(uses))
    return sorted(decisions, key=lambda decision: decision.target)


def needs_four_bits(options: Codebook, *, packed: bool) -> bool:
    """Whether places are stored in 4-bit integers, which opset 21 has."""
    return not packed and (options.values or 256) <= 16


def halve_biases(model: ir.Model, include: Sequence[str], exclude: Sequence[str]) -> list[Decision]:
    """Store biases of `_LEAST_BIAS` numbers and more in 16 bits, in place; patterns as for `share_values`."""
    namer, found = Namer(model), dict[str, Decision]()
    for use in weight_uses(model):
        tensor, name = use.value.const_value, str(use.value.name)
        if use.role is not Role.BIAS or tensor is None or tensor.dtype != ir.DataType.FLOAT or name in found:
            continue
        fits = tensor.size >= _LEAST_BIAS and not use.value.is_graph_output()
        if fits and not chosen(names_of(use), include, exclude) and np.isfinite(tensor.numpy()).all():
            change = encode.write_half(use.value, ir.DataType.FLOAT16, namer)
            numbers: dict[str, float | int | str] = {
                "bytes_before": tensor.nbytes,
                "max_change": float(f"{change:.3g}"),
            }
            found[name] = Decision(name, "halved", "a bias in 16 bits", numbers)
    return list(found.values())


def _importance(
    model: ir.Model, uses: Sequence[WeightUse], data: Dataset, limit: int, progress: Progress
) -> Mapping[str, np.ndarray]:
    """Mean squares of what weights are multiplied with, in their shapes, by name; of those that can be observed."""
    layers: list[Layer] = [layer_of(use) for use in uses if use.role in MATRIX_ROLES]
    found = {}
    for name, gram in collect(model, layers, data, limit=limit, full=False, progress=progress).items():
        layer = next(each for each in layers if each.name == name)
        squares = gram.squares / max(float(gram.squares.mean()), 1e-300)
        spread = np.broadcast_to(squares[:, None, :], (layer.groups, layer.outputs, layer.inputs))
        found[name] = layer.stored(spread)
    return found


def _share_one(
    use: WeightUse,
    options: Codebook,
    packed: bool,
    by_input: Mapping[str, np.ndarray],
    namer: Namer,
) -> Decision:
    name = str(use.value.name)
    tensor = use.value.const_value
    assert tensor is not None
    array = tensor.numpy()
    # Constants outside layers enter sums directly, with nothing to average out. A table that is packed begins with a
    # zero, so that 256 values are one too many.
    values = min(256 if use.role is Role.OTHER else options.values or 256, 255 if packed else 256)
    group = options.group if use.role in MATRIX_ROLES and use.channel_axis is not None else 0
    weights = by_input.get(name)
    found = palette_of(array, values, axis=use.channel_axis or 0, group=group, weights=weights)
    bits = max(1, (values - 1).bit_length())
    as_floats = packed and len(found.tables) == 1
    after = array.size * (bits if packed else encode.code_bits(values)) // 8 + found.tables.nbytes
    if after + _OVERHEAD >= array.nbytes:
        return Decision(
            name, "kept", f"{array.size} numbers: a table of {values} values would cost more than it saves"
        )
    restored = found.array
    if as_floats:
        use.value.const_value = ir.tensor(restored, name=name)
    else:
        encode.write_palette(use.value, found.tables, found.codes, found.offsets, namer, small=not packed)
    counted = "by what it is multiplied with" if weights is not None else "each number alike"
    return Decision(
        name,
        "clustered",
        f"{role_name(use)}, k-means, {counted}",
        {
            "values": values,
            "groups": len(found.tables),
            "bytes_before": array.nbytes,
            "sqnr_db": round(affine.sqnr_db(array, restored), 2),
        },
    )
