"""Weight-only quantization: small integers in the file, float arithmetic at run time, no data needed."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.graph.edit import Namer
from modelkit.graph.layers import Role, WeightUse
from modelkit.linear.grams import LayerGram, collect
from modelkit.linear.matrix import MATRIX_ROLES, Layer, layer_of
from modelkit.progress import Progress, silent
from modelkit.quantize import affine, encode
from modelkit.quantize.config import WeightOptions, plain_rounding
from modelkit.quantize.gemm import biasless_to_matmul, gemms_to_matmul, keep_apart
from modelkit.quantize.gptq import round_with_data
from modelkit.quantize.select import float_weights, role_name

# Samples that show a layer's inputs, and inputs beyond which their moments are not kept (float64: 2 GB).
_SAMPLES, _MOST_INPUTS = 256, 16384
# What a Cast, a Mul, two initializers and their names add to a file, in bytes.
_NODE_OVERHEAD = 220


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
        data: What rounding by gptq looks at; the first 256 samples are used.
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
    observed = _observed(model, uses, data, progress) if options.rounding == "gptq" and data is not None else {}
    for index, use in enumerate(uses):
        progress("quantizing weights", index, len(uses))
        decisions.append(_quantize_one(use, bits, options, form, namer, observed))
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


_Observed = dict[str, tuple[Layer, LayerGram]]


def _observed(model: ir.Model, uses: list[WeightUse], data: Dataset, progress: Progress) -> _Observed:
    """Second moments of what each layer multiplies its weight with, where they can be seen and kept."""
    layers = [layer_of(use) for use in uses if use.role in MATRIX_ROLES]
    layers = [layer for layer in layers if layer.inputs <= _MOST_INPUTS]
    grams = collect(model, layers, data, limit=_SAMPLES, progress=progress)
    return {layer.name: (layer, grams[layer.name]) for layer in layers if layer.name in grams}


def _quantize_one(
    use: WeightUse, bits: int, options: WeightOptions, form: _Form, namer: Namer, observed: _Observed
) -> Decision:
    name = str(use.value.name)
    array = use.value.const_value.numpy()  # type: ignore[union-attr]
    as_dequantize = form.fuse and _fusable(use)
    # Tables and constants outside layers stay at 8 bits: they enter sums directly, with nothing to average out.
    used_bits = 8 if use.role is Role.OTHER else bits
    block, granularity = _blocks(use, options), options.granularity
    quantized = affine.quantize_array(
        array,
        bits=used_bits,
        reduce_axes=None if options.granularity == "tensor" else use.reduce_axes,
        block=block,
        center=options.center,
        search=options.scale,
        rounding=plain_rounding(options),
    )
    if name in observed and granularity != "tensor":
        quantized = round_with_data(array, quantized, *observed[name])
    before, after = array.nbytes, encode.stored_bytes(quantized)
    if after + _NODE_OVERHEAD >= before:
        return Decision(name, "kept", f"{array.size} numbers: scales and nodes would cost more than they save")
    restored = affine.dequantize(quantized)
    numbers: dict[str, float | int | str] = {
        "bits": used_bits,
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
