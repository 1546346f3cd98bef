"""16-bit floats: half the bytes. Weights only (fast everywhere), or the whole graph for 16-bit processors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.edit import Namer
from modelkit.graph.patterns import chosen
from modelkit.progress import Progress, silent
from modelkit.quantize import encode
from modelkit.quantize.select import float_weights, role_name

_NODE_OVERHEAD = 90
_CONVERTER_LIMIT = 2**31 - 2**24


def store_half(
    model: ir.Model,
    dtype: ir.DataType,
    *,
    include: list[str],
    exclude: list[str],
    progress: Progress = silent,
) -> list[Decision]:
    """Store float32 weights as 16-bit floats that are cast back when the model loads, in place.

    Args:
        model: A normalised model. Its opset must be 13 for BFLOAT16.
        dtype: FLOAT16 or BFLOAT16.
        include: Name patterns; empty means all.
        exclude: Name patterns of what stays float32.
        progress: Called once for each weight.

    Raises:
        UsageError: A pattern matches nothing.
    """
    uses, decisions = float_weights(model, include, exclude)
    namer = Namer(model)
    for index, use in enumerate(uses):
        progress("converting weights", index, len(uses))
        name, tensor = str(use.value.name), use.value.const_value
        assert tensor is not None
        if tensor.nbytes // 2 <= _NODE_OVERHEAD:
            decisions.append(Decision(name, "kept", f"{tensor.size} numbers: the Cast would cost more than it saves"))
            continue
        peak = float(np.abs(tensor.numpy()).max(initial=0.0))
        error = encode.write_half(use.value, dtype, namer)
        clipped = dtype == ir.DataType.FLOAT16 and peak > 65504
        reason = f"{role_name(use)}, widened when the model loads" + (
            "; numbers beyond 65504 were clipped" if clipped else ""
        )
        decisions.append(
            Decision(
                name,
                dtype.name.lower(),
                reason,
                {
                    "bits": 16,
                    "bytes_before": tensor.nbytes,
                    "bytes_after": tensor.nbytes // 2,
                    "max_error": error,
                },
            )
        )
    return sorted(decisions, key=lambda decision: decision.target)


def compute_half(model: ir.Model, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Decision]:
    """Convert a whole graph to float16 arithmetic, in place; inputs and outputs stay float32.

    Uses onnxruntime's own converter, which knows the operators that have no float16 kernel and puts casts
    around them. On processors without 16-bit arithmetic the result is slower than the original.

    Args:
        model: A normalised model of less than 2 GB.
        include: Name patterns of the layers to convert; empty means all.
        exclude: Name patterns of the layers that go on computing in 32 bits.

    Raises:
        ModelError: The model is too large for the converter, or has an operator that it cannot convert.
    """
    total = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if total > _CONVERTER_LIMIT:
        raise ModelError(
            "a model over 2 GB cannot be converted to float16 arithmetic",
            "without float16.compute its weights are stored in 16 bits at any size",
        )
    from onnxruntime.transformers.float16 import convert_float_to_float16

    blocked = sorted(
        str(node.name)
        for node in model.graph.all_nodes()
        if (weights := [str(v.name) for v in node.inputs if v is not None and v.is_initializer()])
        and chosen([str(node.name), *weights], include, exclude) is not None
    )
    try:
        converted = convert_float_to_float16(ir.to_proto(model), keep_io_types=True, node_block_list=blocked)
        graph = ir.from_proto(converted).graph
    except Exception as error:  # the converter raises ValueError, KeyError and others
        raise ModelError(f"the graph cannot be converted to float16: {str(error)[:200]}") from error
    model.graph = graph
    casts = sum(node.op_type == "Cast" for node in graph.all_nodes())
    kept = sum(
        value.dtype == ir.DataType.FLOAT and value.const_value is not None and value.const_value.size > 1
        for value in graph.initializers.values()
    )
    return [
        Decision(
            "model",
            "float16",
            "the graph computes in 16 bits; inputs and outputs stay float32",
            {"casts": casts, "float32_tensors": kept},
        )
    ]
