"""Weights of up to four bits packed in pairs, in a form that still runs in onnxruntime's 8-bit kernels.

``DequantizeLinear`` of 4-bit numbers in front of a convolution is fused with nothing: it runs at each inference, and
the convolution computes in float. A ``Cast`` to 8 bits is folded when a session is made, and behind it stands the
``DequantizeLinear`` of 8-bit numbers that onnxruntime knows.
"""

from __future__ import annotations

import ml_dtypes
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer, drop_unused_initializers, make_node, owner_of

OPSET = 21
"""The first with 4-bit integers."""

_LOW, _HIGH = -8, 7
# Below this the node that unpacks takes more bytes than it saves.
_LEAST = 256


def pack_four_bits(model: ir.Model) -> list[Decision]:
    """Store int8 weights behind DequantizeLinear as int4 where they fit, in place. The opset must be 21 or more.

    Returns:
        A decision for each weight that was packed.
    """
    namer, decisions = Namer(model), []
    for node in list(model.graph):
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if stored is None or not stored.is_initializer() or stored.is_graph_input() or stored.const_value is None:
            continue
        array, name = stored.const_value.numpy(), str(stored.name)
        fits = array.dtype == "int8" and array.size >= _LEAST and array.min() >= _LOW and array.max() <= _HIGH
        if not fits or stored.graph is not model.graph:
            continue
        packed = add_initializer(owner_of(stored), namer(f"{name}4"), array.astype(ml_dtypes.int4), ir.DataType.INT4)
        cast = make_node(
            "Cast",
            [packed],
            [namer(f"{name}.unpacked")],
            name=namer(f"{name}.unpack"),
            attributes={"to": int(ir.DataType.INT8)},
            dtype=ir.DataType.INT8,
            shapes=[stored.shape],
        )
        model.graph.insert_before(next(iter(model.graph)), cast)
        stored.replace_all_uses_with(cast.outputs[0])
        decisions.append(Decision(name, "packed", "two numbers in a byte; onnxruntime unpacks them when it loads"))
    drop_unused_initializers(model)
    return decisions
