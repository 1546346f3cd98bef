"""Writing a quantized weight into the graph, in the form that onnxruntime runs best.

Two forms. ``Cast`` then ``Mul`` is folded into a float constant when a session loads: the file is small
and the speed is the original's, in front of any operator. ``DequantizeLinear`` in front of ``MatMul`` is fused
to MatMulNBits, which reads the small weights at run time and is faster than float; in front of anything else it
would run at each inference.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from modelkit.graph.edit import Namer, add_initializer, make_node, owner_of, prepend
from modelkit.quantize.affine import Quantized


def storage_array(quantized: Quantized, *, whole_bytes: bool = False) -> tuple[np.ndarray, ir.DataType]:
    """Return the integers in the smallest ONNX type that holds them, and that type.

    ONNX and onnxruntime share 4- and 8-bit integers: 1 to 3 bits go into 4, 5 to 7 into 8.

    Args:
        quantized: The integers.
        whole_bytes: Whether 8-bit integers are wanted, since packing stores what is in them in fewer bits.
    """
    signed = quantized.zero_point is None
    if quantized.bits <= 4 and not whole_bytes:
        kind = ml_dtypes.int4 if signed else ml_dtypes.uint4
        return quantized.values.astype(kind), ir.DataType.INT4 if signed else ir.DataType.UINT4
    return quantized.values, ir.DataType.INT8 if signed else ir.DataType.UINT8


def stored_bytes(quantized: Quantized) -> int:
    """Bytes that the integers, scales and zero points take in a file."""
    bits = 4 if quantized.bits <= 4 else 8
    zero = 0 if quantized.zero_point is None else (quantized.zero_point.size * bits + 7) // 8
    return (quantized.values.size * bits + 7) // 8 + quantized.scale.size * 4 + zero


def write_folded(value: ir.Value, quantized: Quantized, namer: Namer, *, whole_bytes: bool = False) -> None:
    """Replace an initializer by integers, ``Cast`` and ``Mul`` (``Sub`` too when asymmetric).

    Args:
        value: A float32 initializer; its name passes to the result of the ``Mul``.
        quantized: Its integers; blocked ones are reshaped around the multiplication.
        namer: Names of the model.
        whole_bytes: See `storage_array`.
    """
    graph, name, shape = owner_of(value), str(value.name), quantized.values.shape
    array, dtype = storage_array(quantized, whole_bytes=whole_bytes)
    blocked = None
    if quantized.block is not None:
        axis, size = quantized.block
        blocked = (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
        array = array.reshape(blocked)

    def spread(numbers: np.ndarray) -> np.ndarray:
        """Give scales of blocks an axis of length 1 to broadcast over."""
        return numbers if quantized.block is None else np.expand_dims(numbers, quantized.block[0] + 1)

    stored = add_initializer(graph, namer(f"{name}.q"), array, dtype)
    scale = add_initializer(graph, namer(f"{name}.scale"), spread(quantized.scale))
    cast = make_node(
        "Cast",
        [stored],
        [namer(f"{name}.float")],
        name=namer(f"{name}.cast"),
        attributes={"to": int(ir.DataType.FLOAT)},
    )
    nodes = [cast]
    if quantized.zero_point is not None:
        zero = add_initializer(graph, namer(f"{name}.zero"), spread(quantized.zero_point).astype(np.float32))
        nodes.append(make_node("Sub", [cast.outputs[0], zero], [namer(f"{name}.shifted")], name=namer(f"{name}.sub")))
    del graph.initializers[name]
    last = name if blocked is None else namer(f"{name}.blocks")
    nodes.append(make_node("Mul", [nodes[-1].outputs[0], scale], [last], name=namer(f"{name}.mul")))
    if blocked is not None:
        target = add_initializer(graph, namer(f"{name}.shape"), np.array(shape, dtype=np.int64))
        nodes.append(make_node("Reshape", [nodes[-1].outputs[0], target], [name], name=namer(f"{name}.reshape")))
    _finish(graph, value, nodes)


def write_dequantized(
    value: ir.Value, quantized: Quantized, axis: int, namer: Namer, *, whole_bytes: bool = False
) -> None:
    """Replace an initializer by integers and ``DequantizeLinear``.

    Args:
        value: A float32 initializer; its name passes to the result.
        quantized: Its integers, per channel of ``axis`` or blocked.
        axis: The channel axis (the blocked axis when blocked).
        namer: Names of the model.
        whole_bytes: See `storage_array`.
    """
    graph, name = owner_of(value), str(value.name)
    array, dtype = storage_array(quantized, whole_bytes=whole_bytes)
    stored = add_initializer(graph, namer(f"{name}.q"), array, dtype)
    scale_array, zero_array = quantized.scale, quantized.zero_point
    attributes: dict[str, object] = {"axis": axis}
    # One block is the whole tensor, and onnxruntime takes no block size for that.
    if quantized.block is None or quantized.scale.size == 1:
        scale_array = scale_array.reshape(-1)
        zero_array = None if zero_array is None else zero_array.reshape(-1)
        if scale_array.size == 1:
            scale_array, attributes = scale_array.reshape(()), {}
            zero_array = None if zero_array is None else zero_array.reshape(())
    else:
        attributes["block_size"] = quantized.block[1]
    inputs = [stored, add_initializer(graph, namer(f"{name}.scale"), scale_array)]
    if zero_array is not None:
        kind = ml_dtypes.uint4 if dtype == ir.DataType.UINT4 else np.uint8
        inputs.append(add_initializer(graph, namer(f"{name}.zero"), zero_array.astype(kind), dtype))
    del graph.initializers[name]
    node = make_node("DequantizeLinear", inputs, [name], name=namer(f"{name}.dequantize"), attributes=attributes)
    _finish(graph, value, [node])


def code_bits(values: int) -> int:
    """Bits of a place in a table of so many values, as `write_palette` stores it without packing: 4 or 8."""
    return 4 if values <= 16 else 8


def write_palette(
    value: ir.Value, tables: np.ndarray, codes: np.ndarray, offsets: np.ndarray, namer: Namer, *, small: bool
) -> None:
    """Replace an initializer by tables, places in them, ``Cast`` and ``Gather``, all folded at load.

    Args:
        value: A float32 initializer; its name passes to the result of the ``Gather``.
        tables: float32 ``[groups, values]``, at most 256 values.
        codes: For each number its place in the table of its group, in the shape of the initializer.
        offsets: Where tables begin, in a shape that broadcasts against the codes.
        namer: Names of the model.
        small: Whether places take 4 bits where they fit; they must be whole bytes to be packed.
    """
    graph, name = owner_of(value), str(value.name)
    four = small and code_bits(tables.shape[1]) == 4
    array = codes.astype(ml_dtypes.uint4 if four else np.uint8)
    stored = add_initializer(graph, namer(f"{name}.codes"), array, ir.DataType.UINT4 if four else ir.DataType.UINT8)
    table = add_initializer(graph, namer(f"{name}.tables"), tables.reshape(-1))
    place = make_node(
        "Cast",
        [stored],
        [namer(f"{name}.place")],
        name=namer(f"{name}.cast"),
        attributes={"to": int(ir.DataType.INT32)},
        dtype=ir.DataType.INT32,
    )
    nodes = [place]
    if len(tables) > 1:
        moved = add_initializer(graph, namer(f"{name}.offsets"), offsets.astype(np.int32))
        at = make_node(
            "Add",
            [place.outputs[0], moved],
            [namer(f"{name}.at")],
            name=namer(f"{name}.add"),
            dtype=ir.DataType.INT32,
        )
        nodes.append(at)
    del graph.initializers[name]
    attributes: dict[str, object] = {"axis": 0}
    nodes.append(
        make_node(
            "Gather", [table, nodes[-1].outputs[0]], [name], name=namer(f"{name}.look_up"), attributes=attributes
        )
    )
    _finish(graph, value, nodes)


def write_half(value: ir.Value, dtype: ir.DataType, namer: Namer) -> float:
    """Replace an initializer by 16-bit floats and a ``Cast`` that folds at load.

    Args:
        value: A float32 initializer.
        dtype: FLOAT16 or BFLOAT16. Numbers beyond its largest (float16: ±65504) are clipped to it.
        namer: Names of the model.

    Returns:
        The largest absolute change of a number.
    """
    graph, name = owner_of(value), str(value.name)
    array = value.const_value.numpy()  # type: ignore[union-attr]
    kind = ml_dtypes.bfloat16 if dtype == ir.DataType.BFLOAT16 else np.float16
    most = float(ml_dtypes.finfo(kind).max)
    half = np.clip(array, -most, most).astype(kind)
    stored = add_initializer(graph, namer(f"{name}.half"), half, dtype)
    del graph.initializers[name]
    node = make_node("Cast", [stored], [name], name=namer(f"{name}.cast"), attributes={"to": int(ir.DataType.FLOAT)})
    _finish(graph, value, [node])
    return float(np.abs(half.astype(np.float32) - array).max(initial=0.0))


def _finish(graph: ir.Graph, old: ir.Value, nodes: list[ir.Node]) -> None:
    """Put the nodes in front and let every reader of the old value read the last node's output."""
    new = nodes[-1].outputs[0]
    new.shape, new.type = old.shape, old.type
    old.replace_all_uses_with(new)
    prepend(graph, nodes)
