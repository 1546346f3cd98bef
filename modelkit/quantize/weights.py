"""Weight-only quantization: small integers in the file, float arithmetic at run time, no data needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.graph.edit import Namer
from modelkit.graph.layers import Role, WeightUse
from modelkit.progress import Progress, silent
from modelkit.quantize import affine, encode
from modelkit.quantize.by_data import observe_layers, round_layer
from modelkit.quantize.config import WeightOptions, data_rounding, plain_rounding
from modelkit.quantize.gemm import biasless_to_matmul, gemms_to_matmul, keep_apart
from modelkit.quantize.select import float_weights, role_name

# What a Cast, a Mul, two initializers and their names add to a file, in bytes.
_NODE_OVERHEAD = 220
# Numbers of a row that are worth a scale of their own, and the error of a table that calls for 16 bits.
_ROW, _TABLE_ERROR = 32, 0.01


def quantize_weights(
    model: ir.Model,
    *,
    bits: int,
    options: WeightOptions,
    include: list[str],
    exclude: list[str],
    fuse_matmul: bool,
    packed: bool = False,
    data: Dataset | None = None,
    progress: Progress = silent,
) -> list[Decision]:
    """Store float weights as integers, in place.

    Args:
        model: A normalised model. Its opset must be 13 where ``fuse_matmul`` is set (21 for blocks or 4 bits).
        bits: 1 to 8. Unless they are packed, 1 to 3 bits take the room of 4, and 5 to 7 that of 8.
        options: Granularity, zero point, scale search and rounding.
        include: Name patterns; empty means all.
        exclude: Name patterns of what stays float.
        fuse_matmul: True lets MatMul and Gemm read small weights at run time (``DequantizeLinear``, fused to
            MatMulNBits by onnxruntime); False folds every weight back to float at load.
        packed: Whether the integers are packed afterwards, and so are to be stored in whole bytes.
        data: What rounding by data looks at; the first 256 samples are used.
        progress: Called once for each weight.

    Returns:
        A decision for every float tensor, quantized or kept.

    Raises:
        UsageError: A pattern matches nothing.
    """
    if fuse_matmul:
        gemms_to_matmul(model)
    uses, decisions = float_weights(model, include, exclude)
    namer, form = Namer(model), _Form(fuse_matmul, packed)
    rounded = {} if data is None else _rounded(model, uses, bits, options, data, progress)
    for index, use in enumerate(uses):
        progress("quantizing weights", index, len(uses))
        decisions.append(_quantize_one(use, bits, options, form, namer, rounded.get(str(use.value.name))))
    progress("quantizing weights", len(uses), len(uses))
    if fuse_matmul:
        keep_apart(model)
    else:
        biasless_to_matmul(model)
    return sorted(decisions, key=lambda decision: decision.target)


@dataclass(frozen=True)
class _Form:
    """How integers stand in the file: read by MatMul where ``fuse`` is set, in whole bytes where ``whole`` is."""

    fuse: bool
    whole: bool


def _rounded(
    model: ir.Model, uses: list[WeightUse], bits: int, options: WeightOptions, data: Dataset, progress: Progress
) -> dict[str, affine.Quantized]:
    """Weights rounded by what they are multiplied with, where that can be seen, by name."""
    rounding = data_rounding(options)
    if rounding is None:
        return {}
    return {
        layer.name: round_layer(rounding, _plain(layer.use, bits, options), layer, gram)
        for layer, gram in observe_layers(model, uses, data, progress)
    }


def _plain(use: WeightUse, bits: int, options: WeightOptions) -> affine.Quantized:
    """A weight as integers, without data."""
    return affine.quantize_array(
        use.value.const_value.numpy(),  # type: ignore[union-attr]
        bits=bits,
        reduce_axes=None if options.granularity == "tensor" else use.reduce_axes,
        block=_blocks(use, options),
        center=options.center,
        search=options.scale,
        rounding=plain_rounding(options),
    )


def _quantize_one(
    use: WeightUse,
    bits: int,
    options: WeightOptions,
    form: _Form,
    namer: Namer,
    rounded: affine.Quantized | None,
) -> Decision:
    name = str(use.value.name)
    array = use.value.const_value.numpy()  # type: ignore[union-attr]
    as_dequantize = form.fuse and _fusable(use)
    if use.role is Role.OTHER:
        quantized = _table(array)
        if quantized is None:
            return _half(use, namer)
    else:
        quantized = _plain(use, bits, options) if rounded is None else rounded
    block = quantized.block
    before, after = array.nbytes, encode.stored_bytes(quantized)
    if after + _NODE_OVERHEAD >= before:
        return Decision(name, "kept", f"{array.size} numbers: scales and nodes would cost more than they save")
    restored = affine.dequantize(quantized)
    numbers: dict[str, float | int | str] = {
        "bits": quantized.bits,
        "bytes_before": before,
        "bytes_after": after,
        "sqnr_db": round(affine.sqnr_db(array, restored), 2),
    }
    if as_dequantize:
        encode.write_dequantized(use.value, quantized, 0 if block else 1, namer, whole_bytes=form.whole)
        how = "read as integers by MatMul at run time"
    else:
        encode.write_folded(use.value, quantized, namer, whole_bytes=form.whole)
        how = "unpacked when the model loads"
    return Decision(name, "quantized", f"{role_name(use)}, {how}", numbers)


def _table(array: np.ndarray) -> affine.Quantized | None:
    """A table or constant outside layers in 8 bits, or None where 16-bit floats keep it better.

    It enters sums directly, with nothing to average out: a row has its own range, and where a sum would change by
    more than a hundredth (what a softmax makes of its scores shows that) it takes 16 bits.
    """
    rows = array.ndim > 1 and array.shape[-1] >= _ROW
    found = affine.quantize_array(array, reduce_axes=(array.ndim - 1,) if rows else None, center="range")
    worst = float(np.abs(affine.dequantize(found) - array).max(initial=0.0))
    if worst <= _TABLE_ERROR or not np.abs(array).max(initial=0.0) <= np.finfo(np.float16).max:
        return found
    return None if float(np.abs(array.astype(np.float16) - array).max()) < worst else found


def _half(use: WeightUse, namer: Namer) -> Decision:
    """Store a table as 16-bit floats."""
    name, before = str(use.value.name), use.value.const_value.nbytes  # type: ignore[union-attr]
    error = encode.write_half(use.value, ir.DataType.FLOAT16, namer)
    numbers = {"bits": 16, "bytes_before": before, "bytes_after": before // 2, "max_error": error}
    return Decision(name, "float16", f"{role_name(use)}: 8 bits are too coarse for what it is added to", numbers)


def _fusable(use: WeightUse) -> bool:
    """MatMulNBits takes a constant 2-D right operand that one MatMul alone reads."""
    return (
        use.role is Role.MATMUL_WEIGHT
        and len(use.value.shape or ()) == 2
        and [(node.op_type, index) for node, index in use.consumers] == [("MatMul", 1)]
    )


def _blocks(use: WeightUse, options: WeightOptions) -> tuple[int, int] | None:
    """Return (axis, size) for blocks along the inputs of a channel, or None where they do not fit."""
    if options.granularity != "block" or not use.reduce_axes:
        return None
    axis = use.reduce_axes[0]
    length = int(use.value.shape[axis])  # type: ignore[index, arg-type]
    return None if length % options.block_size else (axis, options.block_size)
